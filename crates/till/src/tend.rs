//! Looking after what is under way: attempts that nobody reports, holds whose time is over, refunds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use admission::{Answer, Command, Grant, GrantStatus, Query, Request};
use domain::{AttemptStatus, PurchaseNumber, SalePhase, Stage, fault, limits};
use engine::Sale;
use futures_util::stream::{self, Stream, StreamExt as _};
use payment::RefundState;

use crate::{Till, TillError, grant_of, money};

/// Between two looks at all sales.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Calls to the provider at a time.
const CALLS_MAX: usize = 32;
/// How long an attempt is left to its callback before the provider is asked, and between two questions; and the longest between two
/// tries after failures.
const ASK_EVERY: Duration = Duration::from_secs(15);
const TRY_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// When an attempt is looked at again.
pub(crate) struct Patience {
    next: Instant,
    failures: u32,
    /// When it was last looked at.
    urgency: Urgency,
    /// It is being looked at.
    is_under_way: bool,
}

/// What there is to do for an attempt. What becomes more urgent is looked at at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// A callback may tell more.
    Open,
    /// Nobody may pay any more.
    Over,
    /// Money has to go back.
    RefundDue,
}

/// An attempt whose time has come.
struct Due {
    sale: Arc<Sale>,
    grant: Grant,
    attempt: u8,
}

impl Till {
    /// Looks after every sale, for ever. One of these is enough in a deployment; several do no harm.
    pub async fn run(&self) {
        // A call that nobody answers takes one place of so many, and holds up nothing else.
        self.due().for_each_concurrent(CALLS_MAX, |due| self.tend(due)).await;
    }

    /// Everything whose time has come, sale by sale, again and again.
    fn due(&self) -> impl Stream<Item = Due> + '_ {
        let looks = stream::unfold((), |()| async {
            tokio::time::sleep(LOOK_EVERY).await;
            // What has been settled meanwhile is never looked at again.
            self.patience().retain(|_, patience| patience.next + 10 * TRY_AGAIN.1 > Instant::now());
            Some((stream::iter(self.engine.sales()), ()))
        });
        let grants = looks.flatten().flat_map(unsettled);
        grants.flat_map(|(sale, grant)| {
            let attempts = (0..).zip(&grant.attempts).filter(|(_, status)| status.is_unsettled());
            let due = attempts.filter(|(attempt, _)| self.take_if_due(&sale, &grant, *attempt));
            let due = due.map(|(attempt, _)| Due { sale: Arc::clone(&sale), grant: grant.clone(), attempt });
            stream::iter(due.collect::<Vec<_>>())
        })
    }

    async fn tend(&self, Due { sale, grant, attempt }: Due) {
        let urgency = self.urgency(&sale, &grant, attempt);
        let outcome = match urgency {
            Urgency::Open => self.ask(&sale, &grant, attempt).await,
            Urgency::Over => self.end_attempt(&sale, grant.number).await,
            Urgency::RefundDue => self.refund(&sale, &grant, attempt).await,
        };
        if let Err(error) = &outcome {
            let sale = sale.name();
            tracing::warn!(sale, number = grant.number.0, attempt, %error, "a payment is looked at again later");
        }
        self.note(&sale, &grant, attempt, (urgency, outcome.is_err()));
    }

    /// Whether nobody may pay any more: the hold is over, or the order is paid another way, or the sale is.
    fn is_over(&self, sale: &Sale, grant: &Grant) -> bool {
        let grace = sale.definition().grace_seconds * 1_000;
        let settles = sale.view().phase() == SalePhase::Settled;
        settles || grant.status != GrantStatus::Held || self.engine.now() >= grant.pay_by.0 + grace
    }

    async fn ask(&self, sale: &Sale, grant: &Grant, attempt: u8) -> Result<(), TillError> {
        let reference = self.reference(sale, grant, attempt).await?;
        let fact = self.told(self.provider().fetch(&reference).await)?;
        self.take_fact_of(sale, grant.number, &self.key(sale, grant, attempt), &fact).await
    }

    /// Gives money back. The refund has a name, so that it happens once however often it is asked for.
    async fn refund(&self, sale: &Sale, grant: &Grant, attempt: u8) -> Result<(), TillError> {
        let reference = self.reference(sale, grant, attempt).await?;
        let name = self.key(sale, grant, attempt).refund(0);
        let fact = self.told(self.provider().refund(&reference, money(sale, grant), &name).await)?;
        if fact.state == RefundState::Succeeded {
            fault::reach(Stage::Refunded);
            let note = Command::NoteRefund { number: grant.number, attempt };
            grant_of(sale, Request::Decide(note, None)).await?;
        }
        Ok(())
    }

    fn urgency(&self, sale: &Sale, grant: &Grant, attempt: u8) -> Urgency {
        match grant.attempts[usize::from(attempt)] {
            AttemptStatus::RefundDue => Urgency::RefundDue,
            _ if self.is_over(sale, grant) => Urgency::Over,
            _ => Urgency::Open,
        }
    }

    /// Whether an attempt's time has come; then it is under way until it is noted.
    fn take_if_due(&self, sale: &Sale, grant: &Grant, attempt: u8) -> bool {
        let now = Instant::now();
        let urgency = self.urgency(sale, grant, attempt);
        let first = if urgency == Urgency::Open { now + ASK_EVERY } else { now };
        let patience = Patience { next: first, failures: 0, urgency, is_under_way: false };
        let mut all = self.patience();
        let patience = all.entry((sale.ordinal, grant.number, attempt)).or_insert(patience);
        let is_taken = !patience.is_under_way && (now >= patience.next || urgency > patience.urgency);
        patience.is_under_way |= is_taken;
        is_taken
    }

    fn note(&self, sale: &Sale, grant: &Grant, attempt: u8, (urgency, has_failed): (Urgency, bool)) {
        let mut all = self.patience();
        let place = (sale.ordinal, grant.number, attempt);
        let failures = all.get(&place).map_or(0, |patience| patience.failures);
        let failures = if has_failed { failures + 1 } else { 0 };
        let pause = match failures {
            0 => ASK_EVERY,
            failures => TRY_AGAIN.0.saturating_mul(1 << failures.min(6)).min(TRY_AGAIN.1),
        };
        all.insert(place, Patience { next: Instant::now() + pause, failures, urgency, is_under_way: false });
    }
}

/// Every grant of a sale with money that may still come or has to go back. Whoever cannot answer now is asked at the next look.
fn unsettled(sale: Arc<Sale>) -> impl Stream<Item = (Arc<Sale>, Grant)> {
    let pages = stream::unfold((sale, Some(PurchaseNumber(0))), |(sale, from)| async move {
        let page = sale.owner.ask(Request::Read(Query::Unsettled { from: from? })).await;
        let Some(Answer::Grants(grants)) = page else { return None };
        let last = grants.last().filter(|_| grants.len() == limits::UNSETTLED_MAX);
        let next = last.map(|grant| PurchaseNumber(grant.number.0 + 1));
        let of_sale = Arc::clone(&sale);
        Some((stream::iter(grants).map(move |grant| (Arc::clone(&of_sale), grant)), (sale, next)))
    });
    pages.flatten()
}
