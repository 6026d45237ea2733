//! Every "no" that leaves the engine: a closed set with stable numbers and codes.
//!
//! Declaration order is precedence: of several reasons that hold at once, a purchase is told the one that stands first here.
//! Two things are judged before a request is read, and told whatever else is wrong with it: whether its address is blocked, or asks too often,
//! and whether the page that it comes from has been let in.
//! The key look-up stands between `Overloaded` and `KeyReused`: what is declared after it is never told to a winner who retries.

/// Why a request was refused. The number and the code of a variant never change; each code has a page in `docs/errors/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Refusal {
    /// The request cannot be read: bad JSON, a missing or malformed header, an unknown field.
    Malformed = 10,
    /// The body is larger than the route accepts.
    BodyTooLarge = 11,
    /// The body is not `application/json`.
    MediaTypeUnsupported = 12,
    /// The quantity is zero or above what one purchase may ask.
    QuantityInvalid = 13,
    /// Unknown, or somebody else's: the two are not told apart.
    NotFound = 20,
    /// The path exists, the method does not.
    MethodNotAllowed = 21,
    /// No token, or one that is not believed.
    TokenInvalid = 30,
    /// The token was good and has expired.
    TokenExpired = 31,
    /// No pass, or one that is not believed.
    PassInvalid = 32,
    /// The pass belongs to another customer or another sale.
    PassForeign = 33,
    /// The admin token is good, and its role does not have this right.
    RoleInsufficient = 34,
    /// No ticket for a stream of events, or one that is not believed, has expired, or was used.
    TicketInvalid = 35,
    /// The request comes from a page that nobody has let in.
    OriginRefused = 36,
    /// The token is good, and its claims do not say what this shop asks of whoever may buy.
    NotEligible = 37,
    /// The token names a key that the shop may have published, and its keys cannot be had now.
    IdentityUnavailable = 38,
    /// The operator has blocked the address or the customer.
    Blocked = 39,
    /// The address or the customer asks more often than one may.
    RateLimited = 40,
    /// The sale asks for a human check, and the customer has not passed it.
    ChallengeRequired = 41,
    /// The challenge is not believed, was another's, has expired or was used; or its answer is wrong, or came too fast.
    ChallengeFailed = 42,
    /// More work waits than can be answered in time.
    Overloaded = 50,
    /// The key is bound to a purchase with another body.
    KeyReused = 60,
    /// The sale, or the taking of passes, has not opened.
    NotOpen = 70,
    /// The sale has closed.
    Closed = 71,
    /// The sale is paused.
    Paused = 72,
    /// The disk is full: no purchases, while payments and releases go on.
    StorageFull = 73,
    /// The pass has expired.
    PassExpired = 80,
    /// The customer's slot has not come.
    BeforeSlot = 81,
    /// The pass has been used for as many grants as it carries.
    PassSpent = 82,
    /// The customer holds as many units of the item as one may.
    LimitItemReached = 90,
    /// The customer holds as many units in the sale as one may.
    LimitSaleReached = 91,
    /// The customer was granted as many purchases in this sale as one may, ended ones included.
    GrantsExhausted = 92,
    /// The customer let as many holds go unpaid as one may.
    UnpaidReleases = 93,
    /// The coupon is not accepted in this sale, or has been used as often as it may be.
    CouponRefused = 100,
    /// Some units are free, but fewer than asked for.
    StockInsufficient = 110,
    /// No unit is free.
    SoldOut = 111,
    /// The decision was lost before it was recorded; nothing was granted under this key.
    Interrupted = 120,
    /// Nobody knows yet whether the request took effect; asking again with the same key tells.
    OutcomeUnknown = 121,
    /// The hold has already ended another way.
    HoldEnded = 130,
    /// The order is paid, so it can be cancelled by a refund only.
    OrderConfirmed = 131,
    /// Money came after the hold had ended and no unit can be retaken: it has to be refunded.
    RefundDue = 132,
    /// A payment is under way: it has to be ended at the provider first.
    PaymentOpen = 133,
    /// The order was tried to be paid as often as it may be.
    PaymentsExhausted = 134,
    /// No money of this order is with a provider.
    NothingToRefund = 135,
    /// A sale of this name exists.
    SaleExists = 140,
    /// The sale's definition contradicts itself.
    SaleInvalid = 141,
    /// The sale is in a phase that does not allow this.
    SalePhaseWrong = 142,
    /// Fewer units are free than should be withdrawn.
    StockUnavailable = 143,
    /// Without this token nobody could give out another.
    LastOwner = 144,
    /// The customer has a hold that is neither paid nor given back.
    HoldOpen = 145,
    /// What was sent as a picture cannot become one.
    PictureInvalid = 146,
    /// Something failed inside; it is logged under the request id.
    Internal = 150,
}

impl Refusal {
    /// All refusals in order of precedence.
    pub const ALL: [Self; 50] = [
        Self::Malformed,
        Self::BodyTooLarge,
        Self::MediaTypeUnsupported,
        Self::QuantityInvalid,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::PassInvalid,
        Self::PassForeign,
        Self::RoleInsufficient,
        Self::TicketInvalid,
        Self::OriginRefused,
        Self::NotEligible,
        Self::IdentityUnavailable,
        Self::Blocked,
        Self::RateLimited,
        Self::ChallengeRequired,
        Self::ChallengeFailed,
        Self::Overloaded,
        Self::KeyReused,
        Self::NotOpen,
        Self::Closed,
        Self::Paused,
        Self::StorageFull,
        Self::PassExpired,
        Self::BeforeSlot,
        Self::PassSpent,
        Self::LimitItemReached,
        Self::LimitSaleReached,
        Self::GrantsExhausted,
        Self::UnpaidReleases,
        Self::CouponRefused,
        Self::StockInsufficient,
        Self::SoldOut,
        Self::Interrupted,
        Self::OutcomeUnknown,
        Self::HoldEnded,
        Self::OrderConfirmed,
        Self::RefundDue,
        Self::PaymentOpen,
        Self::PaymentsExhausted,
        Self::NothingToRefund,
        Self::SaleExists,
        Self::SaleInvalid,
        Self::SalePhaseWrong,
        Self::StockUnavailable,
        Self::LastOwner,
        Self::HoldOpen,
        Self::PictureInvalid,
    ];

    /// The stable code in problems, metrics, notes and `docs/errors/`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BodyTooLarge => "body_too_large",
            Self::MediaTypeUnsupported => "media_type_unsupported",
            Self::QuantityInvalid => "quantity_invalid",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TokenInvalid => "token_invalid",
            Self::TokenExpired => "token_expired",
            Self::PassInvalid => "pass_invalid",
            Self::PassForeign => "pass_foreign",
            Self::RoleInsufficient => "role_insufficient",
            Self::TicketInvalid => "ticket_invalid",
            Self::OriginRefused => "origin_refused",
            Self::NotEligible => "not_eligible",
            Self::IdentityUnavailable => "identity_unavailable",
            Self::RateLimited => "rate_limited",
            Self::Blocked => "blocked",
            Self::ChallengeRequired => "challenge_required",
            Self::ChallengeFailed => "challenge_failed",
            Self::Overloaded => "overloaded",
            Self::KeyReused => "key_reused",
            Self::NotOpen => "not_open",
            Self::Closed => "closed",
            Self::Paused => "paused",
            Self::StorageFull => "storage_full",
            Self::PassExpired => "pass_expired",
            Self::BeforeSlot => "before_slot",
            Self::PassSpent => "pass_spent",
            Self::LimitItemReached => "limit_item_reached",
            Self::LimitSaleReached => "limit_sale_reached",
            Self::GrantsExhausted => "grants_exhausted",
            Self::UnpaidReleases => "unpaid_releases",
            Self::CouponRefused => "coupon_refused",
            Self::StockInsufficient => "stock_insufficient",
            Self::SoldOut => "sold_out",
            Self::Interrupted => "interrupted",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::HoldEnded => "hold_ended",
            Self::OrderConfirmed => "order_confirmed",
            Self::RefundDue => "refund_due",
            Self::PaymentOpen => "payment_open",
            Self::PaymentsExhausted => "payments_exhausted",
            Self::NothingToRefund => "nothing_to_refund",
            Self::SaleExists => "sale_exists",
            Self::SaleInvalid => "sale_invalid",
            Self::SalePhaseWrong => "sale_phase_wrong",
            Self::StockUnavailable => "stock_unavailable",
            Self::LastOwner => "last_owner",
            Self::HoldOpen => "hold_open",
            Self::PictureInvalid => "picture_invalid",
            Self::Internal => "internal",
        }
    }

    /// The refusal of that code.
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Internal]).find(|refusal| refusal.code() == code)
    }

    /// The HTTP status that carries it.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::QuantityInvalid | Self::SaleInvalid => 400,
            Self::TokenInvalid | Self::TokenExpired => 401,
            Self::PassInvalid
            | Self::PassForeign
            | Self::RoleInsufficient
            | Self::TicketInvalid
            | Self::OriginRefused
            | Self::NotEligible
            | Self::Blocked
            | Self::ChallengeRequired
            | Self::ChallengeFailed
            | Self::PassExpired => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::BodyTooLarge => 413,
            Self::MediaTypeUnsupported => 415,
            Self::KeyReused | Self::PictureInvalid => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::IdentityUnavailable | Self::Overloaded | Self::Paused | Self::StorageFull | Self::OutcomeUnknown => {
                503
            }
            Self::NotOpen
            | Self::Closed
            | Self::BeforeSlot
            | Self::PassSpent
            | Self::LimitItemReached
            | Self::LimitSaleReached
            | Self::GrantsExhausted
            | Self::UnpaidReleases
            | Self::CouponRefused
            | Self::StockInsufficient
            | Self::SoldOut
            | Self::Interrupted
            | Self::HoldEnded
            | Self::OrderConfirmed
            | Self::RefundDue
            | Self::PaymentOpen
            | Self::PaymentsExhausted
            | Self::NothingToRefund
            | Self::SaleExists
            | Self::SalePhaseWrong
            | Self::StockUnavailable
            | Self::LastOwner
            | Self::HoldOpen => 409,
        }
    }

    /// What happened and what to do, in one sentence for a person.
    pub fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request could not be read; see detail.",
            Self::BodyTooLarge => "The request's body is too large for this route.",
            Self::MediaTypeUnsupported => "Send the body as application/json.",
            Self::QuantityInvalid => "The quantity must be at least 1 and at most what one purchase may ask.",
            Self::NotFound => "There is nothing here for you.",
            Self::MethodNotAllowed => "This path does not take this method.",
            Self::TokenInvalid => "The access token is missing or not valid; sign in again.",
            Self::TokenExpired => "The access token has expired; sign in again.",
            Self::PassInvalid => "The pass is missing or not valid; take a new pass.",
            Self::PassForeign => "The pass belongs to another customer or sale; take your own.",
            Self::RoleInsufficient => "The role of this admin token does not allow this; use a token of another role.",
            Self::TicketInvalid => "The ticket of this stream is missing, over or used; take a new one.",
            Self::OriginRefused => "The page that sent this may not; the sale's operator can let it in.",
            Self::NotEligible => "This sale is not for your account; the shop says whom it is for.",
            Self::IdentityUnavailable => {
                "The access token cannot be checked right now; try again after the time given."
            }
            Self::RateLimited => "Too many requests; try again after the time given.",
            Self::Blocked => "You are blocked here; if a time is given, until then.",
            Self::ChallengeRequired => "This sale asks for a human check first; fetch a challenge and answer it.",
            Self::ChallengeFailed => "The human check was not passed; fetch a new challenge and try again.",
            Self::Overloaded => "Too busy to answer in time; try again after the time given.",
            Self::KeyReused => "This idempotency key belongs to a purchase with another body; use a new key.",
            Self::NotOpen => "Not open yet; try again at the time given.",
            Self::Closed => "The sale has closed.",
            Self::Paused => "The sale is paused; it may go on, so try again after the time given.",
            Self::StorageFull => "The engine cannot record purchases now; try again after the time given.",
            Self::PassExpired => "The pass has expired; take a new pass.",
            Self::BeforeSlot => "Your slot has not come yet; try again at the time given.",
            Self::PassSpent => "This pass has been used up; take a new pass.",
            Self::LimitItemReached => "You have as many of this item as one customer may have.",
            Self::LimitSaleReached => "You have as many items of this sale as one customer may have.",
            Self::GrantsExhausted => "You have reserved in this sale as often as one customer may.",
            Self::UnpaidReleases => "You let as many reservations go unpaid as one customer may.",
            Self::CouponRefused => "The coupon is not accepted in this sale, or is used up.",
            Self::StockInsufficient => "Fewer are left than you asked for; ask for fewer.",
            Self::SoldOut => "All units are reserved or sold; some may return while reservations are unpaid.",
            Self::Interrupted => "The request was interrupted before it took effect; send it again.",
            Self::OutcomeUnknown => "It is not known whether the request took effect; send it again with the same key.",
            Self::HoldEnded => "The reservation has already ended.",
            Self::OrderConfirmed => "The order is paid; it can no longer be cancelled here.",
            Self::RefundDue => "The reservation ended and no unit can be given; refund the payment.",
            Self::PaymentOpen => "A payment is under way; it is being ended at the provider, so try again in a moment.",
            Self::PaymentsExhausted => "The order was tried to be paid as often as it may be.",
            Self::NothingToRefund => "No payment of this order is at a provider; refund it where it was paid.",
            Self::SaleExists => "A sale of this name exists.",
            Self::SaleInvalid => "The sale's definition is not valid; see detail.",
            Self::SalePhaseWrong => "The sale is not in a phase that allows this.",
            Self::StockUnavailable => "Fewer units are free than should be withdrawn.",
            Self::LastOwner => "This is the last token of an owner; create another before you revoke it.",
            Self::HoldOpen => {
                "The customer has an open reservation; cancel or confirm it before you erase the customer."
            }
            Self::PictureInvalid => "The picture cannot be used; see detail.",
            Self::Internal => "Something failed inside; report the request id.",
        }
    }

    /// After how many seconds a retry makes sense, where that is known beforehand.
    pub fn retry_after_seconds(self) -> Option<u32> {
        match self {
            Self::Overloaded | Self::OutcomeUnknown | Self::Interrupted | Self::PaymentOpen => Some(1),
            Self::IdentityUnavailable => Some(2),
            Self::Paused | Self::StorageFull => Some(5),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    #[test]
    fn declaration_order_is_precedence_and_codes_are_unique() {
        for pair in Refusal::ALL.windows(2) {
            assert!((pair[0] as u16) < (pair[1] as u16), "{pair:?}");
        }
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::parse(refusal.code()), Some(refusal));
        }
    }
}
