//! Those who are no people: which kinds there are, who runs them, and what each may cost everybody else. What a bot does stands in
//! `bots/acts.rs`. None of them breaks in anywhere: all of it goes over the public interface, and every answer is judged as a person's is.

mod acts;

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use crate::options::CrowdOptions;

pub(crate) use acts::{comes_at, run};

/// What a bot tries. Its network takes no time, it never hesitates, and it knows the clock to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Sends ten times a second around its slot, and begins before it. The slot stops it until then (`before_slot`), and the limit by
    /// customer whatever is beyond five a second for long (`rate_limited`).
    FastClicker,
    /// One operator with many accounts, each of which sends in the first millisecond of its slot. Every account has one slot, drawn for it
    /// alone: many of them are as many draws. What costs the operator is to have them, and that is the shop's to see to.
    ManyAccounts,
    /// Sends as the fast clicker does, each time from another address. Slot and limit are the customer's, wherever they are.
    ManyAddresses,
    /// Sends again what has won, the same key with another body, a second key with a pass that has bought, and somebody else's pass under
    /// its own token. It gets the same purchase (INV-5), `key_reused`, `limit_item_reached` and `pass_foreign`.
    Replayer,
    /// Sends before the opening (`not_open`), in its first millisecond (`before_slot`) and in the first millisecond of its slot.
    EarlyBird,
    /// Sends as the fast clicker does, and writes into its headers that it is somebody else each time. Whoever is no trusted proxy is not
    /// believed, and what stands left of the word of one that is, neither.
    HeaderForger,
    /// Takes a unit, gives it back after a moment, and takes one again, so that nobody else has it. `grants_per_customer_max` and
    /// `unpaid_releases_max` end that, and the rest that a unit has after its return makes a gap for others.
    HoldAndDrop,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::FastClicker,
        Self::ManyAccounts,
        Self::ManyAddresses,
        Self::Replayer,
        Self::EarlyBird,
        Self::HeaderForger,
        Self::HoldAndDrop,
    ];

    /// As in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::FastClicker => "fast_clicker",
            Self::ManyAccounts => "many_accounts",
            Self::ManyAddresses => "many_addresses",
            Self::Replayer => "replayer",
            Self::EarlyBird => "early_bird",
            Self::HeaderForger => "header_forger",
            Self::HoldAndDrop => "hold_and_drop",
        }
    }
}

/// Whoever runs some of the accounts.
pub(crate) struct Operator {
    pub(crate) kind: Kind,
    pub(crate) accounts: u32,
    first_address: u32,
    addresses: u32,
    requests: Cell<u32>,
}

impl Operator {
    /// The address of the next request: each in turn.
    pub(crate) fn next_address(&self) -> u32 {
        let number = self.requests.replace(self.requests.get().wrapping_add(1));
        self.first_address + number % self.addresses
    }
}

/// Everybody's operators. Accounts below `people` have none.
pub(crate) struct Bots {
    people: u32,
    pub(crate) operators: Vec<Operator>,
    /// By account, after the people's.
    operator_of: Vec<u32>,
}

impl Bots {
    pub(crate) fn of(options: &CrowdOptions) -> Self {
        let mut bots = Self { people: options.shoppers, operators: Vec::new(), operator_of: Vec::new() };
        let Some(wanted) = &options.bots else { return bots };
        let mut first_address = 0;
        for (number, kind) in (0..).zip(wanted.kinds.iter().copied().cycle()) {
            let rest =
                wanted.accounts - u32::try_from(bots.operator_of.len()).expect("accounts are counted in 32 bits");
            if rest == 0 {
                break;
            }
            let accounts = if kind == Kind::ManyAccounts { wanted.accounts_per_operator.min(rest) } else { 1 };
            let addresses = if kind == Kind::ManyAddresses { wanted.addresses_per_operator } else { 1 };
            bots.operators.push(Operator { kind, accounts, first_address, addresses, requests: Cell::new(0) });
            bots.operator_of.extend((0..accounts).map(|_| number));
            first_address += addresses;
        }
        bots
    }

    /// `None`: a person, who acts for themselves.
    pub(crate) fn operator_of(&self, account: u32) -> Option<&Operator> {
        self.operator_number(account).map(|number| &self.operators[number])
    }

    pub(crate) fn operator_number(&self, account: u32) -> Option<usize> {
        let bot = account.checked_sub(self.people)?;
        Some(self.operator_of[bot as usize] as usize)
    }

    /// People and bots.
    pub(crate) fn accounts(&self) -> usize {
        self.people as usize + self.operator_of.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{Bots, Kind};
    use crate::options::{BotOptions, CrowdOptions};

    fn bots(accounts: u32, accounts_per_operator: u32) -> Bots {
        let wanted = BotOptions {
            kinds: Kind::ALL.into(),
            accounts,
            accounts_per_operator,
            addresses_per_operator: 20,
            solving: None,
        };
        Bots::of(&CrowdOptions { shoppers: 100, bots: Some(wanted), ..CrowdOptions::default() })
    }

    #[test]
    fn every_account_has_one_operator_and_kinds_come_in_turn() {
        let one_each = bots(15, 1);
        assert_eq!(one_each.operators.len(), 15);
        assert!(one_each.operator_of(99).is_none(), "a person");
        let kind = |account| one_each.operator_of(account).map(|operator| operator.kind);
        assert_eq!((kind(100), kind(106), kind(107)), (Some(Kind::FastClicker), Some(Kind::HoldAndDrop), kind(100)));

        let many = bots(50, 10);
        let sizes: Vec<_> = many.operators.iter().map(|operator| operator.accounts).collect();
        assert_eq!(sizes[..9], [1, 10, 1, 1, 1, 1, 1, 1, 10]);
        assert_eq!(sizes.iter().sum::<u32>(), 50);
        assert_eq!(many.accounts(), 150);
        assert_eq!(many.operator_number(101), Some(1));
        assert_eq!(many.operator_number(110), Some(1));
        assert_eq!(many.operator_number(111), Some(2));
    }

    #[test]
    fn no_two_operators_share_an_address_and_only_one_kind_has_many() {
        let bots = bots(14, 1);
        let mut seen = std::collections::HashMap::new();
        for (number, operator) in bots.operators.iter().enumerate() {
            for _ in 0..50 {
                assert_eq!(*seen.entry(operator.next_address()).or_insert(number), number);
            }
        }
        assert_eq!(seen.len(), 12 + 2 * 20);
    }
}
