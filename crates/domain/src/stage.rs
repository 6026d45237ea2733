//! The stages of a purchase: the one map for spans, metrics, fault points and docs.

/// Where a purchase is. The first five are the front half, the rest the back half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stage {
    /// The request has been read.
    Received,
    /// Identity and pass are believed.
    Gated,
    /// Admission has decided; nothing is durable yet.
    Decided,
    /// The batch that carries the decision is durable.
    Chained,
    /// The customer has been told.
    Answered,
    /// The books have the order.
    Ordered,
    /// A payment attempt is open.
    PaymentOpen,
    /// The hold ended in a sale.
    Confirmed,
    /// The hold ended and its units are free again.
    Released,
    /// A provider has given money back; the chain does not have that yet.
    Refunded,
    /// The sale is over and every unit is accounted for.
    Settled,
}

impl Stage {
    /// All stages in the order in which a purchase meets them.
    pub const ALL: [Self; 11] = [
        Self::Received,
        Self::Gated,
        Self::Decided,
        Self::Chained,
        Self::Answered,
        Self::Ordered,
        Self::PaymentOpen,
        Self::Confirmed,
        Self::Released,
        Self::Refunded,
        Self::Settled,
    ];

    /// The stage's name in spans, metrics, fault points and docs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Gated => "gated",
            Self::Decided => "decided",
            Self::Chained => "chained",
            Self::Answered => "answered",
            Self::Ordered => "ordered",
            Self::PaymentOpen => "payment_open",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
            Self::Refunded => "refunded",
            Self::Settled => "settled",
        }
    }

    /// The stage of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}
