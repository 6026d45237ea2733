//! Every call of the adapter against a provider with books of its own, in every way in which a payment can go.

use std::time::Duration;

use domain::ParkReason;
use payment::{Expected, FactState, Judged, PayWith, ProviderError, RefundState, Secret, Stripe, Waiting, judge};
use standin::{Behaviour, Outage, State};

use crate::support::{adapter, attempt, euros, options, standin, until};

#[tokio::test]
async fn a_payment_is_created_paid_and_given_back_to_the_cent() {
    let standin = standin([Behaviour::Held]);
    let adapter = adapter(&standin);
    let key = attempt(0);
    let created = adapter.create(&key, euros(1_500)).await.unwrap();
    let PayWith::ClientSecret(secret) = &created.pay_with else { panic!("the customer pays with a secret") };
    assert!(secret.expose().starts_with(&created.reference));
    let open = adapter.fetch(&created.reference).await.unwrap();
    assert_eq!((open.state, open.key.as_ref()), (FactState::Open(Waiting::Customer), Some(&key)));
    standin.release(secret.expose()).unwrap();
    let paid = adapter.fetch(&created.reference).await.unwrap();
    assert_eq!(judge(&paid, &Expected { key: &key, money: euros(1_500), live: false }), Judged::Paid);
    let part = adapter.refund(&created.reference, euros(1_000), &key.refund(0)).await.unwrap();
    assert_eq!((part.state, part.money, part.key), (RefundState::Succeeded, euros(1_000), Some(key.refund(0))));
    let rest = adapter.refund(&created.reference, euros(500), &key.refund(1)).await.unwrap();
    assert_eq!(rest.payment.as_deref(), Some(created.reference.as_str()));
    assert_eq!(adapter.fetch(&created.reference).await.unwrap().refunded, 1_500);
    let books = standin.books();
    assert_eq!((books.captured["EUR"], books.refunded["EUR"]), (1_500, 1_500));
}

#[tokio::test]
async fn repeating_a_creation_makes_no_second_payment() {
    let standin = standin([]);
    let adapter = adapter(&standin);
    let first = adapter.create(&attempt(0), euros(1_500)).await.unwrap();
    assert_eq!(adapter.create(&attempt(0), euros(1_500)).await.unwrap(), first);
    let other = adapter.create(&attempt(0), euros(1_501)).await;
    assert!(matches!(&other, Err(ProviderError::Refused { code, .. }) if code == "idempotency_error"), "{other:?}");
    assert_ne!(adapter.create(&attempt(1), euros(1_500)).await.unwrap().reference, first.reference);
    assert_eq!(standin.books().payments.len(), 2);
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_repeated_call_finds_the_payment() {
    let standin = standin([Behaviour::AnswerLost, Behaviour::AnswerHangs]);
    let adapter = adapter(&standin);
    let mut impatient = options(standin.address());
    impatient.client.time_max = Duration::from_millis(500);
    let impatient = Stripe::new(impatient).unwrap();
    for (number, hasty) in [(0, &adapter), (1, &impatient)] {
        let error = hasty.create(&attempt(number), euros(1_500)).await.unwrap_err();
        assert!(matches!(error, ProviderError::Unknown(_)), "{error}");
        assert!(!error.is_definite() && error.may_repeat());
        let created = adapter.create(&attempt(number), euros(1_500)).await.unwrap();
        assert_eq!(adapter.fetch(&created.reference).await.unwrap().state, FactState::Succeeded);
    }
    assert_eq!(standin.books().payments.len(), 2);
}

#[tokio::test]
async fn cancelling_gives_what_became_of_the_payment() {
    use FactState::{Cancelled, Open, Succeeded};
    let table = [
        (Behaviour::Abandoned, Cancelled, State::Cancelled),
        (Behaviour::SuccessBeatsCancel, Succeeded, State::Succeeded),
        (Behaviour::Plain, Succeeded, State::Succeeded),
        (Behaviour::Processing, Open(Waiting::Provider), State::Processing),
    ];
    let standin = standin(table.map(|(behaviour, ..)| behaviour));
    let adapter = adapter(&standin);
    for (number, (behaviour, state, booked)) in (0..).zip(table) {
        let reference = adapter.create(&attempt(number), euros(1_500)).await.unwrap().reference;
        for time in ["first", "second"] {
            let fact = adapter.cancel(&reference).await.unwrap();
            assert_eq!((fact.state, fact.key), (state, Some(attempt(number))), "{behaviour:?}, {time} time");
        }
        assert_eq!(standin.books().payments[usize::from(number)].state, booked, "{behaviour:?}");
    }
    // What was processed too long succeeds after all.
    let reference = standin.books().payments[3].reference.clone();
    standin.release(&reference).unwrap();
    assert_eq!(adapter.fetch(&reference).await.unwrap().state, Succeeded);
    assert!(standin.release(&standin.books().payments[0].reference).is_err(), "what was cancelled is never paid");
}

#[tokio::test]
async fn what_contradicts_our_records_is_parked() {
    let table = [
        (Behaviour::OtherAmount, ParkReason::WrongAmount),
        (Behaviour::OtherCurrency, ParkReason::WrongCurrency),
        (Behaviour::OtherMode, ParkReason::WrongMode),
        (Behaviour::OtherOrder, ParkReason::WrongOrder),
    ];
    let standin = standin(table.map(|(behaviour, _)| behaviour));
    let adapter = adapter(&standin);
    for (number, (behaviour, reason)) in (0..).zip(table) {
        let key = attempt(number);
        let reference = adapter.create(&key, euros(1_500)).await.unwrap().reference;
        let fact = adapter.fetch(&reference).await.unwrap();
        let judged = judge(&fact, &Expected { key: &key, money: euros(1_500), live: adapter.is_live() });
        assert_eq!(judged, Judged::Parked(reason), "{behaviour:?}");
    }
}

#[tokio::test]
async fn refunds_happen_once_under_their_key_and_never_exceed_what_was_captured() {
    let standin = standin([Behaviour::Plain, Behaviour::Abandoned]);
    let adapter = adapter(&standin);
    let paid = adapter.create(&attempt(0), euros(1_500)).await.unwrap().reference;
    let open = adapter.create(&attempt(1), euros(1_500)).await.unwrap().reference;
    let once = adapter.refund(&paid, euros(1_000), &attempt(0).refund(0)).await.unwrap();
    assert_eq!(adapter.refund(&paid, euros(1_000), &attempt(0).refund(0)).await.unwrap(), once);
    standin.forget_keys();
    let days_later = adapter.refund(&paid, euros(400), &attempt(0).refund(0)).await.unwrap();
    assert_eq!(days_later, once, "the provider has forgotten the key, and still nothing goes back twice");
    for (reference, amount, key) in [
        (&paid, 501, attempt(0).refund(1)),
        (&open, 1, attempt(1).refund(0)),
        (&"pi_unknown".to_owned(), 1, attempt(2).refund(0)),
    ] {
        let error = adapter.refund(reference, euros(amount), &key).await.unwrap_err();
        assert!(matches!(error, ProviderError::Refused { .. }), "{error}");
        assert!(error.is_definite() && !error.may_repeat());
    }
    assert_eq!(standin.books().refunded["EUR"], 1_000);
}

#[tokio::test]
async fn an_outage_says_what_is_known_of_the_outcome_and_passes() {
    let standin = standin([]);
    let adapter = adapter(&standin);
    let reference = adapter.create(&attempt(0), euros(1_500)).await.unwrap().reference;
    standin.outage(Outage::Unavailable);
    let error = adapter.create(&attempt(1), euros(1_500)).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unknown(_)), "{error}");
    standin.outage(Outage::Refused);
    // A connection that was kept may be seen to end only when it is used.
    let error = until("nobody listens", async || match adapter.fetch(&reference).await {
        Err(error @ ProviderError::NotReached(_)) => Some(error),
        _ => None,
    })
    .await;
    assert!(error.is_definite() && error.may_repeat());
    standin.outage(Outage::None);
    assert_eq!(adapter.fetch(&reference).await.unwrap().state, FactState::Succeeded);
    assert_eq!(standin.books().payments.len(), 1, "the outage took nothing in");
}

#[tokio::test]
async fn a_wrong_key_is_told_without_showing_it() {
    let standin = standin([]);
    let mut options = options(standin.address());
    options.secret_key = Secret::new("sk_test_hidden");
    let error = Stripe::new(options).unwrap().create(&attempt(0), euros(1_500)).await.unwrap_err();
    assert!(matches!(error, ProviderError::NotReached(_)), "{error}");
    let told = format!("{error} {error:?}");
    assert!(told.contains("payment.secret_key") && !told.contains("hidden"), "{told}");
}

#[tokio::test]
async fn what_is_no_reference_is_never_sent() {
    let standin = standin([]);
    let adapter = adapter(&standin);
    for reference in ["", "pi_1/cancel", "pi_1?x=y", "../v1/refunds", "pi_1\r\nHost: x", "pi 1"] {
        for error in [
            adapter.fetch(reference).await.unwrap_err(),
            adapter.cancel(reference).await.unwrap_err(),
            adapter.refund(reference, euros(1), &attempt(0).refund(0)).await.unwrap_err(),
        ] {
            assert!(error.to_string().contains("nothing was sent"), "{reference:?}: {error}");
        }
    }
}
