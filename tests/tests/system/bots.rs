//! Bots of each kind against the real server, and what stops each: they come with a few people, over the public interface, and every answer
//! that they get is judged as a person's is.

use crowd::fairness::Fairness;
use crowd::{BotKind, BotOptions, CrowdOptions, CrowdReport};
use domain::{ChainTime, SaleDefinition};
use system_tests::{AUDIENCE, ISSUER, SECRET, Server, audit_is_clean, now_milliseconds, open_sale};

const PEOPLE: u32 = 4;
const BOTS: u32 = 6;
/// So small that a bot that clicks ten times a second reaches it, and a person does not.
const TIGHT_BY_CUSTOMER: [&str; 2] = ["limits.customer_purchases_per_second=1", "limits.customer_purchases_burst=3"];
const TIGHT_BY_ADDRESS: [&str; 2] = ["limits.address_purchases_per_second=1", "limits.address_purchases_burst=1"];

struct Run {
    server: Server,
    crowd: CrowdReport,
    fairness: Fairness,
}

/// A crowd with bots of one kind, who run `BOTS` accounts each if they run many. Nothing that they got broke a promise, by what they noticed
/// and by the audit.
fn run(kind: BotKind, settings: &[&str], define: impl FnOnce(&mut SaleDefinition)) -> Run {
    let proxy = ["public.trusted_proxies=127.0.0.1", "limits.hammering_per_second=0"];
    let server = Server::start_with(&[&proxy, settings].concat());
    let mut definition = open_sale("drop", 100);
    definition.opens_at = ChainTime(now_milliseconds() + 1_500);
    // Long against a click, so that somebody's slot is late enough to reach a limit before it.
    definition.spread_milliseconds = 3_000;
    (definition.limit_per_customer, definition.items[0].limit_per_customer) = (1, 1);
    define(&mut definition);
    server.create(&definition);
    let notes = server.data().join("notes-of-the-crowd.jsonl");
    let options = CrowdOptions {
        public: vec![server.public()],
        admin: vec![server.admin()],
        admin_token: server.admin_token(),
        sale: "drop".to_owned(),
        items: vec!["boot".to_owned()],
        shoppers: PEOPLE,
        seconds: 3,
        linger_seconds: 0,
        notes: notes.clone(),
        token_secret: SECRET.into(),
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        decide_milliseconds_max: 100,
        bots: Some(BotOptions {
            kinds: vec![kind],
            accounts: BOTS,
            accounts_per_operator: BOTS,
            addresses_per_operator: 200,
            solving: None,
        }),
        ..CrowdOptions::default()
    };
    let crowd = crowd::run(options, |_| ()).expect("the crowd comes");
    assert_eq!((crowd.protocol_errors, crowd.unanswered), (0, 0), "{crowd:?}");
    audit_is_clean(server.data(), Some(&notes));
    let fairness = crowd.fairness.clone().expect("there were bots");
    assert_eq!(fairness.bots.accounts, u64::from(BOTS));
    Run { server, crowd, fairness }
}

impl Run {
    fn bots_heard(&self, code: &str) -> u64 {
        self.fairness.bots.refusals.get(code).copied().unwrap_or(0)
    }

    /// Purchases that were refused by a limit.
    fn limited(&self, by: &str) -> u64 {
        self.server.gauge(&format!("doorbuster_limited_total{{by=\"{by}\",kind=\"purchases\"}}"))
    }
}

#[test]
fn a_fast_clicker_waits_for_its_slot_and_is_limited_as_a_customer() {
    let run = run(BotKind::FastClicker, &TIGHT_BY_CUSTOMER, |_| ());
    assert!(run.bots_heard("before_slot") > 0 && run.bots_heard("rate_limited") > 0, "{:?}", run.fairness);
    assert!(run.fairness.bots.granted() <= u64::from(BOTS), "one unit for one account: {:?}", run.fairness);
    assert_eq!(run.fairness.people.refusals.get("rate_limited"), None, "{:?}", run.fairness);
}

#[test]
fn many_accounts_take_passes_at_the_rate_of_their_one_address_and_a_unit_each_at_most() {
    let tight = ["limits.address_passes_per_second=8", "limits.address_passes_burst=2"];
    let run = run(BotKind::ManyAccounts, &tight, |_| ());
    assert!(run.crowd.pass_refusals["rate_limited"] > 0, "{:?}", run.crowd);
    assert_eq!(run.fairness.people.without_pass, 0, "people have addresses of their own: {:?}", run.fairness);
    assert_eq!(run.fairness.largest[0].accounts, u64::from(BOTS));
    assert!(run.fairness.largest[0].units <= u64::from(BOTS), "{:?}", run.fairness);
}

#[test]
fn many_addresses_are_one_customer() {
    let run = run(BotKind::ManyAddresses, &[TIGHT_BY_CUSTOMER, TIGHT_BY_ADDRESS].concat(), |_| ());
    assert!(run.bots_heard("rate_limited") > 0, "{:?}", run.fairness);
    assert_eq!(run.limited("address"), 0, "no address asked often");
    assert_eq!(run.limited("customer"), run.bots_heard("rate_limited"));
}

#[test]
fn a_replayer_gets_the_same_purchase_and_no_other() {
    let run = run(BotKind::Replayer, &[], |_| ());
    let bots = u64::from(BOTS);
    assert_eq!(run.fairness.bots.granted(), bots, "{:?}", run.fairness);
    for code in ["pass_foreign", "key_reused", "limit_item_reached"] {
        assert_eq!(run.bots_heard(code), bots, "{code}: {:?}", run.fairness);
    }
    // The won request, five times more, and those three.
    assert!(run.fairness.bots.requests >= bots * 9, "{:?}", run.fairness);
}

#[test]
fn an_early_bird_gets_nothing_before_the_opening_nor_before_its_slot() {
    // A busy machine may be late; before the opening there has to be time.
    let run = run(BotKind::EarlyBird, &[], |definition| definition.opens_at = definition.opens_at.plus(1_000));
    assert!(run.bots_heard("not_open") >= 3 * u64::from(BOTS), "{:?}", run.fairness);
    assert!(run.bots_heard("before_slot") > 0, "{:?}", run.fairness);
}

#[test]
fn a_forged_header_makes_nobody_another_address() {
    // Whoever has a pass may go on at two requests a second, which is less than it sends.
    let run = run(BotKind::HeaderForger, &TIGHT_BY_ADDRESS, |_| ());
    assert!(
        run.limited("address") > 0 && run.bots_heard("rate_limited") == run.limited("address"),
        "{:?}",
        run.fairness
    );
}

#[test]
fn whoever_holds_and_drops_is_granted_so_many_and_no_more() {
    let run = run(BotKind::HoldAndDrop, &[], |definition| {
        // All at once, so that everybody has dropped before the crowd goes.
        (definition.grants_per_customer_max, definition.spread_milliseconds) = (1, 0);
    });
    assert_eq!(run.fairness.bots.granted(), u64::from(BOTS), "one each: {:?}", run.fairness);
    assert!(run.bots_heard("grants_exhausted") > 0, "{:?}", run.fairness);
    assert!(run.crowd.cancelled >= u64::from(BOTS), "{:?}", run.crowd);
}
