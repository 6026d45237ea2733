//! The state hash of a digest: an additive hash over all grants, cheap to keep as they change.
//!
//! `state = sum over grants of SHA-256("doorbuster grant v1" || number || status || item || units)`, added as four little-endian
//! 64-bit lanes without carry. A released grant has no units. The order of the sum does not matter, so a projection can compute it
//! from its own rows.

use domain::Unit;
use domain::ids::Hash;

use crate::batch::hash;

/// A grant's status as the state hash sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GrantStatus {
    /// In a hold.
    Held = 1,
    /// Sold.
    Confirmed = 2,
    /// Given back.
    Released = 3,
}

/// The running sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateHash([u64; 4]);

impl StateHash {
    /// Adds a grant in the given state.
    pub fn add(&mut self, number: u32, status: GrantStatus, item: u16, units: &[Unit]) {
        for (lane, value) in self.0.iter_mut().zip(entry(number, status, item, units)) {
            *lane = lane.wrapping_add(value);
        }
    }

    /// Takes a grant in the given state out again.
    pub fn remove(&mut self, number: u32, status: GrantStatus, item: u16, units: &[Unit]) {
        for (lane, value) in self.0.iter_mut().zip(entry(number, status, item, units)) {
            *lane = lane.wrapping_sub(value);
        }
    }

    /// The sum as the 32 bytes of a digest record.
    pub fn bytes(&self) -> Hash {
        let mut bytes = [0; 32];
        for (chunk, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }
}

fn entry(number: u32, status: GrantStatus, item: u16, units: &[Unit]) -> [u64; 4] {
    let mut bytes = Vec::with_capacity(32 + units.len() * 8);
    bytes.extend(b"doorbuster grant v1");
    bytes.extend(number.to_le_bytes());
    bytes.push(status as u8);
    bytes.extend(item.to_le_bytes());
    for unit in units {
        bytes.extend(unit.number.to_le_bytes());
        bytes.extend(unit.generation.to_le_bytes());
    }
    let hash = hash(&[&bytes]);
    std::array::from_fn(|lane| {
        let mut value = [0; 8];
        value.copy_from_slice(&hash[lane * 8..lane * 8 + 8]);
        u64::from_le_bytes(value)
    })
}
