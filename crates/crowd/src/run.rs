//! Drives one crowd from the first pass to the last answer, on one thread. Waiting people are entries of the agenda; a task
//! exists only while its person is talking to the server.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, Method};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::bots::Bots;
use crate::client::Pool;
use crate::http::request;
use crate::notes::{NotesWriter, unix_milliseconds};
use crate::options::{CrowdError, CrowdOptions};
use crate::person::{self, Shopper};
use crate::report::{CrowdReport, Progress, Tally};
use crate::sale::{self, SaleView};
use crate::schedule::{Agenda, Due, Errand};

/// How often the caller hears how far the run is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Connections are opened this long before the arrivals.
const WARM_UP: Duration = Duration::from_millis(400);
/// Connections to the admin listener at most: one checkout, not a crowd.
const ADMIN_CONNECTIONS_MAX: usize = 32;
/// The shoppers' tokens live longer than any run.
const TOKEN_SECONDS: u64 = 2 * 86_400;

/// Everything that the people share. One thread, so plain cells; none is borrowed across an `await`.
pub(crate) struct Crowd {
    pub(crate) options: CrowdOptions,
    pub(crate) bots: Rc<Bots>,
    pub(crate) public: Pool,
    pub(crate) admin: Pool,
    pub(crate) admin_authorization: HeaderValue,
    pub(crate) opens_unix_ms: u64,
    pub(crate) arrivals_from: Instant,
    /// Nobody looks again later than this.
    pub(crate) returns_until: Instant,
    pub(crate) tally: RefCell<Tally>,
    pub(crate) shoppers: RefCell<Vec<Shopper>>,
    pub(crate) view: RefCell<SaleView>,
    pub(crate) random: RefCell<fastrand::Rng>,
    started: (Instant, u64),
    signing_key: EncodingKey,
    notes: RefCell<NotesWriter>,
    notes_error: RefCell<Option<io::Error>>,
    agenda: RefCell<Agenda>,
    active: Cell<u64>,
    stirred: Notify,
}

/// Runs a crowd to its end and reports. Blocks; must not be called from within an asynchronous runtime.
///
/// `progress` is called every half second. The report says what happened on the wire; only what prevents or invalidates the
/// whole run is an error.
pub fn run(options: CrowdOptions, mut progress: impl FnMut(&Progress)) -> Result<CrowdReport, CrowdError> {
    options.validate()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CrowdError::Runtime)?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let crowd = Rc::new(Crowd::gather(options).await?);
        let watcher = tokio::task::spawn_local(sale::watch(Rc::clone(&crowd)));
        crowd.fill_agenda();
        crowd.drive(&mut progress).await;
        watcher.abort();
        // The aborted watcher lets go of the crowd only once it has been joined.
        let _ = watcher.await;
        progress(&crowd.progress());
        Rc::into_inner(crowd).expect("every errand has ended").finish()
    })
}

impl Crowd {
    async fn gather(options: CrowdOptions) -> Result<Self, CrowdError> {
        let view = read_sale(&options).await?;
        if let Some(item) = options.items.iter().find(|item| view.available(item).is_none()) {
            return Err(CrowdError::SaleUnreadable(format!("it has no item {item}")));
        }
        let notes = NotesWriter::create(&options.notes, options.flush_each).map_err(CrowdError::Notes)?;
        let signing_key = EncodingKey::from_secret(&options.token_secret);
        let admin_authorization = HeaderValue::try_from(format!("Bearer {}", options.admin_token))
            .map_err(|_| CrowdError::OptionInvalid("admin_token: cannot stand in a header"))?;
        let started = (Instant::now(), unix_milliseconds());
        let opens_in = Duration::from_millis(view.opens_at.0.saturating_sub(started.1));
        let arrivals_from = started.0 + opens_in.max(options.passes_take());
        let returns_until = arrivals_from + Duration::from_secs(options.seconds + options.linger_seconds);
        let bots = Rc::new(Bots::of(&options));
        let crowd = Self {
            public: Pool::new(&options.public, options.connections),
            admin: Pool::new(&options.admin, ADMIN_CONNECTIONS_MAX),
            admin_authorization,
            opens_unix_ms: view.opens_at.0,
            arrivals_from,
            returns_until,
            tally: RefCell::new(Tally::new(Rc::clone(&bots))),
            bots,
            shoppers: RefCell::new((0..options.accounts()).map(|_| Shopper::default()).collect()),
            view: RefCell::new(view),
            random: RefCell::new(fastrand::Rng::with_seed(!options.seed)),
            started,
            signing_key,
            notes: RefCell::new(notes),
            notes_error: RefCell::new(None),
            agenda: RefCell::default(),
            active: Cell::new(0),
            stirred: Notify::new(),
            options,
        };
        // Signing has no reason to fail later if it works once.
        crowd.sign("shopper-0").map_err(|error| CrowdError::TokenUnsigned(error.to_string()))?;
        Ok(crowd)
    }

    /// Passes are asked for at an even pace; everything else follows from them.
    fn fill_agenda(&self) {
        let apart = Duration::from_secs(1) / self.options.passes_per_second;
        let mut agenda = self.agenda.borrow_mut();
        for shopper in 0..self.options.accounts() {
            agenda.push(Due {
                at: self.started.0 + apart * shopper + self.solves_in(shopper),
                shopper,
                errand: Errand::TakePass,
            });
        }
        agenda.push(Due { at: self.arrivals_from - WARM_UP, shopper: 0, errand: Errand::WarmUp });
    }

    async fn drive(self: &Rc<Self>, progress: &mut impl FnMut(&Progress)) {
        let mut progress_at = Instant::now() + PROGRESS_EVERY;
        loop {
            let now = Instant::now();
            loop {
                let due = self.agenda.borrow_mut().pop_due(now);
                let Some(due) = due else { break };
                self.active.set(self.active.get() + 1);
                let crowd = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    person::run_errand(&crowd, due).await;
                    crowd.active.set(crowd.active.get() - 1);
                    if crowd.active.get() == 0 {
                        crowd.stirred.notify_one();
                    }
                });
            }
            let next_at = self.agenda.borrow().next_at();
            if next_at.is_none() && self.active.get() == 0 {
                return;
            }
            if now >= progress_at {
                progress(&self.progress());
                progress_at = now + PROGRESS_EVERY;
            }
            let wake_at = next_at.map_or(progress_at, |at| at.min(progress_at));
            tokio::select! {
                () = tokio::time::sleep_until(wake_at) => {}
                () = self.stirred.notified() => {}
            }
        }
    }

    fn progress(&self) -> Progress {
        self.tally.borrow().progress(self.options.accounts(), self.started.0.elapsed())
    }

    fn finish(self) -> Result<CrowdReport, CrowdError> {
        let error = self.notes_error.into_inner();
        error.map_or_else(|| self.notes.into_inner().flush(), Err).map_err(CrowdError::Notes)?;
        Ok(self.tally.into_inner().report(self.options.shoppers, self.options.accounts()))
    }

    /// Puts an errand on the agenda and wakes the driver if it is now the earliest.
    pub(crate) fn plan(&self, due: Due) {
        let mut agenda = self.agenda.borrow_mut();
        if agenda.next_at().is_none_or(|next_at| due.at < next_at) {
            self.stirred.notify_one();
        }
        agenda.push(due);
    }

    /// Writes a note. The first error ends up as the run's error, since an audit needs every note.
    pub(crate) fn note<T>(&self, write: impl FnOnce(&mut NotesWriter) -> io::Result<T>) -> Option<T> {
        match write(&mut self.notes.borrow_mut()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.notes_error.borrow_mut().get_or_insert(error);
                None
            }
        }
    }

    /// The moment at which the wall clock shows that time, by the clocks' relation at the start.
    pub(crate) fn moment(&self, unix_ms: u64) -> Instant {
        self.started.0 + Duration::from_millis(unix_ms.saturating_sub(self.started.1))
    }

    /// A random duration in the range, in milliseconds.
    pub(crate) fn milliseconds_between(&self, range: std::ops::RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.random.borrow_mut().u64(range))
    }

    /// The customer's access token as a header. Signing anew gives the same bytes, so nobody has to store it.
    pub(crate) fn authorization(&self, customer: &str) -> HeaderValue {
        let token = self.sign(customer).expect("signing worked at the start");
        HeaderValue::try_from(format!("Bearer {token}")).expect("a token is base64url and dots")
    }

    fn sign(&self, customer: &str) -> Result<String, jsonwebtoken::errors::Error> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iss: &'a str,
            aud: &'a str,
            sub: &'a str,
            iat: u64,
            exp: u64,
        }
        let iat = self.started.1 / 1_000;
        let claims = Claims {
            iss: &self.options.issuer,
            aud: &self.options.audience,
            sub: customer,
            iat,
            exp: iat + TOKEN_SECONDS,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing_key)
    }
}

/// Reads the sale once before anything else; a server that is just starting is given a moment.
async fn read_sale(options: &CrowdOptions) -> Result<SaleView, CrowdError> {
    let path = format!("/v1/sales/{}", options.sale);
    let until = Instant::now() + options.give_up().min(Duration::from_secs(10));
    loop {
        let problem = match request(options.public[0], Method::GET, &path, &[], None, options.reply_time_max()).await {
            Ok(reply) => match SaleView::read(&reply) {
                Ok(view) => return Ok(view),
                Err(complaint) => complaint,
            },
            Err(error) => error.to_string(),
        };
        if Instant::now() >= until {
            return Err(CrowdError::SaleUnreadable(problem));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
