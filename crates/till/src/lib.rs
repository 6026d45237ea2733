//! The till: brings payments at a provider and the chains of the sales together.
//!
//! `facts` weighs what a provider says and has admission decide it; nothing that was said is acknowledged before the chain has it.
//! `tend` looks after what is under way: it asks, ends what has had its time, and gives money back. What is under way it learns from
//! the chain alone, and every call to a provider has a name that follows from the order, so any number of tills may do the same work
//! at the same time, and one that dies leaves nothing behind.

mod facts;
mod tend;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use admission::{Command, Grant, Query, Request};
use domain::{AttemptStatus, Money, PurchaseNumber, Refusal, SaleOrdinal};
use engine::{Engine, Sale};
use gate::ids::shard_of;
use payment::{AttemptKey, Created, Event, EventError, Provider, ProviderError, Told};

use crate::tend::Patience;

/// Why something could not be done at the till.
#[derive(Debug, thiserror::Error)]
pub enum TillError {
    /// Admission refused, or nobody knows yet.
    #[error("{}", .0.title())]
    Refused(Refusal),
    /// The provider.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// A callback that cannot be believed or read.
    #[error(transparent)]
    Callback(#[from] EventError),
}

impl From<Refusal> for TillError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A payment that the customer can go on with.
#[derive(Debug)]
pub struct Payment {
    /// The attempt's number within the order.
    pub attempt: u8,
    /// What it costs.
    pub money: Money,
    /// What the provider gave.
    pub created: Created,
}

/// The till of one process.
pub struct Till {
    engine: Arc<Engine>,
    provider: Provider,
    /// Where each attempt that is under way is looked at again.
    patience: Mutex<HashMap<(SaleOrdinal, PurchaseNumber, u8), Patience>>,
    failures: AtomicU64,
}

impl Till {
    /// A till at this provider. [`Till::run`] has to run somewhere in the deployment.
    pub fn new(engine: Arc<Engine>, provider: Provider) -> Arc<Self> {
        Arc::new(Self { engine, provider, patience: Mutex::default(), failures: AtomicU64::new(0) })
    }

    /// Calls to the provider that did not do what was asked, since this process started.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The provider.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// Begins to pay an order, or goes on with the attempt that is open. The attempt stands in the chain before the provider hears of
    /// it, so whatever happens in between, its name finds it again. `None`: it costs nothing, and is paid.
    pub async fn begin(
        &self,
        sale: &Sale,
        number: PurchaseNumber,
        customer: domain::Pseudonym,
        return_url: &str,
    ) -> Result<Option<Payment>, TillError> {
        let begin = Command::BeginPayment { number, customer: Some(customer) };
        let look = Request::Read(Query::Order { number, customer: Some(customer) });
        let grant = grant_of(sale, look).await?;
        if grant.price == 0 && grant.status == admission::GrantStatus::Held {
            grant_of(sale, Request::Decide(Command::Confirm { number }, None)).await?;
            return Ok(None);
        }
        let grant = grant_of(sale, Request::Decide(begin, None)).await?;
        let attempt = open_attempt(&grant).ok_or(Refusal::HoldEnded)?;
        let created = self.created(sale, &grant, attempt, return_url).await?;
        Ok(Some(Payment { attempt, money: money(sale, &grant), created }))
    }

    /// Ends the attempt of an order that is open, at the provider. The order then stands as the provider says: it may be paid.
    pub async fn end_attempt(&self, sale: &Sale, number: PurchaseNumber) -> Result<(), TillError> {
        let grant = grant_of(sale, Request::Read(Query::Order { number, customer: None })).await?;
        let Some(attempt) = open_attempt(&grant) else { return Ok(()) };
        let reference = self.reference(sale, &grant, attempt).await?;
        let fact = self.told(self.provider.cancel(&reference).await)?;
        self.take_fact_of(sale, number, &self.key(sale, &grant, attempt), &fact).await
    }

    /// Takes a callback. When this returns `Ok`, the chain has what it says, or it says nothing to us.
    pub async fn receive(&self, header: &str, body: &[u8]) -> Result<(), TillError> {
        let Event { told, .. } = self.provider.receive(header, body, self.engine.now() / 1_000)?;
        match told {
            Told::Payment(fact) => self.take_fact(&fact).await,
            Told::Refund { fact, .. } => self.take_refund(&fact).await,
            Told::Nothing => Ok(()),
        }
    }

    /// The attempt's payment at the provider: made, or the one that was made before under its name.
    async fn created(&self, sale: &Sale, grant: &Grant, attempt: u8, return_url: &str) -> Result<Created, TillError> {
        let created = self.provider.create(&self.key(sale, grant, attempt), money(sale, grant), return_url).await;
        let created = self.told(created.and_then(|created| match is_name(&created.reference) {
            true => Ok(created),
            false => Err(ProviderError::Unknown("its name of the payment is one that no record can hold".to_owned())),
        }))?;
        let (number, reference) = (grant.number, created.reference.clone().into_bytes());
        grant_of(sale, Request::Decide(Command::NamePayment { number, attempt, reference }, None)).await?;
        Ok(created)
    }

    /// Counts what the provider did not do.
    pub(crate) fn told<T>(&self, outcome: Result<T, ProviderError>) -> Result<T, ProviderError> {
        if outcome.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// The provider's name of an attempt.
    async fn reference(&self, sale: &Sale, grant: &Grant, attempt: u8) -> Result<String, TillError> {
        match grant.references.get(usize::from(attempt)).filter(|reference| !reference.is_empty()) {
            Some(reference) => Ok(String::from_utf8_lossy(reference).into_owned()),
            // The process that began it died before it heard the name.
            None => Ok(self.created(sale, grant, attempt, "/").await?.reference),
        }
    }

    fn key(&self, sale: &Sale, grant: &Grant, attempt: u8) -> AttemptKey {
        let order = self.engine.ids.public_order(sale.ordinal, grant.number, shard_of(grant.customer));
        AttemptKey::new(&order, attempt).expect("an order's id is plain and short")
    }

    fn patience(&self) -> MutexGuard<'_, HashMap<(SaleOrdinal, PurchaseNumber, u8), Patience>> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attempt of a grant that is open, if one is.
fn open_attempt(grant: &Grant) -> Option<u8> {
    let open = grant.attempts.iter().position(|status| *status == AttemptStatus::Open)?;
    u8::try_from(open).ok()
}

/// What an order costs.
fn money(sale: &Sale, grant: &Grant) -> Money {
    Money { amount: grant.price, currency: sale.definition().currency }
}

/// What whoever decides the sale says about one grant. When another try makes sense, the till knows by itself.
async fn grant_of(sale: &Sale, request: Request) -> Result<Grant, Refusal> {
    sale.grant(request).await.map_err(|(refusal, _)| refusal)
}

/// Whether a record can hold what the provider calls a payment.
pub(crate) fn is_name(reference: &str) -> bool {
    !reference.is_empty() && chain::codec::is_reference(reference.as_bytes())
}
