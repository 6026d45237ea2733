//! Who got what: people and bots by account, operators by share; and what the slots alone would lead one to expect.
//!
//! A unit that is sold for the first time is had by slot; what comes back later by whoever asks most often. The two are counted apart.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::bots::{Bots, Kind};
use crate::network::{REACTION_MILLISECONDS, ROUND_TRIP_MILLISECONDS};
use crate::report::{count, precise};

/// Operators that are named in a report: those with most units.
const LARGEST_MAX: usize = 5;
/// With more units than that for every account, in per cent, nearly everybody gets one, bot or not, and a ratio says little.
pub const STOCK_PER_CENT_MAX: u64 = 5;

/// Who got what in a crowd with bots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fairness {
    /// Everybody who acts for themselves.
    pub people: Group,
    /// All bots.
    pub bots: Group,
    /// The bots of each kind, by its name.
    pub kinds: BTreeMap<String, Group>,
    /// Who runs bots: how many there are, and those with most units.
    pub operators: u64,
    /// The same, most units first.
    pub largest: Vec<OperatorGains>,
}

/// Some accounts together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Accounts, those without a pass counted.
    pub accounts: u64,
    /// Those that were given no pass.
    pub without_pass: u64,
    /// Purchase requests.
    pub requests: u64,
    /// Units that were theirs as the first.
    pub units: u64,
    /// Units that had come back from somebody.
    pub units_returned: u64,
    /// Refusals of purchase requests by code.
    pub refusals: BTreeMap<String, u64>,
}

/// One operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorGains {
    /// Number, from 0, in the order of their accounts.
    pub operator: u64,
    /// What its bots do.
    pub kind: Kind,
    /// Accounts it runs.
    pub accounts: u64,
    /// Units of all of them, returned ones counted.
    pub units: u64,
}

impl Fairness {
    /// Units that were sold for the first time, per bot's account and per person's, as a ratio: 1 is what a draw would give. `stock` is how
    /// many there were. An error says why there is no such figure.
    pub fn advantage(&self, stock: u64) -> Result<f64, String> {
        let accounts = self.people.accounts + self.bots.accounts;
        if stock * 100 > accounts * STOCK_PER_CENT_MAX {
            return Err(format!("{stock} units for {accounts} accounts are more than {STOCK_PER_CENT_MAX} %"));
        }
        if self.people.units + self.bots.units < stock {
            return Err("the units were not sold out, so there was nothing to compete for".to_owned());
        }
        self.ratio(|group| group.units)
    }

    /// The same of all units that anybody was granted, those that came back counted each time.
    pub fn advantage_with_returns(&self) -> Result<f64, String> {
        self.ratio(Group::granted)
    }

    /// How often a bot asks for each time that a person does.
    pub fn request_ratio(&self) -> Result<f64, String> {
        self.ratio(|group| group.requests)
    }

    /// Of all units that anybody was granted, 0 to 1.
    pub fn share(&self, units: u64) -> f64 {
        precise(units) / precise((self.people.granted() + self.bots.granted()).max(1))
    }

    fn ratio(&self, of: impl Fn(&Group) -> u64) -> Result<f64, String> {
        if self.people.accounts == 0 || of(&self.people) == 0 {
            return Err("no person got anything".to_owned());
        }
        let per_account = |group: &Group| precise(of(group)) / precise(group.accounts.max(1));
        Ok(per_account(&self.bots) / per_account(&self.people))
    }
}

impl Group {
    /// All units, those that had come back counted each time.
    pub fn granted(&self) -> u64 {
        self.units + self.units_returned
    }
}

/// What the running counts are for one account.
#[derive(Clone, Copy, Default)]
struct Account {
    requests: u32,
    units: u16,
    units_returned: u16,
    has_pass: bool,
}

/// The running counts of everybody; nothing is counted in a crowd without bots.
pub(crate) struct Gains {
    bots: Rc<Bots>,
    accounts: Vec<Account>,
    /// Refusals of people, and of bots by kind.
    refusals_of_people: BTreeMap<String, u64>,
    refusals: BTreeMap<Kind, BTreeMap<String, u64>>,
}

impl Gains {
    pub(crate) fn new(bots: Rc<Bots>) -> Self {
        let accounts = if bots.operators.is_empty() { 0 } else { bots.accounts() };
        let accounts = vec![Account::default(); accounts];
        Self { bots, accounts, refusals_of_people: BTreeMap::new(), refusals: BTreeMap::new() }
    }

    pub(crate) fn has_pass(&mut self, account: u32) {
        self.with(account, |account| account.has_pass = true);
    }

    pub(crate) fn asked(&mut self, account: u32) {
        self.with(account, |account| account.requests += 1);
    }

    /// A purchase was heard of for the first time; of each of its units, how often it had come back before.
    pub(crate) fn got(&mut self, account: u32, generations: impl Iterator<Item = u64>) {
        self.with(account, |account| {
            for generation in generations {
                let units = if generation == 0 { &mut account.units } else { &mut account.units_returned };
                *units += 1;
            }
        });
    }

    pub(crate) fn refused(&mut self, account: u32, code: &str) {
        if !self.accounts.is_empty() {
            let counts = match self.bots.operator_of(account) {
                Some(operator) => self.refusals.entry(operator.kind).or_default(),
                None => &mut self.refusals_of_people,
            };
            count(counts, code);
        }
    }

    fn with(&mut self, account: u32, change: impl FnOnce(&mut Account)) {
        if let Some(account) = self.accounts.get_mut(account as usize) {
            change(account);
        }
    }

    pub(crate) fn report(self) -> Option<Fairness> {
        if self.accounts.is_empty() {
            return None;
        }
        let mut fairness = Fairness { operators: self.bots.operators.len() as u64, ..Fairness::default() };
        let mut units_of = vec![0; self.bots.operators.len()];
        for (number, account) in (0..).zip(&self.accounts) {
            let Some(operator) = self.bots.operator_number(number) else {
                fairness.people.add(account);
                continue;
            };
            fairness.bots.add(account);
            fairness.kinds.entry(self.bots.operators[operator].kind.name().to_owned()).or_default().add(account);
            units_of[operator] += u64::from(account.units + account.units_returned);
        }
        fairness.people.refusals = self.refusals_of_people;
        for (kind, refusals) in self.refusals {
            for (code, times) in &refusals {
                *fairness.bots.refusals.entry(code.clone()).or_default() += times;
            }
            fairness.kinds.entry(kind.name().to_owned()).or_default().refusals = refusals;
        }
        fairness.largest = (0..)
            .zip(self.bots.operators.iter().zip(units_of))
            .map(|(operator, (who, units))| OperatorGains {
                operator,
                kind: who.kind,
                accounts: u64::from(who.accounts),
                units,
            })
            .collect();
        fairness.largest.sort_by_key(|operator| std::cmp::Reverse(operator.units));
        fairness.largest.truncate(LARGEST_MAX);
        Some(fairness)
    }
}

impl Group {
    fn add(&mut self, account: &Account) {
        self.accounts += 1;
        self.without_pass += u64::from(!account.has_pass);
        self.requests += u64::from(account.requests);
        self.units += u64::from(account.units);
        self.units_returned += u64::from(account.units_returned);
    }
}

/// Draws of people behind each expectation.
const DRAWS: u64 = 100_000;

/// What [`Fairness::advantage`] is to be expected for that spread (milliseconds, at least 1), that much stock for every account (0 to 1,
/// both excluded) and that share of bots among the accounts (0 to 1, 1 excluded), if slots alone decide.
///
/// A bot asks in the instant of its slot. A person has pressed some time after the opening; the page sends once both press and slot are over, and
/// the request travels. The units are gone when that many of both have arrived.
pub fn advantage_expected(spread_milliseconds: u64, stock_share: f64, bot_share: f64) -> f64 {
    let spread = precise(spread_milliseconds);
    let mut random = fastrand::Rng::with_seed(1);
    let mut draw = |range: std::ops::RangeInclusive<u64>| {
        let (from, to) = (precise(*range.start()), precise(*range.end()));
        from + (to - from) * random.f64()
    };
    let mut arrivals: Vec<f64> = (0..DRAWS)
        .map(|number| {
            // Slots are even, so they need no luck.
            let slot = spread * (precise(number) + 0.5) / precise(DRAWS);
            let presses = draw(REACTION_MILLISECONDS);
            slot.max(presses) + draw(ROUND_TRIP_MILLISECONDS) / 2.0
        })
        .collect();
    arrivals.sort_unstable_by(f64::total_cmp);
    let people = |until: f64| precise(arrivals.partition_point(|arrival| *arrival <= until) as u64) / precise(DRAWS);
    let bots = |until: f64| (until / spread).min(1.0);
    let (mut early, mut late) = (0.0, spread + 10_000.0);
    for _ in 0..60 {
        let middle = f64::midpoint(early, late);
        let sold = (1.0 - bot_share) * people(middle) + bot_share * bots(middle);
        if sold < stock_share { early = middle } else { late = middle }
    }
    bots(late) / people(late)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{BotOptions, CrowdOptions};

    fn gains() -> Gains {
        let bots = BotOptions {
            kinds: Kind::ALL.into(),
            accounts: 10,
            accounts_per_operator: 4,
            addresses_per_operator: 1,
            solving: None,
        };
        Gains::new(Rc::new(Bots::of(&CrowdOptions { shoppers: 90, bots: Some(bots), ..CrowdOptions::default() })))
    }

    #[test]
    fn first_sales_and_returns_are_counted_apart_and_accounts_without_a_pass_count() {
        let mut gains = gains();
        (0..89).for_each(|account| gains.has_pass(account));
        for account in [0, 1, 2, 90] {
            gains.got(account, [0].into_iter());
        }
        // Two accounts of one operator.
        gains.got(91, [1].into_iter());
        gains.got(92, [3].into_iter());
        (0..90).for_each(|account| gains.asked(account));
        (0..100).for_each(|_| gains.asked(95));
        gains.refused(95, "sold_out");
        gains.refused(3, "sold_out");
        let fairness = gains.report().unwrap();
        assert_eq!((fairness.people.accounts, fairness.people.without_pass, fairness.people.units), (90, 1, 3));
        assert_eq!((fairness.bots.accounts, fairness.bots.without_pass), (10, 10));
        assert_eq!((fairness.bots.units, fairness.bots.units_returned), (1, 2));
        assert_eq!(fairness.kinds["many_accounts"].accounts, 4);
        assert_eq!((fairness.largest[0].operator, fairness.largest[0].accounts, fairness.largest[0].units), (1, 4, 2));
        assert_eq!((fairness.bots.refusals["sold_out"], fairness.people.refusals["sold_out"]), (1, 1));
        assert!((fairness.advantage(4).unwrap() - 3.0).abs() < 1e-9, "1 of 10 against 3 of 90");
        assert!((fairness.advantage_with_returns().unwrap() - 9.0).abs() < 1e-9);
        assert!((fairness.request_ratio().unwrap() - 10.0).abs() < 1e-9);
        assert!((fairness.share(3) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_figure_that_would_say_nothing_is_refused_with_its_reason() {
        let mut gains = gains();
        gains.got(0, [0].into_iter());
        let fairness = gains.report().unwrap();
        assert!(fairness.advantage(6).unwrap_err().contains("5 %"));
        assert!(fairness.advantage(5).unwrap_err().contains("not sold out"));
        assert!(Fairness::default().request_ratio().unwrap_err().contains("no person"));
        assert_eq!(Gains::new(Rc::new(Bots::of(&CrowdOptions::default()))).report(), None, "nobody to compare with");
    }

    #[test]
    fn a_longer_spread_leaves_bots_less_to_gain() {
        let expected = |seconds: u64| advantage_expected(seconds * 1_000, 0.05, 0.1);
        assert!(expected(5) > 5.0, "people have hardly pressed when all is gone");
        assert!(expected(30) > 1.5 && expected(40) < 1.5);
        assert!((1.03..1.1).contains(&expected(60)), "{}", expected(60));
        assert!(expected(300) < 1.02);
        assert!(advantage_expected(60_000, 0.01, 0.1) > expected(60), "the fewer units, the less time");
    }

    /// The table of `docs/fairness.md` is what this computes.
    #[test]
    fn the_document_says_what_is_computed() {
        let document = include_str!("../../../docs/fairness.md");
        let of = |seconds: u64, share| match advantage_expected((seconds * 1_000).max(1), share, 0.1) {
            ratio if ratio.is_finite() && ratio < 100.0 => format!("{ratio:.2}"),
            _ => "all".to_owned(),
        };
        let table: Vec<_> = [0, 1, 5, 10, 15, 20, 30, 60, 90, 120, 300, 600]
            .into_iter()
            .map(|seconds| {
                format!("| {seconds} | {} | {} | {} |", of(seconds, 0.05), of(seconds, 0.02), of(seconds, 0.01))
            })
            .collect();
        let table = table.join("\n");
        assert!(document.contains(&table), "{table}");
    }
}
