//! What a provider says, and what follows from it.

use std::sync::Arc;

use admission::{Command, Query, Request};
use domain::{AttemptStatus, ParkReason, ParkedPayment, PaymentFact, PurchaseNumber, Refusal, limits};
use engine::Sale;
use payment::{AttemptKey, Expected, Fact, FactState, Judged, RefundFact, RefundState, judge};

use crate::{Till, TillError, grant_of, is_name, money};

impl Till {
    /// Takes a fact that came by itself. One about nothing of ours is somebody else's.
    pub(crate) async fn take_fact(&self, fact: &Fact) -> Result<(), TillError> {
        let Some(key) = &fact.key else { return Ok(()) };
        let Some((sale, number)) = self.order_of(key)? else { return Ok(()) };
        self.take_fact_of(&sale, number, key, fact).await
    }

    /// The sale and the number of an attempt's order; `None` where the id is not ours.
    fn order_of(&self, key: &AttemptKey) -> Result<Option<(Arc<Sale>, PurchaseNumber)>, Refusal> {
        let Some((ordinal, number, _)) = self.engine.ids.parse_order(key.order()) else { return Ok(None) };
        // In a cluster another process may know a sale that this one does not yet; the provider tells again.
        let sale = self.engine.sale_by_ordinal(ordinal).ok_or(Refusal::OutcomeUnknown)?;
        Ok(Some((sale, number)))
    }

    /// Weighs a fact about an attempt and has it decided. One about an attempt that has its verdict says nothing new.
    pub(crate) async fn take_fact_of(
        &self,
        sale: &Sale,
        number: PurchaseNumber,
        key: &AttemptKey,
        fact: &Fact,
    ) -> Result<(), TillError> {
        let grant = grant_of(sale, Request::Read(Query::Order { number, customer: None })).await?;
        let attempt = key.attempt();
        let decide = |command| grant_of(sale, Request::Decide(command, None));
        let named = grant.references.get(usize::from(attempt)).filter(|reference| !reference.is_empty());
        if named.is_some_and(|named| named != fact.reference.as_bytes()) {
            // Another payment under this attempt's name: somebody edited or copied it at the provider.
            if fact.state == FactState::Succeeded {
                tracing::error!(
                    sale = sale.name(),
                    order = key.order(),
                    reference = fact.reference,
                    "INV-6: a payment came in the name of an attempt that is paid by another; somebody has to look at the provider"
                );
                decide(park(number, fact, ParkReason::WrongOrder)).await?;
            }
            return Ok(());
        }
        match grant.attempts.get(usize::from(attempt)) {
            Some(AttemptStatus::Open | AttemptStatus::Ended) => {}
            Some(_) => return Ok(()),
            None => {
                decide(park(number, fact, ParkReason::WrongOrder)).await?;
                return Ok(());
            }
        }
        if named.is_none() && is_name(&fact.reference) {
            let reference = fact.reference.clone().into_bytes();
            decide(Command::NamePayment { number, attempt, reference }).await?;
        }
        let expected = Expected { key, money: money(sale, &grant), live: self.provider.is_live() };
        let command = match judge(fact, &expected) {
            Judged::StillOpen => return Ok(()),
            Judged::Paid => Command::ReportPayment { number, attempt, fact: PaymentFact::Paid },
            Judged::Ended => Command::ReportPayment { number, attempt, fact: PaymentFact::Ended },
            Judged::Parked(reason) => park(number, fact, reason),
        };
        if let Command::ParkPayment { .. } = &command {
            let (reference, order) = (&fact.reference, key.order());
            tracing::error!(sale = sale.name(), order, reference, ?fact, "INV-6: a payment does not fit its order");
        }
        decide(command).await?;
        Ok(())
    }

    /// Notes that money went back, where we ordered it.
    pub(crate) async fn take_refund(&self, fact: &RefundFact) -> Result<(), TillError> {
        let Some(key) = fact.key.as_ref().map(|key| &key.attempt) else { return Ok(()) };
        let Some((sale, number)) = self.order_of(key)? else { return Ok(()) };
        let (order, attempt) = (key.order(), key.attempt());
        match fact.state {
            RefundState::Pending => {}
            RefundState::Failed => {
                tracing::error!(
                    sale = sale.name(),
                    order,
                    attempt,
                    "INV-6: a refund failed; somebody has to look at the provider"
                );
            }
            RefundState::Succeeded => {
                let note = Command::NoteRefund { number, attempt };
                match grant_of(&sale, Request::Decide(note, None)).await {
                    // It was not ordered by us, or it is noted already.
                    Ok(_) | Err(Refusal::NotFound) => {}
                    Err(refusal) => return Err(refusal.into()),
                }
            }
        }
        Ok(())
    }
}

fn park(number: PurchaseNumber, fact: &Fact, reason: ParkReason) -> Command {
    let amount = fact.money.amount.min(limits::INTEGER_MAX);
    let said = [
        fact.reference.as_bytes(),
        &[reason as u8],
        &fact.money.amount.to_le_bytes(),
        &fact.money.currency.0,
        &[u8::from(fact.live)],
    ];
    let mut front = [0; 8];
    front.copy_from_slice(&chain::batch::hash(&said)[..8]);
    let reference: Vec<u8> = fact.reference.bytes().filter(u8::is_ascii_graphic).collect();
    let reference = reference.into_iter().take(limits::PAYMENT_REFERENCE_BYTES_MAX).collect();
    let evidence = u64::from_le_bytes(front) & limits::INTEGER_MAX;
    let parked = ParkedPayment { reason, evidence, amount, currency: fact.money.currency, reference };
    Command::ParkPayment { number, parked: Box::new(parked) }
}
