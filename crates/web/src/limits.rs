//! Who may not ask, and who asks too often: the block list and limits by address, before anything of a request is read, and by customer, once it is certain who asks.
//!
//! Whoever proves a purchase or a pass is let through within two requests a second, whatever others do from the same address. What is static,
//! what providers call, and whether the process is well, is not limited.

use std::convert::Infallible;
use std::time::Duration;

use domain::{ChainTime, Pseudonym, Refusal};
use engine::Engine;
use gate::identity::Identity;
use http::request::Parts;
use http::{HeaderMap, Method};
use limiter::{Backoff, Limiter, Prefix};
use prometheus_client::metrics::counter::Counter;

use crate::address::{Addresses, Client};
use crate::app::App;
use crate::identify;
use crate::problem::Problem;
use crate::purchase::{self, Head};

/// What a customer who proves a purchase or a pass has in any case.
const PROVEN_PER_SECOND: u32 = 2;
const PROVEN_BURST: u32 = 4;

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

/// All limits of a process.
pub(crate) struct Limits {
    pub(crate) addresses: Addresses,
    loopback: bool,
    /// By what, then by kind.
    limiters: [[Option<Limiter>; 3]; 2],
    proven: Limiter,
    /// Of an address's refusals.
    refusals: Option<Limiter>,
    automatic: Backoff,
    refused: [[Counter; 3]; 2],
    automatic_blocks: Counter,
}

impl Limits {
    /// Counts what is refused, by what and by kind, and the automatic blocks.
    pub(crate) fn new(options: LimitOptions, refused: [[Counter; 3]; 2], automatic_blocks: Counter) -> Self {
        let rates = [options.address, options.customer];
        // A few of all places suffice for those who are refused, or prove something: they have to be in one of the other tables first.
        let eighth = options.memory_bytes / 8;
        let tables = rates.iter().flatten().filter(|rate| rate.per_second > 0).count().max(1);
        let limiter =
            |rate: Rate, bytes: usize| (rate.per_second > 0).then(|| Limiter::new(bytes, rate.per_second, rate.burst));
        let (first, max) = options.automatic_block;
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            addresses: Addresses::new(options.trusted_proxies),
            loopback: options.loopback,
            limiters: rates.map(|of| of.map(|rate| limiter(rate, (options.memory_bytes - 2 * eighth) / tables))),
            proven: Limiter::new(eighth, PROVEN_PER_SECOND, PROVEN_BURST),
            refusals: limiter(options.hammering, eighth / 2),
            automatic: Backoff::new(eighth / 8, milliseconds(first), milliseconds(max)),
            refused,
            automatic_blocks,
        }
    }

    /// Judges by address, which is on the block list until `listed`, if it is. `prove` says which customer's purchase or pass a request carries, and is asked only if it would be refused.
    fn of_address(
        &self,
        client: &Client,
        listed: Option<u64>,
        kind: Kind,
        now: u64,
        prove: impl FnOnce() -> Option<[u8; 16]>,
    ) -> Result<(), Problem> {
        if let Some(end) = listed {
            // Whatever an operator says of an address: somebody at it may have an order.
            return if kind == Kind::Status && self.is_proven(prove(), now) { Ok(()) } else { Err(blocked(end, now)) };
        }
        if client.is_loopback && !self.loopback {
            return Ok(());
        }
        let automatic = if kind == Kind::Status { None } else { self.automatic.rest(client.hash, now) };
        let limited = || self.limiter(By::Address, kind)?.check(client.hash, now).err();
        let Some(wait) = automatic.or_else(limited) else { return Ok(()) };
        if self.is_proven(prove(), now) {
            return Ok(());
        }
        let is_hammering = self.refusals.as_ref().is_some_and(|refusals| refusals.check(client.hash, now).is_err());
        let block = if is_hammering { self.automatic.block(client.hash, now) } else { None };
        if block.is_some() {
            self.automatic_blocks.inc();
        }
        let wait = if kind == Kind::Status { wait } else { wait.max(block.unwrap_or(0)) };
        Err(self.refuse(By::Address, kind, now, wait))
    }

    /// Whether whoever proves something has not done so more often than everybody may.
    fn is_proven(&self, customer: Option<[u8; 16]>, now: u64) -> bool {
        customer.is_some_and(|customer| self.proven.check(self.addresses.hash(&customer), now).is_ok())
    }

    /// Judges by customer, who is certain. `key` tells customers apart.
    pub(crate) fn of_customer(&self, kind: Kind, key: &[u8; 16], now: u64) -> Result<(), Problem> {
        let Some(limiter) = self.limiter(By::Customer, kind) else { return Ok(()) };
        limiter.check(self.addresses.hash(key), now).map_err(|wait| self.refuse(By::Customer, kind, now, wait))
    }

    fn limiter(&self, by: By, kind: Kind) -> Option<&Limiter> {
        self.limiters[by as usize][kind as usize].as_ref()
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
        self.limiter(by, kind).map_or(0, |limiter| limiter.in_use(now))
    }

    /// Addresses that are blocked now because they went on. Looks at the whole table.
    pub(crate) fn automatic_in_force(&self, now: u64) -> usize {
        self.automatic.in_force(now)
    }
}

/// Judges a request of the public listener by its address.
pub(crate) fn judge(app: &App, client: &Client, parts: &Parts) -> Result<(), Problem> {
    let path = parts.uri.path();
    let Some(kind) = Kind::of(&parts.method, path) else { return Ok(()) };
    if let (Kind::Purchases, Some((sale, _))) = (kind, purchase::target(path)) {
        return of_purchase(app, client, sale, &Head::of(&parts.headers));
    }
    let now = app.engine.now();
    let listed = app.engine.address_block(client.address, now);
    app.limits.of_address(client, listed, kind, now, || owner_of(&app.engine, path, &parts.headers))
}

/// The same for a purchase, whose sale is named.
pub(crate) fn of_purchase(app: &App, client: &Client, sale: &str, head: &Head<'_>) -> Result<(), Problem> {
    let now = app.engine.now();
    let listed = app.engine.address_block(client.address, now);
    app.limits.of_address(client, listed, Kind::Purchases, now, || {
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

/// Judges the customer of a purchase, whose pass and token are good.
pub(crate) fn of_buyer(app: &App, head: &Head<'_>, customer: Pseudonym, now: u64) -> Result<(), Problem> {
    // A pass does not say who it is over all sales; the token does, and is read while any customer is blocked.
    let who = || Ok(known_as(&app.engine, &app.engine.identities.verify(identify::token_in(head)?, now)?));
    if let Some(end) = app.engine.customer_block::<Refusal>(who, now)? {
        return Err(blocked(end, now));
    }
    app.limits.of_customer(Kind::Purchases, &customer.0, now)
}

/// Judges whoever wants a pass by the block list.
pub(crate) fn of_passenger(app: &App, identity: &Identity) -> Result<(), Problem> {
    let now = app.engine.now();
    let Ok(block) = app.engine.customer_block(|| Ok::<_, Infallible>(known_as(&app.engine, identity)), now);
    block.map_or(Ok(()), |end| Err(blocked(end, now)))
}

/// The customer by access token, who has not asked too often.
pub(crate) fn identity(app: &App, headers: &HeaderMap, kind: Kind) -> Result<Identity, Problem> {
    let identity = identify::identity(&app.engine, headers)?;
    app.limits.of_customer(kind, &known_as(&app.engine, &identity), app.engine.now())?;
    Ok(identity)
}

/// Tells customers apart over all sales.
pub(crate) fn known_as(engine: &Engine, identity: &Identity) -> [u8; 16] {
    engine.customer_hash(&identity.issuer, &identity.subject)
}

/// Whoever asks about an order or a purchase, if there may be such a one, and the token is good.
fn owner_of(engine: &Engine, path: &str, headers: &HeaderMap) -> Option<[u8; 16]> {
    let mut parts = path.strip_prefix("/v1/")?.split('/');
    let made_by_us = match (parts.next()?, parts.next()?) {
        ("orders", id) => engine.ids.parse_order(id).is_some(),
        ("purchases", id) => engine.ids.parse_purchase(id).is_some(),
        _ => false,
    };
    let identity = identify::identity(engine, headers).ok().filter(|_| made_by_us)?;
    Some(known_as(engine, &identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_is_counted_as_its_kind_and_what_is_for_all_is_not() {
        let table = [
            ("POST", "/v1/sales/drop/passes", Some(Kind::Passes)),
            ("POST", "/v1/session", Some(Kind::Passes)),
            ("POST", "/v1/sales/drop/challenges", Some(Kind::Passes)),
            ("GET", "/v1/sales/drop/challenges/hc_1/audio", Some(Kind::Passes)),
            ("GET", "/v1/sales/drop/challenges/static/1", None),
            ("GET", "/v1/sales/drop/challenges/static/1/2.png", None),
            ("GET", "/v1/sales/drop/challenges/static/1/2.wav", Some(Kind::Passes)),
            ("POST", "/v1/sales/drop/items/boot/purchases", Some(Kind::Purchases)),
            ("GET", "/v1/sales/drop/mine", Some(Kind::Status)),
            ("GET", "/v1/orders", Some(Kind::Status)),
            ("GET", "/v1/orders/or_1", Some(Kind::Status)),
            ("POST", "/v1/orders/or_1/payments", Some(Kind::Status)),
            ("POST", "/v1/orders/or_1/cancel", Some(Kind::Status)),
            ("GET", "/v1/purchases/pu_1", Some(Kind::Status)),
            ("POST", "/v1/purchases/pu_1/stream-tickets", Some(Kind::Status)),
            ("GET", "/v1/purchases/pu_1/events", None),
            ("OPTIONS", "/v1/orders", None),
            ("GET", "/v1/time", None),
            ("GET", "/v1/sales", None),
            ("GET", "/v1/sales/drop", None),
            ("GET", "/v1/sales/drop/heads", None),
            ("POST", "/v1/payments/callbacks/stripe", None),
            ("GET", "/healthz", None),
            ("GET", "/readyz", None),
            ("GET", "/sales/drop", None),
            ("GET", "/assets/page.js", None),
            ("GET", "/", None),
        ];
        for (method, path, kind) in table {
            assert_eq!(Kind::of(&method.parse().unwrap(), path), kind, "{method} {path}");
        }
    }

    fn limits_of(options: LimitOptions) -> Limits {
        Limits::new(options, Default::default(), Counter::default())
    }

    fn limits() -> Limits {
        let rate = |per_second, burst| Rate { per_second, burst };
        limits_of(LimitOptions {
            memory_bytes: 1 << 20,
            address: [rate(10, 5); 3],
            customer: [rate(1, 2), rate(1, 2), Rate::default()],
            hammering: rate(1, 10),
            automatic_block: (Duration::from_secs(10), Duration::from_secs(40)),
            ..LimitOptions::default()
        })
    }

    fn client(limits: &Limits, address: &str) -> Client {
        let peer = limits.addresses.peer(std::net::SocketAddr::new(address.parse().unwrap(), 1));
        limits.addresses.behind(&peer, std::iter::empty())
    }

    #[test]
    fn whoever_hammers_is_blocked_for_longer_each_time_and_whoever_proves_something_is_not() {
        let limits = limits();
        let (abuser, other) = (client(&limits, "203.0.113.7"), client(&limits, "203.0.113.8"));
        let mut now = 1_790_000_000_000;
        let ask = |kind, now| limits.of_address(&abuser, None, kind, now, || None).map_err(|problem| problem.retry_at);
        for seconds in [10, 20, 40, 40] {
            let mut told = Vec::new();
            for _ in 0..50 {
                told.extend(ask(Kind::Purchases, now).err());
            }
            assert_eq!(told.last(), Some(&Some(ChainTime(now + seconds * 1_000))));
            assert!(ask(Kind::Passes, now).is_err());
            assert!(limits.of_address(&other, None, Kind::Passes, now, || None).is_ok());
            let proven = |now| limits.of_address(&abuser, None, Kind::Purchases, now, || Some([1; 16])).is_ok();
            assert_eq!((0..20).filter(|_| proven(now)).count(), 4);
            assert!(proven(now + 500) && !proven(now + 500));
            now += seconds * 1_000;
            assert!(ask(Kind::Purchases, now).is_ok(), "a block ends");
        }
        assert_eq!(limits.automatic_blocks.get(), 4);
        assert_eq!(limits.automatic_in_force(now - 1), 1);
    }

    #[test]
    fn each_kind_is_counted_by_itself_and_a_rate_of_zero_is_none() {
        let limits = limits();
        for kind in [Kind::Passes, Kind::Purchases] {
            let told: Vec<_> = (0..3).map(|_| limits.of_customer(kind, &[7; 16], 5)).collect();
            assert!(told[0].is_ok() && told[1].is_ok());
            let refused = told[2].as_ref().unwrap_err();
            assert_eq!((refused.retry_at, refused.retry_after_seconds), (Some(ChainTime(1_005)), Some(1)));
            assert!(limits.of_customer(kind, &[8; 16], 5).is_ok());
        }
        assert!((0..1_000).all(|_| limits.of_customer(Kind::Status, &[7; 16], 5).is_ok()));
        let none = limits_of(LimitOptions::default());
        let anybody = client(&none, "203.0.113.7");
        assert!((0..1_000).all(|_| none.of_address(&anybody, None, Kind::Passes, 5, || None).is_ok()));
    }

    #[test]
    fn this_machine_is_limited_only_where_it_is_wanted() {
        let mut limits = limits();
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let local = client(&limits, address);
            assert!((0..100).all(|_| limits.of_address(&local, None, Kind::Status, 5, || None).is_ok()), "{address}");
        }
        limits.loopback = true;
        let local = client(&limits, "127.0.0.1");
        assert_eq!((0..100).filter(|_| limits.of_address(&local, None, Kind::Status, 5, || None).is_ok()).count(), 5);
    }

    #[test]
    fn an_address_on_the_block_list_is_told_until_when_and_shows_own_orders_only() {
        let limits = limits();
        let local = client(&limits, "127.0.0.1");
        let ask = |kind, end, owner: Option<[u8; 16]>| limits.of_address(&local, Some(end), kind, 5_000, || owner);
        let refused = ask(Kind::Status, 7_500, None).unwrap_err();
        assert_eq!(refused.refusal, Refusal::Blocked);
        assert_eq!((refused.retry_at, refused.retry_after_seconds), (Some(ChainTime(7_500)), Some(3)));
        let refused = ask(Kind::Passes, u64::MAX, None).unwrap_err();
        assert_eq!((refused.retry_at, refused.retry_after_seconds), (None, None));
        assert!(ask(Kind::Purchases, u64::MAX, Some([1; 16])).is_err(), "a pass is not an order");
        assert_eq!((0..10).filter(|_| ask(Kind::Status, u64::MAX, Some([1; 16])).is_ok()).count(), 4);
    }
}
