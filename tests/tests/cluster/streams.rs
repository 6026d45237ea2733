//! Streams of events at a gate: its ticket may come from another gate, and what it tells was decided elsewhere.

use rustix::process::Signal;
use system_tests::cluster::Cluster;
use system_tests::{Events, Request, open_sale};

#[test]
fn a_stream_of_one_gate_tells_what_happens_at_the_other() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("streams", 9));
    let ((here, notes), (there, _)) = (cluster.gate("gate-1"), cluster.gate("gate-2"));
    let anna = here.customer("anna", "streams");
    let bought = anna.buy("boot", "key").is(201, "held");
    let location = anna.take_ticket(&bought.text("purchase")).is(201, "").text("location");
    let mut stream = Events::open(there.public(), &location);
    assert_eq!(stream.next_event().unwrap().data["status"], "held");
    here.confirm(&bought.text("order")).is(200, "confirmed");
    let end = stream.next_event().unwrap();
    assert_eq!((&end.data["status"], &end.data["order"]), (&"confirmed".into(), &bought.text("order").into()));
    assert!(stream.next_event().is_none());
    here.flush_notes();
    cluster.judge("streams", &[&notes]);
}

#[test]
fn a_stream_of_a_pending_purchase_tells_so_and_then_what_became_of_it() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("pending-streams", 9));
    let ((here, notes), (there, _)) = (cluster.gate("gate-1"), cluster.gate("gate-2"));
    let anna = here.customer("anna", "pending-streams");
    // Without the stream nothing gets into the chain, whoever has decided it.
    cluster.servers.nats.processes.iter().for_each(|process| process.signal(Signal::STOP).unwrap());
    let asked = anna.attempt("boot", "key", 1).changed(|request| request.header("prefer", "respond-async")).send();
    let asked = asked.is(202, "pending");
    let proof = asked.text("location").split_once('?').unwrap().1.to_owned();
    let path = format!("/v1/purchases/{}/stream-tickets?{proof}", asked.text("purchase"));
    let mut streams: Vec<_> = [&here, &there]
        .map(|gate| Events::open(gate.public(), &anna.asks(Request::post(&path)).is(201, "").text("location")))
        .into();
    for stream in &mut streams {
        let first = stream.next_event().unwrap();
        assert_eq!((first.name.as_str(), &first.data["purchase"]), ("pending", &asked.text("purchase").into()));
    }
    cluster.servers.nats.processes.iter().for_each(|process| process.signal(Signal::CONT).unwrap());
    for stream in &mut streams {
        let granted = stream.next_event().unwrap();
        assert_eq!((granted.name.as_str(), &granted.data["status"]), ("purchase", &"held".into()));
    }
    let order = anna.purchase(&asked.text("purchase")).is(200, "held").text("order");
    anna.cancel(&order).is(200, "released");
    for stream in streams {
        assert_eq!(stream.rest().last().unwrap().data["status"], "released");
    }
    here.flush_notes();
    cluster.judge("pending-streams", &[&notes]);
}
