//! What every request handler works with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::webhooks::{Feed, Webhooks};
use domain::Refusal;
use engine::{Engine, News, Sale};
use ledger::vault::VaultError;
use limiter::Hasher;
use pages::Site;
use till::Till;
use tokio::sync::Semaphore;

use crate::human::{HumanChecks, HumanOptions};
use crate::limits::{LimitOptions, Limits};
use crate::metrics::Metrics;
use crate::overload::{Overload, OverloadOptions};
use crate::pending::PendingTable;
use crate::problem::Problem;
use crate::site::PageCache;
use crate::streams::Streams;

const REQUEST_ID_BYTES_MAX: usize = 64;
/// Threads that read places of chains back from disk. The readers of one sale wait for each other, so a crowd that looks at its orders
/// must not become a crowd of threads, each with its own memory.
const CHAIN_READS_MAX: usize = 4;

/// How the handlers behave.
#[derive(Clone, Debug)]
pub struct AppOptions {
    /// How long a purchase waits for its decision before it is answered `pending`, unless `Prefer: wait` says otherwise.
    pub purchase_wait_seconds: u64,
    /// Who may ask how often.
    pub limits: LimitOptions,
    /// From where on requests are left out.
    pub overload: OverloadOptions,
    /// How human checks behave.
    pub human: HumanOptions,
}

/// The state that all serving threads share.
pub struct App {
    pub(crate) engine: Arc<Engine>,
    pub(crate) options: AppOptions,
    pub(crate) pending: PendingTable,
    pub(crate) limits: Limits,
    pub(crate) overload: Overload,
    pub(crate) human: HumanChecks,
    pub(crate) metrics: Metrics,
    pub(crate) streams: Arc<Streams>,
    pub(crate) feed: Feed,
    /// `None` where no books are kept.
    pub(crate) webhooks: Option<Webhooks>,
    /// `None` where the shop takes the money itself.
    pub(crate) till: Option<Arc<Till>>,
    /// What pages are made with, and those that were made a moment ago.
    pub(crate) site: Site,
    pub(crate) pages: PageCache,
    /// The right to read a place of a chain back from disk.
    pub(crate) chain_reads: Semaphore,
    /// The right to make files of an uploaded picture.
    pub(crate) picture_uploads: Arc<Semaphore>,
    /// The right to read a picture's file from the vault.
    pub(crate) picture_reads: Semaphore,
    request_prefix: String,
    request_count: AtomicU64,
}

impl App {
    /// The sale of that name. What is not there is answered to everybody in the same words, whatever it is.
    pub(crate) fn sale(&self, name: &str) -> Result<Arc<Sale>, Problem> {
        self.engine.sale(name).ok_or_else(|| Refusal::NotFound.into())
    }

    /// The same for the operator, who is told what is missing.
    pub(crate) fn named_sale(&self, name: &str) -> Result<Arc<Sale>, Problem> {
        self.engine.sale(name).ok_or_else(|| Problem::new(Refusal::NotFound, "there is no sale of that name"))
    }

    /// Wraps a running engine, and the services that call the shop and a payment provider, where there are some.
    pub fn new(
        engine: Arc<Engine>,
        webhooks: Option<Webhooks>,
        till: Option<Arc<Till>>,
        site: Site,
        options: AppOptions,
    ) -> Arc<Self> {
        let request_prefix = format!("{:x}-", engine.now() ^ (u64::from(std::process::id()) << 44));
        let metrics = Metrics::new();
        let counting = || (Hasher::new(&engine.identity_key.counting_key()), engine.shared().cloned());
        let (limited, blocks) = (metrics.limited.clone(), metrics.automatic_blocks.clone());
        let limits = Limits::new(options.limits.clone(), counting(), limited, blocks);
        let overload = Overload::new(options.overload, metrics.shed.clone(), &site.busy_page());
        let human = HumanChecks::new(engine.ids.human_check_secret(), options.human.clone(), counting());
        Arc::new(Self {
            engine,
            options,
            pending: PendingTable::default(),
            limits,
            overload,
            human,
            streams: Streams::new(metrics.streams.clone()),
            metrics,
            feed: Feed::default(),
            webhooks,
            till,
            site,
            pages: PageCache::default(),
            chain_reads: Semaphore::new(CHAIN_READS_MAX),
            picture_uploads: Arc::new(Semaphore::new(1)),
            picture_reads: Semaphore::new(1),
            request_prefix,
            request_count: AtomicU64::new(0),
        })
    }

    /// The engine behind it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Heeds what another gate of the cluster told. Blocks.
    pub fn heed(&self, news: News) -> Result<(), VaultError> {
        match news {
            News::Blocks => self.engine.look_for_blocks(),
            News::AddressBlocked { hash, milliseconds } => {
                self.limits.adopt(hash, self.engine.now(), milliseconds);
                Ok(())
            }
        }
    }

    /// Ends the calls to the shop; what was not noted is delivered again at the next start.
    pub fn stop_webhooks(&self) {
        if let Some(webhooks) = &self.webhooks {
            webhooks.stop();
        }
    }

    /// The client's own request id where it is short and plain, else a new one.
    pub(crate) fn request_id(&self, sent: Option<&str>) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        match sent {
            Some(sent) if (1..=REQUEST_ID_BYTES_MAX).contains(&sent.len()) && sent.bytes().all(plain) => {
                sent.to_owned()
            }
            _ => self.next_request_id(),
        }
    }

    fn next_request_id(&self) -> String {
        let mut count = self.request_count.fetch_add(1, Ordering::Relaxed);
        let mut digits = [0; 16];
        let mut at = digits.len();
        // By hand, since every request gets one and formatting costs more than all else about it.
        while at == digits.len() || count > 0 {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(count % 16) as usize];
            count /= 16;
        }
        let mut id = String::with_capacity(self.request_prefix.len() + digits.len());
        id.push_str(&self.request_prefix);
        id.extend(digits[at..].iter().map(|digit| char::from(*digit)));
        id
    }
}
