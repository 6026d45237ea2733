//! Who may not ask, and who asks too often: the block list and limits by address, before anything of a request is read, and by customer, once it is certain who asks.
//!
//! Whoever proves a purchase or a pass is let through within two requests a second, whatever others do from the same address. What is static,
//! what providers call, and whether the process is well, is not limited.
//!
//! The gates of a cluster keep each limit together, so judging may have to ask (`crate::asking`): what is judged here is judged again with what was
//! said, and nothing is counted before.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use domain::{ChainTime, Refusal, milliseconds};
use engine::{Engine, News, Shared};
use gate::Pass;
use gate::identity::Identity;
use http::request::Parts;
use http::{HeaderMap, Method};
use limiter::{Backoff, Hasher, Limiter, Prefix, SharedLimiter, Verdict};
use prometheus_client::metrics::counter::Counter;

use crate::address::{Addresses, Client};
use crate::app::App;
use crate::asking::{Heard, Question, Stop, judged};
use crate::identify;
use crate::problem::Problem;
use crate::purchase::{self, Head};

/// What a customer who proves a purchase or a pass has in any case, whatever limit or ceiling there is.
pub(crate) const PROVEN_PER_SECOND: u32 = 2;
pub(crate) const PROVEN_BURST: u32 = 4;

/// A rate, and how much of it may come at once. A rate of 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// Requests.
    pub per_second: u32,
    /// Requests.
    pub burst: u32,
}

/// Who may ask how often.
#[derive(Clone, Debug, Default)]
pub struct LimitOptions {
    /// Who is believed about whom they speak for.
    pub trusted_proxies: Vec<Prefix>,
    /// Whether this machine's own addresses are limited too.
    pub loopback: bool,
    /// For all tables together.
    pub memory_bytes: usize,
    /// Of one address: passes, purchases, status.
    pub address: [Rate; 3],
    /// Of one customer, the same.
    pub customer: [Rate; 3],
    /// How often an address may be refused before it is blocked for a time; a rate of 0 blocks nobody.
    pub hammering: Rate,
    /// How long an automatic block lasts: the first, and the longest.
    pub automatic_block: (Duration, Duration),
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Taking passes, human checks before them, and beginning sessions.
    Passes,
    Purchases,
    /// How things stand, and what is done with them.
    Status,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Passes, Self::Purchases, Self::Status];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::Purchases => "purchases",
            Self::Status => "status",
        }
    }

    /// Of a request of the public listener; `None` for what is not limited.
    fn of(method: &Method, path: &str) -> Option<Self> {
        let path = path.strip_prefix("/v1/").filter(|_| method != Method::OPTIONS)?;
        let mut parts = path.split('/');
        let (what, _, of_it) = (parts.next()?, parts.next(), parts.next());
        match (what, of_it) {
            // Sets of pictures are everybody's, and an edge keeps them. Only a sound is made each time.
            ("sales", Some("challenges")) if parts.next() == Some("static") && !path.ends_with(".wav") => None,
            ("session", _) | ("sales", Some("passes" | "challenges")) => Some(Self::Passes),
            ("sales", Some("items")) => Some(Self::Purchases),
            // Its ticket was counted, and is good once.
            ("purchases", Some("events")) => None,
            ("sales", Some("mine")) | ("purchases" | "orders", _) => Some(Self::Status),
            _ => None,
        }
    }
}

/// What the limits are called where gates keep them together; by what, then by kind.
const NAMES: [[&str; 3]; 2] = [["ap", "au", "as"], ["cp", "cu", "cs"]];

/// What a limit counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Address,
    Customer,
}

impl By {
    pub(crate) const ALL: [Self; 2] = [Self::Address, Self::Customer];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Customer => "customer",
        }
    }
}

/// One limit.
enum Limit {
    /// Of a process that is alone.
    Own(Limiter),
    /// Of all gates of a cluster together.
    Shared(SharedLimiter, Arc<Shared>),
}

impl Limit {
    fn new(bytes: usize, rate: Rate, shared: Option<&Arc<Shared>>) -> Self {
        match shared {
            None => Self::Own(Limiter::new(bytes, rate.per_second, rate.burst)),
            Some(shared) => Self::Shared(SharedLimiter::new(bytes, rate.per_second, rate.burst), Arc::clone(shared)),
        }
    }

    fn check(&self, hash: u64, now: u64) -> Verdict {
        match self {
            Self::Own(limiter) => limiter.check(hash, now).map_or_else(Verdict::Refused, |()| Verdict::Admitted),
            Self::Shared(limiter, shared) => {
                let gates = shared.gates(hash);
                if !gates.can_ask {
                    shared.judged_without();
                }
                limiter.check(hash, now, gates)
            }
        }
    }

    /// The same for a request that is refused anyway, where gates would have to be asked about it.
    fn check_idle(&self, hash: u64, now: u64, is_idle: impl FnOnce() -> bool) -> Option<Result<(), u64>> {
        match self {
            Self::Shared(limiter, _) if is_idle() => Some(limiter.check_idle(hash, now)),
            Self::Own(_) | Self::Shared(..) => None,
        }
    }

    fn in_use(&self, now: u64) -> usize {
        match self {
            Self::Own(limiter) => limiter.in_use(now),
            Self::Shared(limiter, _) => limiter.in_use(now),
        }
    }
}

/// All limits of a process.
pub(crate) struct Limits {
    pub(crate) addresses: Addresses,
    loopback: bool,
    /// By what, then by kind.
    limits: [[Option<Limit>; 3]; 2],
    shared: Option<Arc<Shared>>,
    proven: Limiter,
    /// Of an address's refusals.
    refusals: Option<Limiter>,
    automatic: Backoff,
    refused: [[Counter; 3]; 2],
    automatic_blocks: Counter,
}

impl Limits {
    /// Counts what is refused, by what and by kind, and the automatic blocks. Gates that share something have hashers alike.
    pub(crate) fn new(
        options: LimitOptions,
        (hasher, shared): (Hasher, Option<Arc<Shared>>),
        refused: [[Counter; 3]; 2],
        automatic_blocks: Counter,
    ) -> Self {
        let rates = [options.address, options.customer];
        // A few of all places suffice for those who are refused, or prove something: they have to be in one of the other tables first.
        let eighth = options.memory_bytes / 8;
        let tables = rates.iter().flatten().filter(|rate| rate.per_second > 0).count().max(1);
        let of_each = (options.memory_bytes - 2 * eighth) / tables;
        let limit = |rate: Rate| (rate.per_second > 0).then(|| Limit::new(of_each, rate, shared.as_ref()));
        let hammering = options.hammering;
        let refusals = || Limiter::new(eighth / 2, hammering.per_second, hammering.burst);
        let (first, max) = options.automatic_block;
        Self {
            addresses: Addresses::new(options.trusted_proxies, hasher),
            loopback: options.loopback,
            limits: rates.map(|of| of.map(limit)),
            proven: Limiter::new(eighth, PROVEN_PER_SECOND, PROVEN_BURST),
            refusals: (hammering.per_second > 0).then(refusals),
            automatic: Backoff::new(eighth / 8, milliseconds(first), milliseconds(max)),
            refused,
            automatic_blocks,
            shared,
        }
    }

    /// Judges by address, which is on the block list until `listed`, if it is. `prove` says which customer's purchase or pass a request carries, and is asked only if it would be refused.
    fn of_address(
        &self,
        client: &Client,
        listed: Option<u64>,
        kind: Kind,
        (now, heard): (u64, &Heard),
        prove: impl FnOnce() -> Option<[u8; 16]>,
    ) -> Result<(), Stop> {
        if let Some(end) = listed {
            // Whatever an operator says of an address: somebody at it may have an order.
            let owner = if kind == Kind::Purchases { None } else { prove() };
            let Some(owner) = owner else { return Err(blocked(end, now).into()) };
            let looked = self.proven.check(self.addresses.hash(&owner), now);
            return looked.map_err(|wait| self.refuse(By::Address, kind, now, wait).into());
        }
        if client.is_loopback && !self.loopback {
            return Ok(());
        }
        let automatic = if kind == Kind::Status { None } else { self.automatic.rest(client.hash, now) };
        let wait = match automatic {
            Some(_) => automatic,
            None => self.check((By::Address, kind), client.hash, now, heard)?,
        };
        let Some(wait) = wait else { return Ok(()) };
        if self.is_proven(prove(), now) {
            return Ok(());
        }
        let is_hammering = self.refusals.as_ref().is_some_and(|refusals| refusals.check(client.hash, now).is_err());
        let block = if is_hammering { self.automatic.block(client.hash, now) } else { None };
        if let Some(milliseconds) = block {
            self.automatic_blocks.inc();
            if let Some(shared) = &self.shared {
                shared.tell_news(News::AddressBlocked { hash: client.hash, milliseconds });
            }
        }
        let wait = if kind == Kind::Status { wait } else { wait.max(block.unwrap_or(0)) };
        Err(self.refuse(By::Address, kind, now, wait).into())
    }

    /// For how many milliseconds a limit refuses the key with that hash, if it does.
    fn check(&self, (by, kind): (By, Kind), hash: u64, now: u64, heard: &Heard) -> Result<Option<u64>, Stop> {
        let Some(limit) = self.limit(by, kind) else { return Ok(None) };
        if let Some(outcome) = heard.of(by) {
            return Ok(outcome.err());
        }
        match limit.check(hash, now) {
            Verdict::Admitted => Ok(None),
            Verdict::Refused(wait) => Ok(Some(wait)),
            Verdict::Ask(asked) => Err(Stop::Ask(Question { by, kind, hash, asked })),
        }
    }

    /// Asks for all gates together; where that brings nothing, this gate's part of the limit counts. `now` is when the answer is there.
    pub(crate) async fn ask(&self, question: Question, now: impl Fn() -> u64) -> Result<(), u64> {
        let Question { by, kind, hash, asked } = question;
        let Some(Limit::Shared(limiter, shared)) = self.limit(by, kind) else { return Ok(()) };
        let lot = shared.take(NAMES[by as usize][kind as usize], hash, asked).await;
        let gates = shared.gates(hash);
        match lot {
            Some(lot) => limiter.heard(hash, now(), gates, lot),
            None => limiter.alone(hash, now(), gates),
        }
    }

    /// Takes a block that another gate has made.
    pub(crate) fn adopt(&self, hash: u64, now: u64, milliseconds: u64) {
        self.automatic.adopt(hash, now, milliseconds);
    }

    /// Whether whoever proves something has not done so more often than everybody may.
    fn is_proven(&self, customer: Option<[u8; 16]>, now: u64) -> bool {
        customer.is_some_and(|customer| self.proven.check(self.addresses.hash(&customer), now).is_ok())
    }

    /// Judges by customer, who is certain. `key` tells customers apart.
    pub(crate) fn of_customer(&self, kind: Kind, key: &[u8; 16], now: u64, heard: &Heard) -> Result<(), Stop> {
        let wait = self.check((By::Customer, kind), self.addresses.hash(key), now, heard)?;
        wait.map_or(Ok(()), |wait| Err(self.refuse(By::Customer, kind, now, wait).into()))
    }

    /// Judges by customer whoever buys. A crowd that asks for what is gone, or before its time, is no matter for Redis, which decides the
    /// sales: `is_idle` says whether the purchase is refused anyway, and is asked only where it matters.
    fn of_buyer(
        &self,
        key: &[u8; 16],
        (now, heard): (u64, &Heard),
        is_idle: impl FnOnce() -> bool,
    ) -> Result<(), Stop> {
        let (by, kind) = (By::Customer, Kind::Purchases);
        let hash = self.addresses.hash(key);
        let limit = self.limit(by, kind).filter(|_| heard.of(by).is_none());
        let wait = match limit.and_then(|limit| limit.check_idle(hash, now, is_idle)) {
            Some(judged) => judged.err(),
            None => self.check((by, kind), hash, now, heard)?,
        };
        wait.map_or(Ok(()), |wait| Err(self.refuse(by, kind, now, wait).into()))
    }

    fn limit(&self, by: By, kind: Kind) -> Option<&Limit> {
        self.limits[by as usize][kind as usize].as_ref()
    }

    fn refuse(&self, by: By, kind: Kind, now: u64, wait: u64) -> Problem {
        self.refused[by as usize][kind as usize].inc();
        Problem {
            retry_at: Some(ChainTime(now.saturating_add(wait))),
            retry_after_seconds: Some(wait.div_ceil(1_000)),
            ..Refusal::RateLimited.into()
        }
    }

    /// Addresses or customers that a limit counts now. Looks at the whole table.
    pub(crate) fn in_use(&self, by: By, kind: Kind, now: u64) -> usize {
        self.limit(by, kind).map_or(0, |limit| limit.in_use(now))
    }

    /// Addresses that are blocked now because they went on. Looks at the whole table.
    pub(crate) fn automatic_in_force(&self, now: u64) -> usize {
        self.automatic.in_force(now)
    }
}

/// Judges a request of the public listener by its address.
pub(crate) async fn judge(app: &App, client: &Client, parts: &Parts) -> Result<(), Problem> {
    let path = parts.uri.path();
    let Some(kind) = Kind::of(&parts.method, path) else { return Ok(()) };
    if let (Kind::Purchases, Some((sale, _))) = (kind, purchase::target(path)) {
        let head = Head::of(&parts.headers);
        return judged(app, |heard| of_purchase(app, client, sale, &head, heard)).await;
    }
    judged(app, |heard| {
        let now = app.engine.now();
        let listed = app.engine.address_block(client.address, now);
        app.limits.of_address(client, listed, kind, (now, heard), || owner_of(&app.engine, path, &parts.headers))
    })
    .await
}

/// The same for a purchase, whose sale is named.
pub(crate) fn of_purchase(app: &App, client: &Client, sale: &str, head: &Head<'_>, heard: &Heard) -> Result<(), Stop> {
    let now = app.engine.now();
    let listed = app.engine.address_block(client.address, now);
    app.limits.of_address(client, listed, Kind::Purchases, (now, heard), || {
        let sale = app.engine.sale(sale)?;
        identify::pass(&app.engine, &sale, head, now).ok().map(|open| open.pass.customer.0)
    })
}

/// What somebody hears who is on the block list until then.
fn blocked(end: u64, now: u64) -> Problem {
    let until = (end != u64::MAX).then_some(end);
    Problem {
        retry_at: until.map(ChainTime),
        retry_after_seconds: until.map(|end| end.saturating_sub(now).div_ceil(1_000)),
        ..Refusal::Blocked.into()
    }
}

/// Judges the customer of a purchase, whose pass and token are good; `is_idle` says whether it is refused anyway.
pub(crate) fn of_buyer(
    app: &App,
    head: &Head<'_>,
    pass: &Pass,
    (now, heard): (u64, &Heard),
    is_idle: impl FnOnce() -> bool,
) -> Result<(), Stop> {
    // A pass does not say who it is over all sales; the token does, and is read while any customer is blocked.
    let who = || Ok(known_as(&app.engine, &app.engine.identities.verify(identify::token_in(head)?, now)?));
    if let Some(end) = app.engine.customer_block::<Refusal>(Some(&pass.identity_hash), who, now)? {
        return Err(blocked(end, now).into());
    }
    app.limits.of_buyer(&pass.customer.0, (now, heard), is_idle)
}

/// Judges whoever wants a pass by the block list.
pub(crate) fn of_passenger(app: &App, identity: &Identity) -> Result<(), Problem> {
    let now = app.engine.now();
    let Ok(block) = app.engine.customer_block(None, || Ok::<_, Infallible>(known_as(&app.engine, identity)), now);
    block.map_or(Ok(()), |end| Err(blocked(end, now)))
}

/// The customer by access token, who has not asked too often.
pub(crate) async fn identity(app: &App, headers: &HeaderMap, kind: Kind) -> Result<Identity, Problem> {
    let identity = identify::identity(&app.engine, headers)?;
    let key = known_as(&app.engine, &identity);
    judged(app, |heard| app.limits.of_customer(kind, &key, app.engine.now(), heard)).await?;
    Ok(identity)
}

/// Tells customers apart over all sales.
pub(crate) fn known_as(engine: &Engine, identity: &Identity) -> [u8; 16] {
    engine.customer_hash(&identity.issuer, &identity.subject)
}

/// Whoever asks about what is theirs, or begins the session in which they can, if there may be such a thing and the token is good.
fn owner_of(engine: &Engine, path: &str, headers: &HeaderMap) -> Option<[u8; 16]> {
    let mut parts = path.strip_prefix("/v1/")?.split('/');
    let may_be_theirs = match (parts.next()?, parts.next(), parts.next()) {
        ("orders", Some(id), _) => engine.ids.parse_order(id).is_some(),
        ("purchases", Some(id), _) => engine.ids.parse_purchase(id).is_some(),
        ("orders" | "session", None, _) | ("sales", Some(_), Some("mine")) => true,
        _ => false,
    };
    let identity = identify::identity(engine, headers).ok().filter(|_| may_be_theirs)?;
    Some(known_as(engine, &identity))
}

#[cfg(test)]
mod tests;
