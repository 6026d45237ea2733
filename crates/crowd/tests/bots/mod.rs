//! A crowd with bots against a stand-in server: who comes from where, what is counted, and what is noticed.

use std::collections::HashSet;

use crowd::{BotKind, BotOptions, CrowdOptions, CrowdReport};

use crate::now;
use crate::stand_in::{Shop, StandIn, Temper};

const PEOPLE: u32 = 200;

fn run(server: &StandIn, name: &str, kinds: &[BotKind], accounts: u32) -> CrowdReport {
    let notes = std::env::temp_dir().join(format!("crowd-bots-{name}-{}.jsonl", std::process::id()));
    let options = CrowdOptions {
        public: vec![server.address],
        admin: vec![server.address],
        admin_token: "admin".to_owned(),
        sale: "drop".to_owned(),
        items: vec!["boot".to_owned()],
        shoppers: PEOPLE,
        seconds: 1,
        linger_seconds: 1,
        seed: 5,
        notes: notes.clone(),
        token_secret: b"a secret of the shop".to_vec(),
        decide_milliseconds_max: 300,
        bots: Some(BotOptions {
            kinds: kinds.to_vec(),
            accounts,
            accounts_per_operator: 4,
            addresses_per_operator: 5,
            solving: None,
        }),
        ..CrowdOptions::default()
    };
    let report = crowd::run(options, |_| ()).unwrap();
    std::fs::remove_file(notes).unwrap();
    report
}

#[test]
fn bots_of_every_kind_come_and_who_got_what_adds_up() {
    let server = StandIn::open(Shop { stock: 100, opens_at: now().plus(1_800), ..Shop::default() });
    let report = run(&server, "kinds", &BotKind::ALL, 30);
    let fairness = report.fairness.clone().unwrap();
    assert_eq!((report.protocol_errors, report.unanswered), (0, 0), "{report:?}");
    assert_eq!((fairness.people.accounts, fairness.bots.accounts), (u64::from(PEOPLE), 30));
    let granted = fairness.people.granted() + fairness.bots.granted();
    assert_eq!(granted, report.wins, "every purchase is somebody's");
    let of_kinds: u64 = fairness.kinds.values().map(|group| group.accounts).sum();
    assert_eq!((fairness.kinds.len(), of_kinds), (7, 30));
    assert_eq!(fairness.kinds["many_accounts"].accounts, 3 * 4, "three operators of four");
    // All have one slot here, the opening, and no finger is as fast as a bot.
    assert!(fairness.bots.units >= 30, "{fairness:?}");
    let replayer = &fairness.kinds["replayer"].refusals;
    let replayers = fairness.kinds["replayer"].accounts;
    for code in ["key_reused", "limit_item_reached", "pass_foreign"] {
        assert_eq!(replayer[code], replayers, "{replayer:?}");
    }
    assert_eq!(fairness.kinds["early_bird"].refusals["not_open"], 4 * fairness.kinds["early_bird"].accounts);
    assert!(fairness.people.refusals["sold_out"] > 50, "{fairness:?}");

    let shop = server.shop.lock().unwrap();
    let mut people = HashSet::new();
    for (customer, said) in &shop.forwarded_for {
        let real: HashSet<_> = said.iter().map(|said| said.rsplit(", ").next().unwrap()).collect();
        let claims = said.iter().collect::<HashSet<_>>().len();
        if *customer < PEOPLE {
            assert_eq!((real.len(), claims), (1, 1), "{said:?}");
            people.extend(real.into_iter().map(str::to_owned));
        } else if claims > real.len() {
            assert_eq!(real.len(), 1, "a forger claims to be many and is one: {said:?}");
        }
    }
    assert_eq!(people.len(), PEOPLE as usize, "nobody shares an address");
}

#[test]
fn a_unit_before_the_slot_is_noticed() {
    let temper = Temper::Heedless;
    let server = StandIn::open(Shop { stock: 1_000, temper, opens_at: now().plus(1_800), ..Shop::default() });
    let report = run(&server, "early", &[BotKind::EarlyBird], 5);
    assert_eq!(report.fairness.unwrap().bots.units, 5);
    assert!(report.protocol_errors >= 5, "{:?}", report.protocol_error_samples);
    assert!(report.protocol_error_samples[0].contains("INV-8"), "{:?}", report.protocol_error_samples);
}

#[test]
fn what_a_replayer_must_not_get_is_noticed() {
    let server = StandIn::open(Shop { stock: 1_000, temper: Temper::Credulous, ..Shop::default() });
    let report = run(&server, "replays", &[BotKind::Replayer], 1);
    for words in ["a pass of somebody else", "INV-5: key", "INV-5: a key that is bound", "INV-3: a second unit"] {
        let samples = &report.protocol_error_samples;
        assert!(samples.iter().any(|sample| sample.contains(words)), "{words}: {samples:?}");
    }
}
