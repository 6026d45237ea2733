//! The numbered units of one item: a counter of fresh ones and a stack of returned ones, never a list of all.

use domain::record::Counts;
use domain::{Unit, Units, limits};

/// One item's units.
#[derive(Debug, Clone)]
pub(crate) struct Stock {
    /// Number of the next fresh unit; all below were handed out at least once or withdrawn.
    fresh: u32,
    /// All units ever; fresh ones are `fresh..total`.
    total: u32,
    /// Free units that came back, each in its next generation.
    returned: Vec<Unit>,
    held: u32,
    sold: u32,
    withdrawn: u32,
}

impl Stock {
    pub(crate) fn new(total: u32) -> Self {
        Self { fresh: 0, total, returned: Vec::new(), held: 0, sold: 0, withdrawn: 0 }
    }

    pub(crate) fn free(&self) -> u32 {
        self.total - self.fresh + self.returned.len() as u32
    }

    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// Free units that came back, the latest last.
    pub(crate) fn returned(&self) -> &[Unit] {
        &self.returned
    }

    /// `ITEM` of the library on Redis.
    pub(crate) fn numbers(&self, limit: u32, price: u64) -> [u64; 8] {
        let returned = self.returned.len() as u64;
        let [fresh, total, held, sold, withdrawn] =
            [self.fresh, self.total, self.held, self.sold, self.withdrawn].map(u64::from);
        [limit.into(), price, fresh, total, returned, held, sold, withdrawn]
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts { free: self.free(), held: self.held, sold: self.sold, withdrawn: self.withdrawn }
    }

    /// The units that the next `quantity` takings would give, fresh ones first. `quantity` must not exceed what is free.
    pub(crate) fn peek(&self, quantity: u32) -> Units {
        let fresh = quantity.min(self.total - self.fresh);
        let mut units = Units::with_capacity(quantity as usize);
        units.extend((self.fresh..self.fresh + fresh).map(|number| Unit { number, generation: 0 }));
        units.extend(self.returned.iter().rev().copied().take((quantity - fresh) as usize));
        units
    }

    /// Takes exactly these units out of the free ones; `false`, and nothing taken, unless they are what [`Stock::peek`] gives.
    #[must_use]
    fn take(&mut self, units: &[Unit]) -> bool {
        let quantity = units.len() as u32;
        if quantity > self.free() || self.peek(quantity)[..] != *units {
            return false;
        }
        let fresh = quantity.min(self.total - self.fresh);
        self.fresh += fresh;
        self.returned.truncate(self.returned.len() - (quantity - fresh) as usize);
        true
    }

    #[must_use]
    pub(crate) fn hold(&mut self, units: &[Unit]) -> bool {
        let taken = self.take(units);
        if taken {
            self.held += units.len() as u32;
        }
        self.check();
        taken
    }

    #[must_use]
    pub(crate) fn retake(&mut self, units: &[Unit]) -> bool {
        let taken = self.take(units);
        if taken {
            self.sold += units.len() as u32;
        }
        self.check();
        taken
    }

    #[must_use]
    pub(crate) fn withdraw(&mut self, units: &[Unit]) -> bool {
        let taken = self.take(units);
        if taken {
            self.withdrawn += units.len() as u32;
        }
        self.check();
        taken
    }

    /// A held grant's units come back, each in its next generation (INV-2).
    pub(crate) fn release(&mut self, units: impl Iterator<Item = Unit>) {
        for unit in units {
            self.held -= 1;
            self.returned.push(Unit { number: unit.number, generation: unit.generation + 1 });
        }
        self.check();
    }

    pub(crate) fn confirm(&mut self, quantity: u32) {
        self.held -= quantity;
        self.sold += quantity;
        self.check();
    }

    pub(crate) fn add(&mut self, added: u32) {
        self.total += added;
        assert!(self.total <= limits::UNITS_PER_ITEM_MAX, "the total is bounded before it grows");
        self.check();
    }

    fn check(&self) {
        assert_eq!(self.counts().total(), u64::from(self.total), "INV-1: a unit appeared or vanished");
    }
}
