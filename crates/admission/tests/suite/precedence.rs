//! Of several reasons against a purchase the one that `Refusal` declares first is told: every set of reasons that can hold at once.

use std::sync::Arc;

use admission::core::Verdict;
use admission::{Command, Core, Guards, Wish};
use domain::record::PauseReason;
use domain::{ChainTime, Record, Refusal};

use crate::counter::{Counter, OPENS_AT, definition, purchase, refusal, wish};

/// Every refusal that a purchase can hear from the core.
const REASONS: [Refusal; 14] = [
    Refusal::KeyReused,
    Refusal::NotOpen,
    Refusal::Closed,
    Refusal::Paused,
    Refusal::StorageFull,
    Refusal::PassExpired,
    Refusal::BeforeSlot,
    Refusal::PassSpent,
    Refusal::LimitItemReached,
    Refusal::LimitSaleReached,
    Refusal::GrantsExhausted,
    Refusal::CouponRefused,
    Refusal::StockInsufficient,
    Refusal::SoldOut,
];

/// A set of reasons, as bits of `REASONS`.
#[derive(Clone, Copy)]
struct Reasons(u32);

impl Reasons {
    fn has(self, refusal: Refusal) -> bool {
        let index = REASONS.iter().position(|reason| *reason == refusal).unwrap();
        self.0 >> index & 1 == 1
    }

    fn any(self, refusals: &[Refusal]) -> bool {
        refusals.iter().any(|refusal| self.has(*refusal))
    }

    /// A key, a pass or a customer without grants is neither bound nor spent, and no grant comes before the opening.
    fn can_hold_at_once(self) -> bool {
        let needs_a_grant = [Refusal::KeyReused, Refusal::PassSpent, Refusal::GrantsExhausted, Refusal::Closed];
        let unopened = self.has(Refusal::NotOpen) && self.any(&needs_a_grant);
        let stock_twice = self.has(Refusal::StockInsufficient) && self.has(Refusal::SoldOut);
        !unopened && !stock_twice
    }

    fn first(self) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|refusal| REASONS.contains(refusal) && self.has(*refusal))
    }
}

/// Makes all of the reasons true and asks for three units.
fn verdict(reasons: Reasons) -> Verdict {
    let mut definition = definition(50);
    let limit = |reached: bool| if reached { 2 } else { 100 };
    definition.items[0].limit_per_customer = limit(reasons.has(Refusal::LimitItemReached));
    definition.limit_per_customer = limit(reasons.has(Refusal::LimitSaleReached));
    definition.grants_per_pass_max = if reasons.has(Refusal::PassSpent) { 1 } else { 100 };
    definition.grants_per_customer_max = if reasons.has(Refusal::GrantsExhausted) { 1 } else { 100 };
    let mut core = Core::new(definition, Guards::ON);
    let mut records = Vec::new();
    core.advance(ChainTime(if reasons.has(Refusal::NotOpen) { OPENS_AT - 1 } else { OPENS_AT }));
    core.turn_window(&mut records);
    let mut tell = |core: &mut Core, command: &Command| core.decide(command, &mut records);
    if reasons.any(&[Refusal::KeyReused, Refusal::PassSpent, Refusal::GrantsExhausted]) {
        let key = if reasons.has(Refusal::KeyReused) { 1 } else { 2 };
        assert!(matches!(tell(&mut core, &purchase(wish(0, 1), key)), Verdict::Changed(_)));
    }
    let left = match reasons {
        _ if reasons.has(Refusal::SoldOut) => 0,
        _ if reasons.has(Refusal::StockInsufficient) => 2,
        _ => 40,
    };
    let change = left - i64::from(core.counts()[0].free);
    assert_eq!(tell(&mut core, &Command::ChangeStock { item: 0, change }), Verdict::Sale);
    if reasons.has(Refusal::Paused) {
        tell(&mut core, &Command::Pause(PauseReason::Operator));
    }
    if reasons.has(Refusal::Closed) {
        tell(&mut core, &Command::Close);
    }
    core.set_storage_full(reasons.has(Refusal::StorageFull));
    let wish = Wish {
        pass_expires_at: if reasons.has(Refusal::PassExpired) { ChainTime(OPENS_AT - 1) } else { ChainTime(u64::MAX) },
        slot_offset: if reasons.has(Refusal::BeforeSlot) { 5_000 } else { 0 },
        coupon: u64::from(reasons.has(Refusal::CouponRefused)),
        ..wish(0, 3)
    };
    let before = records.len();
    let verdict = core.decide(&purchase(wish, 1), &mut records);
    let held = matches!(records.last(), Some(Record::Held(_))) && records.len() == before + 1;
    assert!(held || records.len() == before, "a refusal writes nothing");
    verdict
}

#[test]
fn each_reason_alone_is_told() {
    for (index, refusal) in REASONS.into_iter().enumerate() {
        assert!(matches!(verdict(Reasons(1 << index)), Verdict::Refused(told, _) if told == refusal), "{refusal:?}");
    }
    assert!(matches!(verdict(Reasons(0)), Verdict::Changed(_)));
}

#[test]
fn of_all_reasons_that_hold_at_once_the_first_declared_is_told() {
    let mut told = 0;
    for reasons in (0..1 << REASONS.len()).map(Reasons).filter(|reasons| reasons.can_hold_at_once()) {
        let Some(first) = reasons.first() else { continue };
        let verdict = verdict(reasons);
        assert!(matches!(verdict, Verdict::Refused(refusal, _) if refusal == first), "{:b}: {verdict:?}", reasons.0);
        told += 1;
    }
    assert!(told > 5_000, "{told} sets were tried");
}

#[test]
fn retry_at_is_told_where_it_is_known() {
    let slot = Wish { slot_offset: 4_000, ..wish(0, 1) };
    let mut core = Core::new(definition(1), Guards::ON);
    core.advance(ChainTime(OPENS_AT - 10_000));
    let mut records = Vec::new();
    let not_open = core.decide(&purchase(slot, 1), &mut records);
    assert_eq!(not_open, Verdict::Refused(Refusal::NotOpen, Some(ChainTime(OPENS_AT + 4_000))));
    // A late opening shifts every slot.
    core.advance(ChainTime(OPENS_AT + 2_000));
    core.turn_window(&mut records);
    let before_slot = core.decide(&purchase(slot, 1), &mut records);
    assert_eq!(before_slot, Verdict::Refused(Refusal::BeforeSlot, Some(ChainTime(OPENS_AT + 6_000))));
    core.advance(ChainTime(OPENS_AT + 6_000));
    assert!(matches!(core.decide(&purchase(slot, 1), &mut records), Verdict::Changed(_)));
}

/// What a gate tells a stranger by itself is what the owner would have told.
#[test]
fn a_view_tells_strangers_what_the_owner_tells() {
    type Change = fn(&mut Wish);
    let wishes: [Change; 6] = [
        |_| {},
        |wish| wish.pass_expires_at = ChainTime(OPENS_AT),
        |wish| wish.slot_offset = 9_000,
        |wish| wish.coupon = 7,
        |wish| wish.quantity = 3,
        |wish| (wish.coupon, wish.slot_offset) = (7, 9_000),
    ];
    let commands = [Command::Resume, Command::Pause(PauseReason::Operator), Command::Close];
    for (command, stock) in commands.iter().flat_map(|command| [(command, 0), (command, 5)]) {
        let mut definition = definition(stock);
        definition.limit_per_customer = 2;
        let mut counter = Counter::new(&definition);
        counter.tell(command.clone());
        let view = Arc::clone(counter.owner.view());
        for (number, change) in wishes.iter().enumerate() {
            let mut wish = wish(number as u32, 1);
            change(&mut wish);
            let early = view.refuse_early(&wish, ChainTime(counter.wall));
            let Some(early) = early else { continue };
            let told = counter.tell(purchase(wish, 1));
            assert_eq!(early.refusal, refusal(&told), "wish {number} after {command:?} with {stock}");
        }
    }
}
