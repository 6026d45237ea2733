//! What a provider says of a payment or a refund, in our words. Saying it does not make it right: see [`crate::judge`].

use domain::Money;

use crate::key::{AttemptKey, RefundKey};

/// What a provider says of one payment, at the moment when it said it. Facts arrive in any order, so an older one may come later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The provider's own name of the payment.
    pub reference: String,
    /// The attempt whose name the provider keeps with it. `None`: it keeps none of ours, so it belongs to something else on the same
    /// account, or somebody changed it there.
    pub key: Option<AttemptKey>,
    /// What was captured if it succeeded, else what was asked for.
    pub money: Money,
    /// Real money; `false` in the provider's test mode.
    pub live: bool,
    /// Where it stands.
    pub state: FactState,
    /// How much of it went back, in the same currency, as far as the provider said: callbacks about success say nothing and give 0.
    pub refunded: u64,
}

/// Where a payment stands at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactState {
    /// Neither paid nor ended; either may still come.
    Open(Waiting),
    /// The money was captured. Final; refunds come on top of it.
    Succeeded,
    /// Ended without money. Final: nobody can pay it any more.
    Cancelled,
}

/// Whom an open payment waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The customer, who has not tried yet or is in the middle of it.
    Customer,
    /// The customer, whose last try was declined. Not an end: the next try may succeed.
    Declined,
    /// The provider or a bank; it cannot be cancelled meanwhile.
    Provider,
}

/// What a provider says of one refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundFact {
    /// The provider's own name of the refund.
    pub reference: String,
    /// The provider's own name of the payment that it belongs to, where it said so.
    pub payment: Option<String>,
    /// Our name of it; `None` for one that somebody made by hand at the provider.
    pub key: Option<RefundKey>,
    /// What goes back.
    pub money: Money,
    /// Where it stands.
    pub state: RefundState,
}

/// Where a refund stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundState {
    /// Under way. The provider will say how it ended.
    Pending,
    /// On its way to the customer as far as the provider is concerned. A bank may still return it, so it can fail later.
    Succeeded,
    /// The money stayed with the shop or came back to it. Somebody has to look.
    Failed,
}
