//! What a fact is worth to the attempt that it is about. A pure rule: no call, no clock.
//!
//! Only facts of attempts that have no verdict yet are judged here. Later facts about the same payment, refunds above all, are
//! compared with what is already recorded.

use domain::Money;

use crate::fact::{Fact, FactState};
use crate::key::AttemptKey;

/// What our own records say of the attempt.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Its key.
    pub key: &'a AttemptKey,
    /// What the order costs.
    pub money: Money,
    /// Whether the deployment takes real money.
    pub live: bool,
}

/// The verdict on a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The attempt is paid, in full and in the right currency.
    Paid,
    /// The attempt ended without money and cannot be paid any more.
    Ended,
    /// Nothing is settled.
    StillOpen,
    /// The fact contradicts our records: a person has to look. Nothing is sold on its strength and nothing is given back.
    Parked(Parked),
}

/// Why a fact is parked. Where several hold, the first in this order is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parked {
    /// Play money for a sale of real things, or the reverse.
    WrongMode,
    /// The payment is another attempt's or another system's.
    WrongOrder,
    /// Captured in another currency.
    WrongCurrency,
    /// More or less was captured than the order costs.
    WrongAmount,
    /// Everything had gone back before we heard that it was paid: nobody's money is held for the goods.
    AlreadyRefunded,
}

impl Parked {
    /// Every reason, in order.
    pub const ALL: [Self; 5] =
        [Self::WrongMode, Self::WrongOrder, Self::WrongCurrency, Self::WrongAmount, Self::AlreadyRefunded];

    /// The reason's stable name in records, metrics and documents.
    pub fn code(self) -> &'static str {
        match self {
            Self::WrongMode => "wrong_mode",
            Self::WrongOrder => "wrong_order",
            Self::WrongCurrency => "wrong_currency",
            Self::WrongAmount => "wrong_amount",
            Self::AlreadyRefunded => "already_refunded",
        }
    }

    /// The reason of that name.
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// Weighs a fact against our records.
///
/// Whose payment it is counts in every state. What it is worth counts only once money has moved: an open or cancelled payment of
/// another amount has cost nobody anything.
pub fn judge(fact: &Fact, expected: &Expected<'_>) -> Judged {
    if fact.live != expected.live {
        return Judged::Parked(Parked::WrongMode);
    }
    if fact.key.as_ref() != Some(expected.key) {
        return Judged::Parked(Parked::WrongOrder);
    }
    match fact.state {
        FactState::Open(_) => Judged::StillOpen,
        FactState::Cancelled => Judged::Ended,
        FactState::Succeeded => captured(fact, expected.money),
    }
}

fn captured(fact: &Fact, price: Money) -> Judged {
    if fact.money.currency != price.currency {
        Judged::Parked(Parked::WrongCurrency)
    } else if fact.money.amount != price.amount {
        Judged::Parked(Parked::WrongAmount)
    } else if fact.refunded > 0 && fact.refunded >= fact.money.amount {
        Judged::Parked(Parked::AlreadyRefunded)
    } else {
        Judged::Paid
    }
}

#[cfg(test)]
mod tests {
    use domain::{Currency, Money};

    use super::{Expected, Judged, Parked, judge};
    use crate::fact::{Fact, FactState, Waiting};
    use crate::key::AttemptKey;

    const EUR: Currency = Currency(*b"EUR");
    const OPEN: FactState = FactState::Open(Waiting::Customer);
    const DECLINED: FactState = FactState::Open(Waiting::Declined);
    const PROCESSING: FactState = FactState::Open(Waiting::Provider);
    const PAID: FactState = FactState::Succeeded;
    const CANCELLED: FactState = FactState::Cancelled;

    /// How the fact differs from what is expected.
    type Change = fn(&mut Fact);

    const SAME: Change = |_| {};
    const TEST_MODE: Change = |fact| fact.live = false;
    const OTHER_ORDER: Change = |fact| fact.key = AttemptKey::new("or_other", 0);
    const OTHER_ATTEMPT: Change = |fact| fact.key = AttemptKey::new("or_1", 1);
    const NO_KEY: Change = |fact| fact.key = None;
    const DOLLARS: Change = |fact| fact.money.currency = Currency(*b"USD");
    const LESS: Change = |fact| fact.money.amount -= 1;
    const MORE: Change = |fact| fact.money.amount += 1;
    const PARTLY_BACK: Change = |fact| fact.refunded = 1_499;
    const ALL_BACK: Change = |fact| fact.refunded = 1_500;
    const ALL_WRONG: Change = |fact| {
        (LESS)(fact);
        (DOLLARS)(fact);
        (NO_KEY)(fact);
        (TEST_MODE)(fact);
    };
    const MONEY_WRONG: Change = |fact| {
        (LESS)(fact);
        (DOLLARS)(fact);
    };

    #[test]
    fn a_fact_is_paid_ended_open_or_parked() {
        use Judged::{Ended, Paid, StillOpen};
        let parked = Judged::Parked;
        let table = [
            ("paid in full", PAID, SAME, Paid),
            ("waits for the customer", OPEN, SAME, StillOpen),
            ("declined, which is not the end", DECLINED, SAME, StillOpen),
            ("processing", PROCESSING, SAME, StillOpen),
            ("cancelled", CANCELLED, SAME, Ended),
            ("play money", PAID, TEST_MODE, parked(Parked::WrongMode)),
            ("play money, open", OPEN, TEST_MODE, parked(Parked::WrongMode)),
            ("play money, cancelled", CANCELLED, TEST_MODE, parked(Parked::WrongMode)),
            ("another order", PAID, OTHER_ORDER, parked(Parked::WrongOrder)),
            ("another attempt", PAID, OTHER_ATTEMPT, parked(Parked::WrongOrder)),
            ("another attempt was cancelled", CANCELLED, OTHER_ATTEMPT, parked(Parked::WrongOrder)),
            ("not ours", PAID, NO_KEY, parked(Parked::WrongOrder)),
            ("another currency", PAID, DOLLARS, parked(Parked::WrongCurrency)),
            ("a cent less", PAID, LESS, parked(Parked::WrongAmount)),
            ("a cent more", PAID, MORE, parked(Parked::WrongAmount)),
            ("another amount, nothing captured", OPEN, MORE, StillOpen),
            ("another amount, cancelled", CANCELLED, LESS, Ended),
            ("partly given back since", PAID, PARTLY_BACK, Paid),
            ("given back before we knew", PAID, ALL_BACK, parked(Parked::AlreadyRefunded)),
            ("everything is wrong", PAID, ALL_WRONG, parked(Parked::WrongMode)),
            ("currency comes before amount", PAID, MONEY_WRONG, parked(Parked::WrongCurrency)),
        ];
        let key = AttemptKey::new("or_1", 0).unwrap();
        let money = Money { amount: 1_500, currency: EUR };
        for (what, state, change, verdict) in table {
            let mut fact =
                Fact { reference: "pi_1".to_owned(), key: Some(key.clone()), money, live: true, state, refunded: 0 };
            change(&mut fact);
            assert_eq!(judge(&fact, &Expected { key: &key, money, live: true }), verdict, "{what}");
        }
    }

    #[test]
    fn an_order_that_costs_nothing_can_be_paid() {
        let key = AttemptKey::new("or_1", 0).unwrap();
        let money = Money { amount: 0, currency: EUR };
        let fact = Fact {
            reference: "pi_1".to_owned(),
            key: Some(key.clone()),
            money,
            live: false,
            state: FactState::Succeeded,
            refunded: 0,
        };
        assert_eq!(judge(&fact, &Expected { key: &key, money, live: false }), Judged::Paid);
    }

    #[test]
    fn reasons_come_back_from_their_codes() {
        for reason in Parked::ALL {
            assert_eq!(Parked::parse(reason.code()), Some(reason));
        }
        assert_eq!(Parked::parse("wrong"), None);
    }
}
