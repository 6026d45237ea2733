//! Many payments that behave in every way at once, driven to their end; afterwards both sides' sums agree to the cent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::ParkReason;
use payment::{AttemptKey, Expected, Fact, FactState, Judged, ProviderError, Secret, Stripe, judge};
use standin::{Behaviour, Outage, Plan, StandIn, StandInOptions};

use crate::support::{CALLBACK_SECRET, SECRET_KEY, euros, options, until};

const PAYMENTS: u64 = 300;

/// Repeats a call as long as that may help.
async fn insist<T>(mut call: impl AsyncFnMut() -> Result<T, ProviderError>) -> T {
    until("an answer", async || match call().await {
        Ok(answer) => Some(answer),
        Err(error) if error.may_repeat() => None,
        Err(error) => panic!("{error}"),
    })
    .await
}

/// Takes one payment from its creation to an end that nothing can change any more.
async fn settle(adapter: Arc<Stripe>, standin: Arc<StandIn>, key: AttemptKey, price: u64) -> (Judged, Fact) {
    let reference = insist(async || adapter.create(&key, euros(price)).await).await.reference;
    let expected = Expected { key: &key, money: euros(price), live: false };
    let fact = until("an end", async || {
        let fact = insist(async || adapter.cancel(&reference).await).await;
        if fact.state == FactState::Open(payment::Waiting::Provider) {
            // The bank comes to its end between two looks.
            let _ = standin.release(&reference);
        }
        matches!(fact.state, FactState::Succeeded | FactState::Cancelled).then_some(fact)
    })
    .await;
    let judged = judge(&fact, &expected);
    // What has its money but no place goes back.
    if matches!(judged, Judged::Parked(_)) && fact.state == FactState::Succeeded {
        insist(async || adapter.refund(&reference, fact.money, &key.refund(0)).await).await;
    }
    (judged, fact)
}

#[tokio::test]
async fn both_sides_agree_to_the_cent_whatever_payments_do() {
    let seed = 20_261_127;
    eprintln!("seed {seed}");
    let mut plan = StandInOptions::new(SECRET_KEY, CALLBACK_SECRET);
    plan.plan = Plan { seed, weights: Behaviour::ALL.map(|behaviour| (behaviour, 1)).to_vec(), ..Plan::default() };
    let standin = Arc::new(StandIn::start(plan).unwrap());
    let mut impatient = options(standin.address());
    impatient.client.time_max = Duration::from_secs(1);
    impatient.secret_key = Secret::new(SECRET_KEY);
    let adapter = Arc::new(Stripe::new(impatient).unwrap());
    let price = |number: u64| 100 + number;
    let local = tokio::task::LocalSet::new();
    let settling: Vec<_> = (0..PAYMENTS)
        .map(|number| {
            let key = AttemptKey::new(&format!("or_{number}"), 0).unwrap();
            local.spawn_local(settle(Arc::clone(&adapter), Arc::clone(&standin), key, price(number)))
        })
        .collect();
    let outages = async {
        for outage in [Outage::Unavailable, Outage::Refused, Outage::None] {
            until("payments", async || (!standin.books().payments.is_empty()).then_some(())).await;
            standin.outage(outage);
        }
    };
    let (mut kept, mut seen) = (0, BTreeMap::new());
    local.run_until(outages).await;
    for (number, settled) in (0..).zip(settling) {
        let (judged, fact) = local.run_until(settled).await.unwrap();
        *seen.entry(format!("{judged:?}")).or_insert(0) += 1;
        if judged == Judged::Paid {
            assert_eq!(fact.money, euros(price(number)));
            kept += fact.money.amount;
        }
    }
    let books = standin.books();
    assert_eq!(books.payments.len() as u64, PAYMENTS, "one payment for each attempt");
    let left = |currency: &str| books.captured.get(currency).unwrap_or(&0) - books.refunded.get(currency).unwrap_or(&0);
    assert_eq!((left("EUR"), left("USD")), (kept, 0), "{seen:?}");
    let parked = [ParkReason::WrongMode, ParkReason::WrongOrder, ParkReason::WrongCurrency, ParkReason::WrongAmount];
    for verdict in parked.map(Judged::Parked).into_iter().chain([Judged::Paid, Judged::Ended]) {
        assert!(seen.contains_key(&format!("{verdict:?}")), "none was {verdict:?}: {seen:?}");
    }
}
