//! Limits of one process, and what counts as what.

use super::*;

#[test]
fn each_route_is_counted_as_its_kind_and_what_is_for_all_is_not() {
    let table = [
        ("POST", "/v1/sales/drop/passes", Some(Kind::Passes)),
        ("POST", "/v1/session", Some(Kind::Passes)),
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
    Limits::new(options, (Hasher::new(&[7; 16]), None), Default::default(), Counter::default())
}

fn judge(
    limits: &Limits,
    client: &Client,
    listed: Option<u64>,
    kind: Kind,
    now: u64,
    owner: Option<[u8; 16]>,
) -> Result<(), Problem> {
    refusal(limits.of_address(client, listed, kind, (now, &Heard::default()), || owner))
}

fn refusal(outcome: Result<(), Stop>) -> Result<(), Problem> {
    outcome.map_err(|stop| match stop {
        Stop::Refused(problem) => problem,
        Stop::Ask(_) => panic!("a process that is alone has nobody to ask"),
    })
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
    let ask = |kind, now| judge(&limits, &abuser, None, kind, now, None).map_err(|problem| problem.retry_at);
    for seconds in [10, 20, 40, 40] {
        let mut told = Vec::new();
        for _ in 0..50 {
            told.extend(ask(Kind::Purchases, now).err());
        }
        assert_eq!(told.last(), Some(&Some(ChainTime(now + seconds * 1_000))));
        assert!(ask(Kind::Passes, now).is_err());
        assert!(judge(&limits, &other, None, Kind::Passes, now, None).is_ok());
        let proven = |now| judge(&limits, &abuser, None, Kind::Purchases, now, Some([1; 16])).is_ok();
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
        let ask = |kind, key| refusal(limits.of_customer(kind, &[key; 16], 5, &Heard::default()));
        let told: Vec<_> = (0..3).map(|_| ask(kind, 7)).collect();
        assert!(told[0].is_ok() && told[1].is_ok());
        let refused = told[2].as_ref().unwrap_err();
        assert_eq!((refused.retry_at, refused.retry_after_seconds), (Some(ChainTime(1_005)), Some(1)));
        assert!(ask(kind, 8).is_ok());
    }
    assert!((0..1_000).all(|_| limits.of_customer(Kind::Status, &[7; 16], 5, &Heard::default()).is_ok()));
    let none = limits_of(LimitOptions::default());
    let anybody = client(&none, "203.0.113.7");
    assert!((0..1_000).all(|_| judge(&none, &anybody, None, Kind::Passes, 5, None).is_ok()));
}

#[test]
fn this_machine_is_limited_only_where_it_is_wanted() {
    let mut limits = limits();
    for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        let local = client(&limits, address);
        assert!((0..100).all(|_| judge(&limits, &local, None, Kind::Status, 5, None).is_ok()), "{address}");
    }
    limits.loopback = true;
    let local = client(&limits, "127.0.0.1");
    assert_eq!((0..100).filter(|_| judge(&limits, &local, None, Kind::Status, 5, None).is_ok()).count(), 5);
}

#[test]
fn an_address_on_the_block_list_is_told_until_when_and_shows_own_orders_only() {
    let limits = limits();
    let local = client(&limits, "127.0.0.1");
    let ask = |kind, end, owner| judge(&limits, &local, Some(end), kind, 5_000, owner);
    let refused = ask(Kind::Status, 7_500, None).unwrap_err();
    assert_eq!(refused.refusal, Refusal::Blocked);
    assert_eq!((refused.retry_at, refused.retry_after_seconds), (Some(ChainTime(7_500)), Some(3)));
    let refused = ask(Kind::Passes, u64::MAX, None).unwrap_err();
    assert_eq!((refused.retry_at, refused.retry_after_seconds), (None, None));
    assert!(ask(Kind::Purchases, u64::MAX, Some([1; 16])).is_err(), "a pass is not an order");
    assert_eq!((0..10).filter(|_| ask(Kind::Status, u64::MAX, Some([1; 16])).is_ok()).count(), 4);
}
