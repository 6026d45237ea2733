//! What can be asked of an owner and what it answers.

use chain::PrivatePart;
use domain::record::{Counts, PauseReason, ReleaseReason};
use domain::{
    AttemptStatus, ChainTime, ParkedPayment, PaymentFact, Pseudonym, PurchaseId, PurchaseNumber, Refusal, SalePhase,
    Units,
};

use crate::owner::Receipt;

/// What a customer wishes, as every gate knows it before a key is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Who.
    pub customer: Pseudonym,
    /// Index of the item.
    pub item: u16,
    /// Units asked for, 1 to `QUANTITY_MAX`.
    pub quantity: u32,
    /// Hash of the coupon code; zero without one.
    pub coupon: u64,
    /// The pass.
    pub pass: u64,
    /// When the pass expires.
    pub pass_expires_at: ChainTime,
    /// The customer's slot, milliseconds after the opening.
    pub slot_offset: u32,
}

/// A wish under an idempotency key. Every field is computed by the gate; the core compares, it does not derive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurchaseRequest {
    /// What is wished.
    pub wish: Wish,
    /// Derived from (sale, customer, idempotency key).
    pub purchase: PurchaseId,
    /// Keyed hash of the idempotency key.
    pub key_hash: [u8; 16],
    /// Hash of the body's parsed fields.
    pub body_hash: [u8; 16],
}

/// Something that may change the sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Hold units for a customer.
    Purchase(PurchaseRequest),
    /// Give a hold's units back. A customer may cancel only what is theirs; the shop (`None`) anything.
    Cancel {
        /// The order's sequence.
        number: PurchaseNumber,
        /// Who asks; `None` is the shop.
        customer: Option<Pseudonym>,
    },
    /// The shop has been paid.
    Confirm {
        /// The order's sequence.
        number: PurchaseNumber,
    },
    /// Stop purchases.
    Pause(PauseReason),
    /// Let purchases go on.
    Resume,
    /// Add units (positive) or withdraw free ones (negative).
    ChangeStock {
        /// Index of the item.
        item: u16,
        /// By how many.
        change: i64,
    },
    /// End the granting of holds now.
    Close,
    /// Settle now; needs a closed sale without open holds and without money under way.
    Settle,
    /// The customer goes to pay at a provider.
    BeginPayment {
        /// The order's sequence.
        number: PurchaseNumber,
        /// Who asks; `None` is the shop.
        customer: Option<Pseudonym>,
    },
    /// A provider gave an attempt its own name.
    NamePayment {
        /// The order's sequence.
        number: PurchaseNumber,
        /// Which attempt.
        attempt: u8,
        /// The name: 1 to `PAYMENT_REFERENCE_BYTES_MAX` printable ASCII characters.
        reference: Vec<u8>,
    },
    /// A provider said what became of an attempt; it was compared with the order.
    ReportPayment {
        /// The order's sequence.
        number: PurchaseNumber,
        /// Which attempt.
        attempt: u8,
        /// What it said.
        fact: PaymentFact,
    },
    /// A provider said something that does not fit the order.
    ParkPayment {
        /// The order's sequence.
        number: PurchaseNumber,
        /// What it said.
        parked: Box<ParkedPayment>,
    },
    /// The shop gives a paid order's money back.
    OrderRefund {
        /// The order's sequence.
        number: PurchaseNumber,
    },
    /// A provider has given an attempt's money back.
    NoteRefund {
        /// The order's sequence.
        number: PurchaseNumber,
        /// Which attempt.
        attempt: u8,
    },
}

/// Something that only reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// One purchase of a customer.
    Purchase {
        /// Who asks.
        customer: Pseudonym,
        /// Which.
        purchase: PurchaseId,
    },
    /// One order; of this customer only, if one is given.
    Order {
        /// The order's sequence.
        number: PurchaseNumber,
        /// Who asks; `None` is the shop.
        customer: Option<Pseudonym>,
    },
    /// All grants of a customer, newest first.
    Mine {
        /// Who asks.
        customer: Pseudonym,
    },
    /// The sale's state.
    Sale,
    /// Grants with money that may still come or has to go back, `UNSETTLED_MAX` at most, from a number on.
    Unsettled {
        /// The first number to look at.
        from: PurchaseNumber,
    },
}

/// A request to an owner.
#[derive(Clone, Debug)]
pub enum Request {
    /// May append records. The private part goes with a `held` record.
    Decide(Command, Option<PrivatePart>),
    /// Appends nothing.
    Read(Query),
}

/// Where a grant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantStatus {
    /// Units are held until the pay-by time.
    Held,
    /// The order is paid.
    Confirmed,
    /// The units went back.
    Released(ReleaseReason),
}

impl GrantStatus {
    /// The status's name in the HTTP contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Confirmed => "confirmed",
            Self::Released(_) => "released",
        }
    }
}

/// A grant as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Running number, the order's sequence.
    pub number: PurchaseNumber,
    /// Purchase id.
    pub purchase: PurchaseId,
    /// Whose.
    pub customer: Pseudonym,
    /// Index of the item.
    pub item: u16,
    /// The units; of a released grant, those that it had.
    pub units: Units,
    /// Minor units for all units together.
    pub price: u64,
    /// Until when to pay, clock credits included.
    pub pay_by: ChainTime,
    /// Status.
    pub status: GrantStatus,
    /// Number of its `held` record.
    pub record: u64,
    /// Its attempts to pay at a provider, in order.
    pub attempts: Vec<AttemptStatus>,
    /// The provider's name of each of them; empty while it is not known.
    pub references: Vec<Vec<u8>>,
}

/// What a sale's state looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaleState {
    /// Phase.
    pub phase: SalePhase,
    /// Why it is paused, if it is.
    pub paused: Option<PauseReason>,
    /// When it opened.
    pub opened_at: Option<ChainTime>,
    /// Counts per item.
    pub counts: Vec<Counts>,
    /// Number of the next record.
    pub next: u64,
    /// Chain time.
    pub time: ChainTime,
    /// No purchases because the disk is full.
    pub storage_full: bool,
}

/// What an owner answers; it rests on durable records only.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The purchase or order as it stands, with a receipt where the grant was made just now.
    Granted(Grant, Option<Receipt>),
    /// Refused.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The chain position that the refusal rests on.
        position: u64,
        /// From when another try makes sense, where known.
        retry_at: Option<ChainTime>,
    },
    /// A customer's grants.
    Grants(Vec<Grant>),
    /// The sale, after the command took effect or as read.
    Sale(Box<SaleState>),
}
