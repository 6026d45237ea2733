//! Callbacks from a provider that signs by itself: twice, never, in any order, and after failures.

use payment::{FactState, RefundState, Told, Waiting};
use standin::{Behaviour, CallbackTarget, Outage, StandIn};

use crate::support::{Inbox, adapter, attempt, euros, standin, until};

async fn with_inbox(script: impl IntoIterator<Item = Behaviour>) -> (StandIn, Inbox, CallbackTarget) {
    let (standin, inbox) = (standin(script), Inbox::default());
    let target = inbox.open().await;
    (standin, inbox, target)
}

async fn all_delivered(standin: &StandIn) {
    until("everything is delivered", async || (standin.callbacks_waiting() == 0).then_some(())).await;
}

fn states(inbox: &Inbox) -> Vec<FactState> {
    let events = inbox.events.lock().unwrap();
    let state = |told: &Told| if let Told::Payment(fact) = told { Some(fact.state) } else { None };
    events.iter().filter_map(|event| state(&event.told)).collect()
}

#[tokio::test]
async fn each_behaviour_tells_what_it_should() {
    use FactState::{Cancelled, Open, Succeeded};
    let table = [
        (Behaviour::Plain, vec![Succeeded]),
        (Behaviour::Late(1), vec![Succeeded]),
        (Behaviour::CallbackTwice, vec![Succeeded, Succeeded]),
        (Behaviour::CallbackNever, vec![]),
        (Behaviour::Abandoned, vec![Cancelled]),
        (Behaviour::SuccessBeatsCancel, vec![Succeeded]),
        (Behaviour::Processing, vec![Open(Waiting::Provider)]),
    ];
    for (behaviour, expected) in table {
        let (standin, inbox, target) = with_inbox([behaviour]).await;
        standin.aim(target);
        let adapter = adapter(&standin);
        let reference = adapter.create(&attempt(0), euros(1_500)).await.unwrap().reference;
        if let Behaviour::Late(_) = behaviour {
            until("it is paid", async || {
                (!standin.books().captured.is_empty() && standin.books().captured["EUR"] > 0).then_some(())
            })
            .await;
        }
        drop(adapter.cancel(&reference).await.unwrap());
        all_delivered(&standin).await;
        assert_eq!(states(&inbox), expected, "{behaviour:?}");
    }
}

#[tokio::test]
async fn a_callback_that_comes_twice_is_the_same_event() {
    let (standin, inbox, target) = with_inbox([Behaviour::CallbackTwice]).await;
    standin.aim(target);
    adapter(&standin).create(&attempt(0), euros(1_500)).await.unwrap();
    all_delivered(&standin).await;
    let events = inbox.events.lock().unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0], events[1]);
}

#[tokio::test]
async fn declined_and_then_paid_are_two_events_in_any_order() {
    let (standin, inbox, target) = with_inbox([Behaviour::DeclinedThenPaid]).await;
    standin.aim(target);
    adapter(&standin).create(&attempt(0), euros(1_500)).await.unwrap();
    all_delivered(&standin).await;
    let mut states = states(&inbox);
    states.sort_by_key(|state| *state == FactState::Succeeded);
    assert_eq!(states, [FactState::Open(Waiting::Declined), FactState::Succeeded]);
}

#[tokio::test]
async fn a_callback_that_was_not_accepted_comes_again() {
    let (standin, inbox, target) = with_inbox([]).await;
    *inbox.failures.lock().unwrap() = 2;
    standin.aim(target);
    adapter(&standin).create(&attempt(0), euros(1_500)).await.unwrap();
    all_delivered(&standin).await;
    assert_eq!(inbox.len(), 1);
}

#[tokio::test]
async fn an_outage_delays_callbacks_and_loses_none() {
    let (standin, inbox, target) = with_inbox([Behaviour::Held]).await;
    let reference = adapter(&standin).create(&attempt(0), euros(1_500)).await.unwrap().reference;
    standin.outage(Outage::Refused);
    standin.aim(target);
    standin.release(&reference).unwrap();
    assert_eq!((standin.callbacks_waiting(), inbox.len()), (1, 0));
    standin.outage(Outage::None);
    all_delivered(&standin).await;
    assert_eq!(states(&inbox), [FactState::Succeeded]);
}

#[tokio::test]
async fn a_refund_is_told() {
    let (standin, inbox, target) = with_inbox([]).await;
    standin.aim(target);
    let adapter = adapter(&standin);
    let reference = adapter.create(&attempt(0), euros(1_500)).await.unwrap().reference;
    let refund = adapter.refund(&reference, euros(400), &attempt(0).refund(0)).await.unwrap();
    assert_eq!(refund.state, RefundState::Succeeded);
    all_delivered(&standin).await;
    let events = inbox.events.lock().unwrap();
    let refunded: Vec<u64> = events
        .iter()
        .filter_map(|event| if let Told::Payment(fact) = &event.told { Some(fact.refunded) } else { None })
        .filter(|refunded| *refunded > 0)
        .collect();
    assert_eq!(refunded, [400]);
}
