//! What a fact is worth to the attempt that it is about. A pure rule: no call, no clock.
//!
//! Only facts of attempts that have no verdict yet are judged here. Later facts about the same payment, refunds above all, are
//! compared with what is already recorded.

use domain::{Money, ParkReason};

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
    /// The fact contradicts our records: a person has to look. Nothing is sold on its strength and nothing is given back. Of several reasons
    /// the first of mode, order, currency, amount and refund.
    Parked(ParkReason),
}

/// Weighs a fact against our records.
///
/// Whose payment it is counts in every state. What it is worth counts only once money has moved: an open or cancelled payment of
/// another amount has cost nobody anything.
pub fn judge(fact: &Fact, expected: &Expected<'_>) -> Judged {
    if fact.live != expected.live {
        return Judged::Parked(ParkReason::WrongMode);
    }
    if fact.key.as_ref() != Some(expected.key) {
        return Judged::Parked(ParkReason::WrongOrder);
    }
    match fact.state {
        FactState::Open(_) => Judged::StillOpen,
        FactState::Cancelled => Judged::Ended,
        FactState::Succeeded => captured(fact, expected.money),
    }
}

fn captured(fact: &Fact, price: Money) -> Judged {
    if fact.money.currency != price.currency {
        Judged::Parked(ParkReason::WrongCurrency)
    } else if fact.money.amount != price.amount {
        Judged::Parked(ParkReason::WrongAmount)
    } else if fact.refunded > 0 && fact.refunded >= fact.money.amount {
        Judged::Parked(ParkReason::AlreadyRefunded)
    } else {
        Judged::Paid
    }
}

#[cfg(test)]
mod tests {
    use domain::{Currency, Money, ParkReason};

    use super::{Expected, Judged, judge};
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
            ("play money", PAID, TEST_MODE, parked(ParkReason::WrongMode)),
            ("play money, open", OPEN, TEST_MODE, parked(ParkReason::WrongMode)),
            ("play money, cancelled", CANCELLED, TEST_MODE, parked(ParkReason::WrongMode)),
            ("another order", PAID, OTHER_ORDER, parked(ParkReason::WrongOrder)),
            ("another attempt", PAID, OTHER_ATTEMPT, parked(ParkReason::WrongOrder)),
            ("another attempt was cancelled", CANCELLED, OTHER_ATTEMPT, parked(ParkReason::WrongOrder)),
            ("not ours", PAID, NO_KEY, parked(ParkReason::WrongOrder)),
            ("another currency", PAID, DOLLARS, parked(ParkReason::WrongCurrency)),
            ("a cent less", PAID, LESS, parked(ParkReason::WrongAmount)),
            ("a cent more", PAID, MORE, parked(ParkReason::WrongAmount)),
            ("another amount, nothing captured", OPEN, MORE, StillOpen),
            ("another amount, cancelled", CANCELLED, LESS, Ended),
            ("partly given back since", PAID, PARTLY_BACK, Paid),
            ("given back before we knew", PAID, ALL_BACK, parked(ParkReason::AlreadyRefunded)),
            ("everything is wrong", PAID, ALL_WRONG, parked(ParkReason::WrongMode)),
            ("currency comes before amount", PAID, MONEY_WRONG, parked(ParkReason::WrongCurrency)),
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
}
