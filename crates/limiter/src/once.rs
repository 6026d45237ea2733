//! What may be used once: ids that were spent, remembered until they would be refused for their age anyway.

use std::collections::BTreeSet;

/// What became of spending an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// It was spent just now.
    Now,
    /// It had been spent before, or is too old.
    Before,
    /// It is not spent, and cannot be: so many are remembered that there is no room. To forget one would let it be used twice.
    Full,
}

/// Spent ids, in bounded memory. Time is in milliseconds since any start.
pub struct Once<Id> {
    /// The one that is forgotten first in front.
    spent: BTreeSet<(u64, Id)>,
    count_max: usize,
}

impl<Id: Ord + Copy> Once<Id> {
    /// Remembers up to `count_max` ids.
    pub fn new(count_max: usize) -> Self {
        Self { spent: BTreeSet::new(), count_max }
    }

    /// Whether an id that is good until then has been spent, or is too old.
    pub fn is_spent(&self, id: Id, until: u64, now: u64) -> bool {
        until <= now || self.spent.contains(&(until, id))
    }

    /// Spends an id that is good until then; the same id always comes with the same end.
    pub fn spend(&mut self, id: Id, until: u64, now: u64) -> Spent {
        while self.spent.first().is_some_and(|(end, _)| *end <= now) {
            self.spent.pop_first();
        }
        if self.is_spent(id, until, now) {
            Spent::Before
        } else if self.spent.len() >= self.count_max {
            Spent::Full
        } else {
            self.spent.insert((until, id));
            Spent::Now
        }
    }

    /// Takes a spending back, where what it was spent for did not come about.
    pub fn restore(&mut self, id: Id, until: u64) {
        self.spent.remove(&(until, id));
    }

    /// Ids that are remembered.
    pub fn len(&self) -> usize {
        self.spent.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.spent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_spent_once_until_it_is_too_old_and_may_be_restored() {
        let mut once = Once::new(10);
        assert_eq!(once.spend(7, 100, 0), Spent::Now);
        for now in [0, 99, 100, 5_000] {
            assert_eq!(once.spend(7, 100, now), Spent::Before, "{now}");
        }
        assert!(once.is_empty(), "what is too old is not remembered");
        assert_eq!(once.spend(8, 100, 99), Spent::Now);
        once.restore(8, 100);
        assert!(!once.is_spent(8, 100, 99));
        assert_eq!(once.spend(8, 100, 99), Spent::Now);
        assert!(once.is_spent(8, 100, 99));
    }

    #[test]
    fn a_full_table_refuses_the_new_and_forgets_none_that_still_counts() {
        let mut once = Once::new(3);
        for id in 0..3 {
            assert_eq!(once.spend(id, 100 + id, 0), Spent::Now);
        }
        assert_eq!(once.spend(9, 500, 99), Spent::Full);
        for id in 0..3 {
            assert_eq!(once.spend(id, 100 + id, 99), Spent::Before, "{id}");
        }
        assert_eq!(once.spend(9, 500, 100), Spent::Now, "the first has made room");
        assert_eq!(once.len(), 3);
    }
}
