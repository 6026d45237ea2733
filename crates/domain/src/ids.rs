//! Identifiers as the chain holds them. The forms that leave the engine, with their MACs, are made in `gate::ids`.

use std::fmt;

/// SHA-256 output: heads, commitments, hashes.
pub type Hash = [u8; 32];

/// Names one sale for ever: 16 random bytes drawn when it is created. The URL carries the shop's own name of the sale instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaleId(pub [u8; 16]);

impl fmt::Display for SaleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// The deployment's running number of a sale, from 1; it travels encrypted in purchase and order ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaleOrdinal(pub u32);

/// A customer as one sale's chain shows them: the first 16 bytes of `HMAC(pseudonym key of the sale, issuer || subject)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pseudonym(pub [u8; 16]);

impl Pseudonym {
    /// The first eight bytes as a number: uniform, since a pseudonym is a MAC, so it serves as a hash as it is.
    pub fn fingerprint(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// A purchase inside its sale: the first 12 bytes of a MAC over (sale, customer, idempotency key), so equal keys give equal ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PurchaseId(pub [u8; 12]);

impl PurchaseId {
    /// The first eight bytes as a number; uniform for the same reason as a pseudonym's.
    pub fn fingerprint(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// The running number of a grant within its sale, from 0: the row of the purchase and the sequence in its order number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PurchaseNumber(pub u32);

/// An order's sequence within its sale: the number of the purchase that made it.
pub type OrderSequence = PurchaseNumber;

/// One numbered unit of an item in one generation. Generation g+1 exists only after the release of g.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit {
    /// The unit's number within its item, from 0.
    pub number: u32,
    /// How many times the unit had come back before, from 0.
    pub generation: u32,
}

/// The units of one grant. Nearly every grant has one, and that one lies in its place instead of on the heap.
pub type Units = smallvec::SmallVec<[Unit; 2]>;
