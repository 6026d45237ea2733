//! The promises. Their ids stand in asserts, tests, the auditor, metrics and the docs.

/// One promise that the engine keeps and the auditor checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Promise {
    /// INV-1: at every position, total = free + held + sold + withdrawn; total changes only by a record.
    Conservation = 1,
    /// INV-2: a unit is live in one generation at most; g+1 only after the release of g; one holder and one end per generation.
    SingleHolder = 2,
    /// INV-3: live units of a customer never exceed the item's or the sale's limit.
    Limit = 3,
    /// INV-4: every `held` answer has its record and order.
    DurableAnswer = 4,
    /// INV-5: same key and body, the same purchase; same key and another body, a distinct refusal.
    Idempotent = 5,
    /// INV-6: every payment ends attached to exactly one order or refunded.
    Money = 6,
    /// INV-7: a coupon is spent at most once; points are posted once per paid order.
    Benefits = 7,
    /// INV-8: no new hold before opening or after closing, by chain time.
    Window = 8,
    /// INV-9: the regular lane keeps its latency while the flash lane drowns.
    Isolation = 9,
    /// INV-10: nobody eligible hears `sold_out` while a unit is free; every hold ends; at settlement nothing is unaccounted.
    HonestRefusal = 10,
}

impl Promise {
    /// All promises in order.
    pub const ALL: [Self; 10] = [
        Self::Conservation,
        Self::SingleHolder,
        Self::Limit,
        Self::DurableAnswer,
        Self::Idempotent,
        Self::Money,
        Self::Benefits,
        Self::Window,
        Self::Isolation,
        Self::HonestRefusal,
    ];

    /// `INV-n`.
    pub fn id(self) -> &'static str {
        match self {
            Self::Conservation => "INV-1",
            Self::SingleHolder => "INV-2",
            Self::Limit => "INV-3",
            Self::DurableAnswer => "INV-4",
            Self::Idempotent => "INV-5",
            Self::Money => "INV-6",
            Self::Benefits => "INV-7",
            Self::Window => "INV-8",
            Self::Isolation => "INV-9",
            Self::HonestRefusal => "INV-10",
        }
    }

    /// The promise in a few words, for reports.
    pub fn title(self) -> &'static str {
        match self {
            Self::Conservation => "no unit appears or vanishes",
            Self::SingleHolder => "one holder per unit",
            Self::Limit => "nobody exceeds a limit",
            Self::DurableAnswer => "every win has its record and order",
            Self::Idempotent => "one key, one purchase",
            Self::Money => "every payment has its place",
            Self::Benefits => "coupons and points once",
            Self::Window => "no hold outside the window",
            Self::Isolation => "the regular lane keeps its pace",
            Self::HonestRefusal => "sold out is said only when true",
        }
    }
}
