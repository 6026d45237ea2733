//! The records of a sale's chain: every decision and every fact from outside, as values.
//!
//! `chain::codec` gives each its bytes. A kind that this version does not know refuses to open.

use crate::clock::ChainTime;
use crate::ids::{Hash, Pseudonym, PurchaseId, PurchaseNumber, SaleOrdinal, Units};
use crate::payment::{ParkedPayment, Received};

/// The number of a record's kind in the chain. Numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The sale exists: definition and commitments.
    Created = 1,
    /// A process took the chain over and writes from here on.
    Epoch = 2,
    /// Holds are granted from here on.
    Opened = 3,
    /// Units are held for a customer until the pay-by time.
    Held = 4,
    /// A hold ended and its units are free again.
    Released = 5,
    /// A hold ended in a sale.
    Confirmed = 6,
    /// An attempt to pay at a provider began: money may come from here on.
    PaymentBegun = 7,
    /// An attempt ended without money.
    PaymentEnded = 8,
    /// The money of an attempt came.
    PaymentReceived = 9,
    /// A confirmation came late and took free units again.
    Retaken = 10,
    /// Units were added or withdrawn.
    StockChanged = 11,
    /// Purchases stopped.
    Paused = 12,
    /// Purchases go on.
    Resumed = 13,
    /// An outage's length is given back to every open hold.
    ClockCredit = 14,
    /// Counts and state hash: the cut for an audit.
    Digest = 15,
    /// No new hold from here on.
    Closed = 16,
    /// The slot secret, after closing.
    SecretRevealed = 17,
    /// Every unit is sold, free or withdrawn.
    Settled = 18,
    /// The money of a paid order is to go back.
    RefundOrdered = 19,
    /// The money of an attempt went back.
    Refunded = 20,
    /// A provider reported something that is not believed.
    PaymentParked = 21,
    /// The provider's own name of an attempt became known.
    PaymentNamed = 22,
}

impl RecordKind {
    /// All kinds in the order of their numbers.
    pub const ALL: [Self; 22] = [
        Self::Created,
        Self::Epoch,
        Self::Opened,
        Self::Held,
        Self::Released,
        Self::Confirmed,
        Self::PaymentBegun,
        Self::PaymentEnded,
        Self::PaymentReceived,
        Self::Retaken,
        Self::StockChanged,
        Self::Paused,
        Self::Resumed,
        Self::ClockCredit,
        Self::Digest,
        Self::Closed,
        Self::SecretRevealed,
        Self::Settled,
        Self::RefundOrdered,
        Self::Refunded,
        Self::PaymentParked,
        Self::PaymentNamed,
    ];

    /// The kind of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Why a hold was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ReleaseReason {
    /// Nobody paid in time.
    Expired = 1,
    /// The customer gave it back.
    CancelledByCustomer = 2,
    /// The shop took it back.
    CancelledByShop = 3,
}

impl ReleaseReason {
    /// The reason of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Expired, Self::CancelledByCustomer, Self::CancelledByShop]
            .into_iter()
            .find(|reason| *reason as u8 == number)
    }

    /// The reason's name in the HTTP contract and the books.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::CancelledByCustomer => "cancelled_by_customer",
            Self::CancelledByShop => "cancelled_by_shop",
        }
    }
}

/// Why a sale was paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PauseReason {
    /// The operator said so.
    Operator = 1,
    /// The wall clock moved against the monotonic one by more than two seconds.
    ClockJump = 2,
    /// A projection contradicts the chain.
    Drift = 3,
}

impl PauseReason {
    /// The reason of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Operator, Self::ClockJump, Self::Drift].into_iter().find(|reason| *reason as u8 == number)
    }

    /// The reason's name in the HTTP contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::ClockJump => "clock_jump",
            Self::Drift => "drift",
        }
    }
}

/// The public part of `created`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The deployment's number of the sale.
    pub ordinal: SaleOrdinal,
    /// `SHA-256("doorbuster slot secret v1" || sale id || slot secret)`.
    pub slot_commitment: Hash,
    /// `SHA-256("doorbuster pseudonym key v1" || sale id || pseudonym key)`.
    pub pseudonym_commitment: Hash,
    /// The Ed25519 public key that signs this chain's heads.
    pub signing_key: Hash,
    /// The definition as JSON, exactly as hashed.
    pub definition: Vec<u8>,
}

/// The public part of `held`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The running number of the grant.
    pub number: PurchaseNumber,
    /// The purchase's id without ordinal and MAC.
    pub purchase: PurchaseId,
    /// Whose it is.
    pub customer: Pseudonym,
    /// Index of the item in the definition.
    pub item: u16,
    /// The units, in the order in which they were taken; their count is the quantity.
    pub units: Units,
    /// Minor units for all units together.
    pub price: u64,
    /// Keyed hash of the idempotency key.
    pub key_hash: [u8; 16],
    /// Hash of the versioned parsed fields of the body.
    pub body_hash: [u8; 16],
    /// The pass that was spent.
    pub pass: u64,
    /// The customer's slot as milliseconds after the opening.
    pub slot_offset: u32,
    /// Hash of the coupon; zero without one.
    pub coupon: u64,
    /// When the hold may be released, grace apart, before any clock credit.
    pub pay_by: ChainTime,
}

/// Counts of one item's units; their sum is the item's total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Can be bought.
    pub free: u32,
    /// In a hold.
    pub held: u32,
    /// In a confirmed order.
    pub sold: u32,
    /// Taken out of the sale.
    pub withdrawn: u32,
}

impl Counts {
    /// All units that the item ever had.
    pub fn total(&self) -> u64 {
        u64::from(self.free) + u64::from(self.held) + u64::from(self.sold) + u64::from(self.withdrawn)
    }
}

/// One attempt to pay a grant's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The grant.
    pub number: PurchaseNumber,
    /// Its purchase id.
    pub purchase: PurchaseId,
    /// The attempt, from 0.
    pub attempt: u8,
}

/// One record of the chain, its public part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// See [`RecordKind::Created`].
    Created(Box<Created>),
    /// See [`RecordKind::Epoch`]; the new epoch's number, one more than the last.
    Epoch(u64),
    /// See [`RecordKind::Opened`]; slots count from the batch's chain time.
    Opened,
    /// See [`RecordKind::Held`].
    Held(Held),
    /// See [`RecordKind::Released`].
    Released {
        /// The grant.
        number: PurchaseNumber,
        /// Its purchase id.
        purchase: PurchaseId,
        /// Why.
        reason: ReleaseReason,
    },
    /// See [`RecordKind::Confirmed`].
    Confirmed {
        /// The grant.
        number: PurchaseNumber,
        /// Its purchase id.
        purchase: PurchaseId,
    },
    /// See [`RecordKind::PaymentBegun`].
    PaymentBegun(Attempt),
    /// See [`RecordKind::PaymentEnded`].
    PaymentEnded(Attempt),
    /// See [`RecordKind::PaymentReceived`], with what became of it.
    PaymentReceived(Attempt, Received),
    /// See [`RecordKind::RefundOrdered`].
    RefundOrdered(Attempt),
    /// See [`RecordKind::Refunded`].
    Refunded(Attempt),
    /// See [`RecordKind::PaymentParked`].
    PaymentParked {
        /// The grant.
        number: PurchaseNumber,
        /// Its purchase id.
        purchase: PurchaseId,
        /// What was reported.
        parked: Box<ParkedPayment>,
    },
    /// See [`RecordKind::PaymentNamed`]; printable ASCII.
    PaymentNamed(Attempt, Vec<u8>),
    /// See [`RecordKind::Retaken`]: the released purchase is confirmed with these units.
    Retaken {
        /// The grant.
        number: PurchaseNumber,
        /// Its purchase id.
        purchase: PurchaseId,
        /// The units it now has.
        units: Units,
    },
    /// See [`RecordKind::StockChanged`].
    StockChanged {
        /// Index of the item.
        item: u16,
        /// New units, numbered on from the item's total.
        added: u32,
        /// Free units taken out for ever.
        withdrawn: Units,
    },
    /// See [`RecordKind::Paused`].
    Paused(PauseReason),
    /// See [`RecordKind::Resumed`].
    Resumed,
    /// See [`RecordKind::ClockCredit`]; milliseconds.
    ClockCredit(u64),
    /// See [`RecordKind::Digest`].
    Digest {
        /// The additive hash over all grants (`chain::digest`).
        state: Hash,
        /// Counts per item, in the definition's order.
        counts: Vec<Counts>,
    },
    /// See [`RecordKind::Closed`].
    Closed,
    /// See [`RecordKind::SecretRevealed`].
    SecretRevealed(Hash),
    /// See [`RecordKind::Settled`]; counts per item, none held.
    Settled(Vec<Counts>),
}

impl Record {
    /// The grant that the record makes or changes.
    pub fn grant(&self) -> Option<PurchaseNumber> {
        match self {
            Self::Held(held) => Some(held.number),
            Self::Released { number, .. }
            | Self::Confirmed { number, .. }
            | Self::Retaken { number, .. }
            | Self::PaymentParked { number, .. } => Some(*number),
            Self::PaymentBegun(attempt)
            | Self::PaymentEnded(attempt)
            | Self::PaymentReceived(attempt, _)
            | Self::RefundOrdered(attempt)
            | Self::Refunded(attempt)
            | Self::PaymentNamed(attempt, _) => Some(attempt.number),
            _ => None,
        }
    }

    /// The record's kind.
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::Created(_) => RecordKind::Created,
            Self::Epoch(_) => RecordKind::Epoch,
            Self::Opened => RecordKind::Opened,
            Self::Held(_) => RecordKind::Held,
            Self::Released { .. } => RecordKind::Released,
            Self::Confirmed { .. } => RecordKind::Confirmed,
            Self::PaymentBegun(_) => RecordKind::PaymentBegun,
            Self::PaymentEnded(_) => RecordKind::PaymentEnded,
            Self::PaymentReceived(..) => RecordKind::PaymentReceived,
            Self::RefundOrdered(_) => RecordKind::RefundOrdered,
            Self::Refunded(_) => RecordKind::Refunded,
            Self::PaymentParked { .. } => RecordKind::PaymentParked,
            Self::PaymentNamed(..) => RecordKind::PaymentNamed,
            Self::Retaken { .. } => RecordKind::Retaken,
            Self::StockChanged { .. } => RecordKind::StockChanged,
            Self::Paused(_) => RecordKind::Paused,
            Self::Resumed => RecordKind::Resumed,
            Self::ClockCredit(_) => RecordKind::ClockCredit,
            Self::Digest { .. } => RecordKind::Digest,
            Self::Closed => RecordKind::Closed,
            Self::SecretRevealed(_) => RecordKind::SecretRevealed,
            Self::Settled(_) => RecordKind::Settled,
        }
    }
}
