//! The units of one item as the auditor knows them: who has each, since when it is free, and how many are where.

use domain::Unit;
use domain::record::Counts;

/// Nobody has the unit; it can be bought.
const FREE: u32 = u32::MAX;
/// The unit was taken out of the sale.
pub(crate) const WITHDRAWN: u32 = u32::MAX - 1;

/// Where in the chain something happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The record's number.
    pub(crate) position: u64,
    /// Its batch's chain time.
    pub(crate) time: u64,
}

#[derive(Clone, Copy)]
struct UnitState {
    generation: u32,
    /// A grant's number, [`FREE`] or [`WITHDRAWN`].
    holder: u32,
}

/// Why a unit cannot be moved as a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnitFault {
    /// The item never had a unit of that number (INV-1).
    Unknown,
    /// It exists, but not in that generation or not in those hands (INV-2).
    Elsewhere,
}

/// Where counts go from and to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Move {
    FreeToHeld,
    HeldToFree,
    HeldToSold,
    FreeToSold,
    FreeToWithdrawn,
}

/// One item: its bounds, its counts and its units.
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) limit: u32,
    pub(crate) counts: Counts,
    /// Units that the item ever had, counted apart from `counts` so that the two can contradict each other.
    pub(crate) total: u64,
    /// Units that were touched; those from here up to `total` are fresh.
    units: Vec<UnitState>,
    /// Positions of the records after which nothing was free, as half-open spans.
    empty: Vec<(u64, u64)>,
    free_times: Option<FreeTimes>,
}

/// Since when each unit is free and when units were free; kept only where answers are to be checked.
struct FreeTimes {
    since: Vec<u64>,
    /// First number and chain time of each lot of new units.
    lots: Vec<(u64, u64)>,
    /// Ended spans as (to, from), in the order of their ends.
    ended: Vec<(u64, u64)>,
}

impl FreeTimes {
    fn since_of_fresh(&self, number: u64) -> u64 {
        self.lots.iter().rev().find(|(first, _)| *first <= number).map_or(0, |(_, time)| *time)
    }
}

impl Item {
    pub(crate) fn new(definition: &domain::ItemDefinition, at: Moment, with_free_times: bool) -> Self {
        let mut item = Self {
            name: definition.item.clone(),
            limit: definition.limit_per_customer,
            counts: Counts { free: definition.stock, ..Counts::default() },
            total: u64::from(definition.stock),
            units: Vec::new(),
            empty: Vec::new(),
            free_times: with_free_times.then(|| FreeTimes {
                since: Vec::new(),
                lots: vec![(0, at.time)],
                ended: Vec::new(),
            }),
        };
        item.note_free(at.position);
        item
    }

    /// Gives a free unit to `holder`.
    pub(crate) fn take(&mut self, unit: Unit, holder: u32, at: Moment) -> Result<(), UnitFault> {
        let index = self.touch(unit.number)?;
        let state = &mut self.units[index];
        if state.holder != FREE || state.generation != unit.generation {
            return Err(UnitFault::Elsewhere);
        }
        state.holder = holder;
        if let Some(times) = &mut self.free_times {
            times.ended.push((at.time, times.since[index]));
        }
        Ok(())
    }

    /// Takes a unit back from `holder`: it is free in the next generation.
    pub(crate) fn give_back(&mut self, unit: Unit, holder: u32, at: Moment) -> Result<(), UnitFault> {
        let index = self.touch(unit.number)?;
        let state = &mut self.units[index];
        if state.holder != holder || state.generation != unit.generation {
            return Err(UnitFault::Elsewhere);
        }
        *state = UnitState { generation: unit.generation.wrapping_add(1), holder: FREE };
        if let Some(times) = &mut self.free_times {
            times.since[index] = at.time;
        }
        Ok(())
    }

    /// Whether `holder` has the unit in that generation.
    pub(crate) fn is_with(&self, unit: Unit, holder: u32) -> bool {
        let state = self.units.get(unit.number as usize);
        state.is_some_and(|state| state.holder == holder && state.generation == unit.generation)
    }

    /// Adds fresh units, numbered on from the total.
    pub(crate) fn add(&mut self, added: u32, at: Moment) {
        if let Some(times) = &mut self.free_times
            && added > 0
        {
            times.lots.push((self.total, at.time));
        }
        self.total += u64::from(added);
        self.counts.free = self.counts.free.saturating_add(added);
    }

    /// Moves `units` from one count to another; a count that cannot give them stays at zero, which conservation then shows.
    pub(crate) fn shift(&mut self, step: Move, units: u32) {
        let Counts { free, held, sold, withdrawn } = &mut self.counts;
        let (from, to) = match step {
            Move::FreeToHeld => (free, held),
            Move::HeldToFree => (held, free),
            Move::HeldToSold => (held, sold),
            Move::FreeToSold => (free, sold),
            Move::FreeToWithdrawn => (free, withdrawn),
        };
        *from = from.saturating_sub(units);
        *to = to.saturating_add(units);
    }

    /// To be called after every record that changed the item.
    pub(crate) fn note_free(&mut self, position: u64) {
        let open = self.empty.last_mut().filter(|(_, until)| *until == u64::MAX);
        match (open, self.counts.free) {
            (None, 0) => self.empty.push((position, u64::MAX)),
            (Some((_, until)), 1..) => *until = position,
            _ => {}
        }
    }

    /// Whether nothing was free after record `position`.
    pub(crate) fn is_empty_after(&self, position: u64) -> bool {
        let index = self.empty.partition_point(|(from, _)| *from <= position);
        index > 0 && position < self.empty[index - 1].1
    }

    /// The counts that the units themselves give; `is_sold` tells whether a grant's units are paid for.
    pub(crate) fn recount(&self, is_sold: impl Fn(u32) -> bool) -> Counts {
        let fresh = u32::try_from(self.total.saturating_sub(self.units.len() as u64)).unwrap_or(u32::MAX);
        let mut counts = Counts { free: fresh, ..Counts::default() };
        for state in &self.units {
            match state.holder {
                FREE => counts.free += 1,
                WITHDRAWN => counts.withdrawn += 1,
                grant if is_sold(grant) => counts.sold += 1,
                _ => counts.held += 1,
            }
        }
        counts
    }

    /// When units were free, for questions about answers; `None` unless asked for at the start.
    pub(crate) fn free_spans(&self) -> Option<FreeSpans> {
        let times = self.free_times.as_ref()?;
        let mut earliest = u64::MAX;
        for (state, since) in self.units.iter().zip(&times.since) {
            if state.holder == FREE {
                earliest = earliest.min(*since);
            }
        }
        if (self.units.len() as u64) < self.total {
            earliest = earliest.min(times.since_of_fresh(self.units.len() as u64));
        }
        let mut spans = times.ended.clone();
        spans.push((u64::MAX, earliest));
        for index in (1..spans.len()).rev() {
            spans[index - 1].1 = spans[index - 1].1.min(spans[index].1);
        }
        Some(FreeSpans(spans))
    }

    /// The index of a unit that exists; fresh ones below it come into being as they are passed.
    fn touch(&mut self, number: u32) -> Result<usize, UnitFault> {
        if u64::from(number) >= self.total {
            return Err(UnitFault::Unknown);
        }
        let index = number as usize;
        if index >= self.units.len() {
            if let Some(times) = &mut self.free_times {
                for fresh in times.since.len()..=index {
                    let since = times.since_of_fresh(fresh as u64);
                    times.since.push(since);
                }
            }
            self.units.resize(index + 1, UnitState { generation: 0, holder: FREE });
        }
        Ok(index)
    }
}

/// The spans during which single units were free: by their ends, each with the earliest start of all that end no sooner.
pub(crate) struct FreeSpans(Vec<(u64, u64)>);

impl FreeSpans {
    /// Whether one unit was free all the way from `from` to `to`, in milliseconds of chain time, and beyond: one that was taken at
    /// `to` may have been taken before the answer, in the same batch.
    pub(crate) fn covers(&self, from: u64, to: u64) -> bool {
        let index = self.0.partition_point(|(end, _)| *end <= to);
        self.0.get(index).is_some_and(|(_, start)| *start <= from)
    }
}
