//! Looking after what is under way: attempts that nobody reports, holds whose time is over, refunds.

use std::time::{Duration, Instant};

use admission::{Answer, Command, Grant, GrantStatus, Query, Request};
use domain::{AttemptStatus, PurchaseNumber, SalePhase, Stage, fault, limits};
use engine::Sale;
use futures_util::StreamExt as _;
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
    /// How it stood when it was last looked at, and whether its hold's time was over.
    seen: (AttemptStatus, bool),
}

impl Till {
    /// Looks after every sale, for ever. One of these is enough in a deployment; several do no harm.
    pub async fn run(&self) {
        loop {
            for sale in self.engine.sales() {
                self.look(&sale).await;
            }
            // What has been settled meanwhile is never looked at again.
            let long_ago = Instant::now().checked_sub(10 * TRY_AGAIN.1);
            self.patience().retain(|_, patience| long_ago.is_none_or(|long_ago| patience.next > long_ago));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Everything of a sale that is under way.
    async fn look(&self, sale: &Sale) {
        let mut from = PurchaseNumber(0);
        loop {
            // Whoever cannot answer now is asked in a second.
            let Some(Answer::Grants(grants)) = sale.owner.ask(Request::Read(Query::Unsettled { from })).await else {
                return;
            };
            let last = grants.last().map(|grant| grant.number);
            let is_last_page = grants.len() < limits::UNSETTLED_MAX;
            futures_util::stream::iter(grants).for_each_concurrent(CALLS_MAX, |grant| self.tend(sale, grant)).await;
            match last {
                Some(PurchaseNumber(last)) if !is_last_page => from = PurchaseNumber(last + 1),
                _ => return,
            }
        }
    }

    async fn tend(&self, sale: &Sale, grant: Grant) {
        for (attempt, status) in (0..).zip(&grant.attempts) {
            let is_over = self.is_over(sale, &grant);
            let seen = (*status, is_over);
            if !status.is_unsettled() || !self.is_due(sale, &grant, attempt, seen) {
                continue;
            }
            let outcome = match status {
                AttemptStatus::RefundDue => self.refund(sale, &grant, attempt).await,
                _ if is_over => self.end_attempt(sale, grant.number).await,
                _ => self.ask(sale, &grant, attempt).await,
            };
            if let Err(error) = &outcome {
                let sale = sale.name();
                tracing::warn!(sale, number = grant.number.0, attempt, %error, "a payment is looked at again later");
            }
            self.note(sale, &grant, attempt, outcome.is_err(), seen);
        }
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

    /// Whether an attempt's time has come: at once where something is to be done, later where a callback will tell.
    fn is_due(&self, sale: &Sale, grant: &Grant, attempt: u8, seen: (AttemptStatus, bool)) -> bool {
        let now = Instant::now();
        let waits = (AttemptStatus::Open, false);
        let mut all = self.patience();
        let entry = all.entry((sale.ordinal, grant.number, attempt));
        let patience = entry.or_insert(Patience { next: now + ASK_EVERY, failures: 0, seen: waits });
        now >= patience.next || seen != patience.seen
    }

    fn note(&self, sale: &Sale, grant: &Grant, attempt: u8, failed: bool, seen: (AttemptStatus, bool)) {
        let mut all = self.patience();
        let entry = all.entry((sale.ordinal, grant.number, attempt));
        let patience = entry.or_insert(Patience { next: Instant::now(), failures: 0, seen });
        patience.seen = seen;
        patience.failures = if failed { patience.failures + 1 } else { 0 };
        let pause = match patience.failures {
            0 => ASK_EVERY,
            failures => TRY_AGAIN.0.saturating_mul(1 << failures.min(6)).min(TRY_AGAIN.1),
        };
        patience.next = Instant::now() + pause;
    }
}
