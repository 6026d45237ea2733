//! One sale in one process of a cluster: a thread of its own that follows the chain, has requests decided, and relays where that is
//! this process's part.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use admission::{OwnerHandle, Requests, SaleView};
use chain::batch::{BatchBuilder, BatchHeader};
use chain::{EncodedBatch, HeadSigner};
use domain::ids::Hash;
use domain::record::Created;
use domain::{ChainTime, Clock, Record, SaleId};
use fastrand::Rng;
use futures_util::StreamExt as _;
use stream::{AppendError, ReadError, Store, StreamLog};
use tokio::runtime::{Builder, Runtime};

use crate::decider::Decider;
use crate::follower::{FollowError, Follower};
use crate::gate::Gate;
use crate::ladder::{Ladder, Order, Rung, SAY_EVERY, Said};
use crate::link::Link;
use crate::news::{self, News};
use crate::options::ClusterOptions;
use crate::relay::Relay;
use crate::shared::Shared;

/// Where the rung is said, and what the operator wants.
const RUNG: &str = "rung";
const ORDER: &str = "order";
/// How long a process that joins sales waits until somebody decides them.
const JOIN_PATIENCE: Duration = Duration::from_secs(4);
/// News that wait for whoever listens; further ones are lost.
const NEWS_WAITING_MAX: usize = 1_024;
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Hears why a sale cannot be followed any further.
pub type OnEnd = Box<dyn FnOnce(ReadError) + Send>;

/// Why a process cannot belong to the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// NATS, or the stream there.
    #[error(transparent)]
    Store(#[from] stream::ConnectError),
    /// Redis answers, and refuses us.
    #[error("{0}")]
    Redis(String),
    /// The system gave no thread.
    #[error("no thread could be started: {0}")]
    Thread(std::io::Error),
}

/// Why a sale's chain was not begun.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The stream could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It was not appended, or that is unknown; creating the same sale again is safe.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// The connection of one process to the servers of its cluster.
pub struct Cluster {
    options: ClusterOptions,
    store: Store,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    runtime: Runtime,
}

/// What a process needs to know of a sale to take part in it.
pub struct Part<'a> {
    /// The shop's name of it.
    pub name: &'a str,
    /// Its id in the chain.
    pub sale: SaleId,
    /// Where the copy of its chain is kept.
    pub folder: &'a Path,
    /// Signs heads, where this process relays.
    pub signer: HeadSigner,
    /// Revealed after closing.
    pub slot_secret: Hash,
}

impl Cluster {
    /// Connects to NATS. Redis may be away, and is looked for when a sale needs it; but if it answers, it must take us in. Blocks.
    pub fn connect(options: ClusterOptions, clock: Arc<dyn Clock>) -> Result<Self, ConnectError> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("cluster").enable_all().build();
        let runtime = runtime.map_err(ConnectError::Thread)?;
        let store = runtime.block_on(Store::connect(&options.store))?;
        let login = runtime.block_on(async { Link::new(&options.redis, "login").check_login().await });
        login.map_err(|error| ConnectError::Redis(error.to_string()))?;
        let shared = Shared::start(&options, runtime.handle());
        Ok(Self { options, store, clock, shared, runtime })
    }

    /// What the gates keep together beside the sales.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What other processes tell, from here on, and before where it still counts.
    pub fn listen(&self) -> Receiver<News> {
        let (listener, news) = sync_channel(NEWS_WAITING_MAX);
        self.runtime.spawn(news::follow(self.options.redis.clone(), Arc::clone(&self.clock), listener));
        news
    }

    /// What this process does.
    pub fn options(&self) -> &ClusterOptions {
        &self.options
    }

    /// Begins a sale's chain, unless it has been begun. Blocks.
    pub fn create(&self, part: &Part<'_>, created: Created) -> Result<(), CreateError> {
        self.runtime.block_on(async {
            let mut log = StreamLog::at_end(&self.store, part.name, part.sale).await?;
            if log.next() > 0 {
                return Ok(());
            }
            match log.append(&first_batch(part, created, self.clock.wall_milliseconds())).await {
                // Two gates were asked to create the same sale: it is there.
                Err(AppendError::Moved | AppendError::Superseded(_)) => Ok(()),
                other => Ok(other?),
            }
        })
    }

    /// Takes part in a sale from here on. `None` while its chain has not been begun. Blocks until the chain is read to its end.
    pub fn join(&self, part: Part<'_>, on_end: OnEnd) -> Result<Option<(OwnerHandle, Arc<Ladder>)>, FollowError> {
        let whose = (part.name, part.sale, part.slot_secret);
        let opened = self.runtime.block_on(Follower::open(&self.store, part.folder, whose))?;
        let Some((follower, log)) = opened else { return Ok(None) };
        let view = Arc::clone(follower.lock().replica.view());
        // Until somebody is heard who brings decisions to the chain.
        view.suspend(true);
        view.inform(0);
        let ladder = Arc::new(Ladder::default());
        let running = Running {
            follower: Arc::new(follower),
            ladder: Arc::clone(&ladder),
            log,
            options: self.options.clone(),
            clock: Arc::clone(&self.clock),
            signer: part.signer,
            slot_secret: part.slot_secret,
        };
        let handle = OwnerHandle::elsewhere(view, move |requests| running.run(&requests, on_end))
            .map_err(|error| FollowError::Copy { folder: part.folder.to_owned(), reason: error.to_string() })?;
        Ok(Some((handle, ladder)))
    }

    /// Waits a moment until somebody decides each of these sales.
    pub fn wait_until_decided<'v>(&self, views: impl IntoIterator<Item = &'v Arc<SaleView>>) {
        let start = Instant::now();
        for view in views {
            while view.is_suspended() && start.elapsed() < JOIN_PATIENCE {
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }

    /// Tells every relay what the operator wants of a sale's ladder. Blocks until the message has left.
    pub fn order(&self, sale: &str, order: Order) -> Result<(), ReadError> {
        let told = |error: &dyn std::fmt::Display| ReadError::Unreachable(error.to_string());
        let message = serde_json::to_vec(&order).map_err(|error| told(&error))?;
        self.runtime.block_on(async {
            let client = self.store.client();
            client.publish(self.store.beside(ORDER, sale), message.into()).await.map_err(|error| told(&error))?;
            client.flush().await.map_err(|error| told(&error))
        })
    }
}

fn first_batch(part: &Part<'_>, created: Created, wall: u64) -> EncodedBatch {
    let header = BatchHeader { sale: part.sale, partition: 0, epoch: 1, time: ChainTime(wall), first: 0, count: 2 };
    let mut builder = BatchBuilder::new(header, chain::batch::GENESIS_HEAD);
    builder.push(&Record::Created(Box::new(created)), None);
    builder.push(&Record::Epoch(1), None);
    builder.finish(&part.signer)
}

struct Running {
    follower: Arc<Follower>,
    ladder: Arc<Ladder>,
    log: StreamLog,
    options: ClusterOptions,
    clock: Arc<dyn Clock>,
    signer: HeadSigner,
    slot_secret: Hash,
}

impl Running {
    fn run(self, requests: &Requests, on_end: OnEnd) {
        match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.work(requests, on_end)),
            Err(error) => on_end(ReadError::Unreachable(error.to_string())),
        }
    }

    async fn work(self, requests: &Requests, on_end: OnEnd) {
        let Self { follower, ladder, log, options, clock, signer, slot_secret } = self;
        let gate = Gate::new(&follower, &ladder, requests, clock.as_ref());
        let decider = Decider::new(&options.redis, &follower, &ladder, Rng::with_seed(options.process));
        let secrets = (&signer, slot_secret);
        let mut relay = Relay::new((&follower, &ladder), &clock, &options, secrets, log.clone());
        let relaying = async { if options.roles.relay { relay.run().await } else { std::future::pending().await } };
        tokio::select! {
            error = follower.follow(log) => on_end(error),
            () = gate.run(decider) => {}
            () = relaying => {}
            () = listen(&follower, &ladder) => {}
            () = speak(&follower, &ladder, clock.as_ref(), options.process) => {}
        }
        if options.roles.relay {
            relay.unlock().await;
        }
    }
}

/// Hears on which rung the sale stands, and what the operator wants.
async fn listen(follower: &Follower, ladder: &Ladder) {
    let (store, name) = (&follower.store, &follower.name);
    loop {
        let told = store.client().subscribe(store.beside(RUNG, name)).await;
        let ordered = store.client().subscribe(store.beside(ORDER, name)).await;
        let (Ok(mut told), Ok(mut ordered)) = (told, ordered) else {
            tokio::time::sleep(SAY_EVERY).await;
            continue;
        };
        loop {
            tokio::select! {
                message = told.next() => match message {
                    Some(message) => {
                        let said = serde_json::from_slice::<Said>(&message.payload);
                        let state = follower.lock();
                        if let Ok(said) = said {
                            ladder.hear(said);
                            state.replica.view().inform(said.as_of);
                        }
                        state.replica.view().suspend(ladder.rung() == Rung::Paused);
                    }
                    None => break,
                },
                message = ordered.next() => match message {
                    Some(message) => drop(serde_json::from_slice(&message.payload).map(|order| ladder.set_order(order))),
                    None => break,
                },
            }
        }
    }
}

/// Says on which rung the sale stands, while that is this process's to say; and tells strangers `paused` while nothing can be decided.
async fn speak(follower: &Follower, ladder: &Ladder, clock: &dyn Clock, process: u64) {
    let (store, name) = (&follower.store, &follower.name);
    loop {
        if let Some(rung) = ladder.to_say() {
            let epoch = follower.lock().replica.core().epoch();
            // Whoever decides on the chain itself is never behind.
            let as_of = if rung == Rung::Takeover { clock.wall_milliseconds() } else { ladder.as_of() };
            let message = serde_json::to_vec(&Said { rung, epoch, process, as_of }).unwrap_or_default();
            // Who does not hear it believes that nothing can be decided, and so it is.
            if store.client().connection_state() == async_nats::connection::State::Connected {
                drop(store.client().publish(store.beside(RUNG, name), message.into()).await);
            }
        }
        follower.lock().replica.view().suspend(ladder.rung() == Rung::Paused);
        drop(tokio::time::timeout(SAY_EVERY, ladder.turned.notified()).await);
    }
}
