//! The units of one item, one by one.

use domain::Unit;
use domain::record::Counts;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Free,
    Held,
    Sold,
    Withdrawn,
}

#[derive(Clone)]
struct Piece {
    generation: u32,
    place: Place,
    /// When it came back the last time, as a running number; 0 for one that never left.
    back: u64,
}

/// All units that an item ever had.
#[derive(Clone)]
pub(super) struct Shelf {
    pieces: Vec<Piece>,
    returns: u64,
}

impl Shelf {
    pub(super) fn new(stock: u32) -> Self {
        let mut shelf = Self { pieces: Vec::new(), returns: 0 };
        shelf.add(stock);
        shelf
    }

    pub(super) fn add(&mut self, units: u32) {
        let fresh = Piece { generation: 0, place: Place::Free, back: 0 };
        self.pieces.extend((0..units).map(|_| fresh.clone()));
    }

    pub(super) fn counts(&self) -> Counts {
        let count = |place| self.pieces.iter().filter(|piece| piece.place == place).count() as u32;
        Counts {
            free: count(Place::Free),
            held: count(Place::Held),
            sold: count(Place::Sold),
            withdrawn: count(Place::Withdrawn),
        }
    }

    /// Takes free units: those that never left by number, then those that came back, the last one first.
    fn take(&mut self, quantity: u32, to: Place) -> Vec<Unit> {
        let mut free: Vec<usize> = (0..self.pieces.len()).filter(|at| self.pieces[*at].place == Place::Free).collect();
        free.sort_by_key(|at| match self.pieces[*at].back {
            0 => (0, *at as u64),
            back => (1, u64::MAX - back),
        });
        assert!(free.len() >= quantity as usize, "the caller has counted");
        let taken = free.into_iter().take(quantity as usize);
        taken
            .map(|at| {
                self.pieces[at].place = to;
                Unit { number: at as u32, generation: self.pieces[at].generation }
            })
            .collect()
    }

    pub(super) fn hold(&mut self, quantity: u32) -> Vec<Unit> {
        self.take(quantity, Place::Held)
    }

    pub(super) fn sell_free(&mut self, quantity: u32) -> Vec<Unit> {
        self.take(quantity, Place::Sold)
    }

    pub(super) fn withdraw(&mut self, quantity: u32) {
        self.take(quantity, Place::Withdrawn);
    }

    pub(super) fn sell_held(&mut self, units: &[Unit]) {
        for unit in units {
            self.pieces[unit.number as usize].place = Place::Sold;
        }
    }

    pub(super) fn give_back(&mut self, units: &[Unit]) {
        for unit in units {
            self.returns += 1;
            let piece = &mut self.pieces[unit.number as usize];
            *piece = Piece { generation: piece.generation + 1, place: Place::Free, back: self.returns };
        }
    }
}
