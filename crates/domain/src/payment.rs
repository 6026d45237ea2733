//! Payments of an order at a provider: attempts, what was reported of them, and what is not believed.

use crate::ids::Units;
use crate::money::Currency;

/// Where one attempt to pay an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AttemptStatus {
    /// Money may still come.
    Open = 0,
    /// The provider says that none will come.
    Ended = 1,
    /// Its money pays the order.
    Paid = 2,
    /// Its money has to go back.
    RefundDue = 3,
    /// Its money went back.
    Refunded = 4,
}

impl AttemptStatus {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Open, Self::Ended, Self::Paid, Self::RefundDue, Self::Refunded];

    /// The status of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == number)
    }

    /// The status's name in the HTTP contract and the books.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Ended => "ended",
            Self::Paid => "paid",
            Self::RefundDue => "refund_due",
            Self::Refunded => "refunded",
        }
    }

    /// Whether something is still to come: money, or its way back.
    pub fn is_unsettled(self) -> bool {
        matches!(self, Self::Open | Self::RefundDue)
    }
}

/// What a provider says of an attempt, once it was compared with the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PaymentFact {
    /// The order's price has been paid.
    Paid,
    /// No money was taken, and none will be.
    Ended,
}

/// What became of money when it was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// It pays the order, which held its units.
    Confirms,
    /// It pays the order, whose hold had ended: these free units are the order's now.
    Retakes(Units),
    /// It has to go back: the order is paid already, or no unit could be taken again.
    RefundDue,
}

/// Why a report is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ParkReason {
    /// Another amount than the order's price.
    WrongAmount = 1,
    /// Another currency than the sale's.
    WrongCurrency = 2,
    /// An attempt that the order never made.
    WrongOrder = 3,
    /// Test money in a real sale, or real money in a test sale.
    WrongMode = 4,
    /// All of it had gone back at the provider before we heard that it was paid.
    AlreadyRefunded = 5,
}

impl ParkReason {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::WrongAmount, Self::WrongCurrency, Self::WrongOrder, Self::WrongMode, Self::AlreadyRefunded];

    /// The reason of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }

    /// The reason's name in the HTTP contract and the books.
    pub fn name(self) -> &'static str {
        match self {
            Self::WrongAmount => "wrong_amount",
            Self::WrongCurrency => "wrong_currency",
            Self::WrongOrder => "wrong_order",
            Self::WrongMode => "wrong_mode",
            Self::AlreadyRefunded => "already_refunded",
        }
    }
}

/// A report that is kept for people to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedPayment {
    /// Why it is not believed.
    pub reason: ParkReason,
    /// Tells this report from others of the same order, below 2^53; the same report again is the same number.
    pub evidence: u64,
    /// What is said to have been paid, in minor units.
    pub amount: u64,
    /// Of which currency.
    pub currency: Currency,
    /// The provider's name of the payment: `PAYMENT_REFERENCE_BYTES_MAX` printable ASCII characters at most.
    pub reference: Vec<u8>,
}
