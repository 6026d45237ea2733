//! Customers of a cluster pay at a provider: whichever process dies, and although every worker looks after all payments, both sides
//! agree to the cent, in the books of each worker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use standin::{Behaviour, Customers, Outage, Plan, StandIn};
use system_tests::cluster::Cluster;
use system_tests::paying::{MoneyBooks, aim, compare, pay, pay_request, provider_options, provider_settings, statuses};
use system_tests::{Customer, Request, eventually_within, open_sale, until};

const WORKERS: [&str; 2] = ["worker-1", "worker-2"];
/// Who go to pay while one process is killed.
const ROUND: usize = 30;
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// A cluster whose customers pay at the stand-in, which calls back at the first gate.
fn paid_at(standin: &StandIn, cluster: &mut Cluster) {
    cluster.give(provider_settings(standin).to_vec());
    aim(standin, cluster.node("gate-1").public.expect("a gate serves customers"));
}

#[test]
fn a_worker_a_gate_and_a_relay_are_killed_and_both_sides_agree_to_the_cent() {
    let mut cluster = Cluster::lock();
    let (seed, sale) = (20_261_127, "provider-kills");
    eprintln!("seed {seed}");
    let weights = [
        (Behaviour::Plain, 8),
        (Behaviour::Late(1_500), 2),
        (Behaviour::CallbackTwice, 2),
        (Behaviour::CallbackNever, 2),
        (Behaviour::AnswerLost, 2),
        (Behaviour::DeclinedThenPaid, 2),
        (Behaviour::OtherAmount, 1),
        (Behaviour::SuccessBeatsCancel, 2),
        (Behaviour::Abandoned, 1),
    ];
    let mut options = provider_options();
    options.plan = Plan { seed, weights: weights.to_vec(), ..Plan::default() };
    let standin = StandIn::start(options).unwrap();
    paid_at(&standin, &mut cluster);
    let mut definition = open_sale(sale, 1_000);
    (definition.hold_seconds, definition.hold_extension_seconds) = (12, 6);
    cluster.create(&definition);
    let (mut orders, mut notes) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let gate = ["gate-1", "gate-2"][round % 2];
        let (bought, noted) = buy(&mut cluster, gate, sale, round * ROUND..(round + 1) * ROUND);
        let victim = ["worker-1", "gate-1", cluster.relay_of(sale)][round];
        pay_while(&cluster.gates().0, &bought, || {
            let begun = standin.books().payments.len();
            until("payments under way", || standin.books().payments.len() >= begun + ROUND / 4);
            cluster.kill_node(victim);
            eprintln!("{victim} is killed, {} payments are made", standin.books().payments.len());
        });
        cluster.start_node(victim);
        orders.extend(bought);
        notes.push(noted);
    }
    agree(&mut cluster, &standin, sale, &orders, &notes);
}

/// Nobody asks the provider: callbacks at a gate are enough. A hold that nobody pays ends meanwhile, and the paid ones do not.
#[test]
fn without_any_worker_what_is_paid_in_time_is_not_released() {
    let mut cluster = Cluster::lock();
    let sale = "provider-alone";
    let standin = StandIn::start(provider_options()).unwrap();
    paid_at(&standin, &mut cluster);
    let mut definition = open_sale(sale, 10);
    definition.hold_seconds = 5;
    cluster.create(&definition);
    WORKERS.iter().for_each(|worker| cluster.kill_node(worker));
    let (bought, notes) = buy(&mut cluster, "gate-2", sale, 0..6);
    let (pays, idle) = bought.split_at(5);
    pays.iter().for_each(|(customer, order)| drop(pay(customer, order).is(201, "")));
    until("the end of the hold that nobody pays", || idle[0].0.order(&idle[0].1).code() == "released");
    pays.iter().for_each(|(customer, order)| drop(customer.order(order).is(200, "confirmed")));
    agree(&mut cluster, &standin, sale, &bought, &[notes]);
}

/// Both workers give the same money back at the same time, and neither can say so in the chain: it goes back once.
#[test]
fn two_workers_at_one_refund_give_back_once() {
    let mut cluster = Cluster::lock();
    let sale = "provider-refunds";
    let mut options = provider_options();
    options.plan = Plan { weights: vec![(Behaviour::CallbackNever, 1)], ..Plan::default() };
    options.customers = Customers::WhenAsked;
    let standin = StandIn::start(options).unwrap();
    paid_at(&standin, &mut cluster);
    cluster.create(&open_sale(sale, 10));
    let (bought, notes) = buy(&mut cluster, "gate-2", sale, 0..3);
    for (customer, order) in &bought {
        standin.pay(&pay(customer, order).is(201, "").text("client_secret")).unwrap();
        // Nobody tells of it; whoever asks for an end hears that the money was faster.
        customer.cancel(order).is(409, "order_confirmed");
    }
    standin.outage(Outage::Unavailable);
    let (gate, _) = cluster.gate("gate-1");
    for (_, order) in &bought {
        gate.operate(Request::post(&format!("/admin/v1/orders/{order}/refund"))).is(200, "confirmed");
    }
    for relay in ["relay-1", "relay-2"] {
        cluster.signal_node(relay, Signal::STOP);
    }
    standin.outage(Outage::None);
    until("the refunds", || standin.books().refunds.len() == bought.len());
    let said = WORKERS.map(|worker| cluster.log(worker).len());
    for (worker, said) in WORKERS.into_iter().zip(said) {
        until(&format!("{worker}, who cannot note a refund"), || {
            cluster.log(worker)[said..].contains("a payment is looked at again later")
        });
    }
    for relay in ["relay-1", "relay-2"] {
        cluster.signal_node(relay, Signal::CONT);
    }
    agree(&mut cluster, &standin, sale, &bought, &[notes]);
    let books = standin.books();
    assert_eq!((books.payments.len(), books.refunds.len()), (bought.len(), bought.len()));
    assert_eq!(books.captured, books.refunded);
}

/// Customers with these numbers, each with a unit from that gate, and the file of their notes.
fn buy(
    cluster: &mut Cluster,
    gate: &str,
    sale: &str,
    numbers: std::ops::Range<usize>,
) -> (Vec<(Customer, String)>, PathBuf) {
    let (gate, notes) = cluster.gate(gate);
    let bought = numbers.map(|number| {
        let customer = gate.customer(&format!("customer-{number}"), sale);
        let order = customer.buy("boot", "key").is(201, "held").text("order");
        (customer, order)
    });
    let bought = bought.collect();
    gate.flush_notes();
    (bought, notes)
}

/// All go to pay, a few at a time, while something happens; who hears nothing from one gate asks the other.
fn pay_while(gates: &[SocketAddr], bought: &[(Customer, String)], happens: impl FnOnce()) {
    std::thread::scope(|scope| {
        for part in bought.chunks(ROUND / 5) {
            scope.spawn(move || {
                for (customer, order) in part {
                    let request = pay_request(order).bearer(&customer.token);
                    gates.iter().find_map(|gate| request.try_send(*gate).ok());
                }
            });
        }
        happens();
    });
}

/// Waits until nothing is under way, and compares the provider's books with those of each worker.
fn agree(cluster: &mut Cluster, standin: &StandIn, sale: &str, orders: &[(Customer, String)], notes: &[PathBuf]) {
    cluster.heal();
    let books = |cluster: &Cluster, worker: &str| MoneyBooks::read(&cluster.node(worker).data, sale);
    eventually_within(SETTLED_WITHIN, "an end of every hold and payment", || {
        let is_settled = |worker: &&str| {
            let known = cluster.sale_at(worker, sale).unwrap_or_default();
            let none_is_held =
                known["counts"].as_array().is_some_and(|items| items.iter().all(|item| item["held"] == 0));
            none_is_held && known["books_lag"] == 0 && books(cluster, worker).under_way == 0
        };
        WORKERS.iter().all(is_settled).then_some(())
    });
    let gate = cluster.node("gate-2").public.expect("a gate serves customers");
    let ask = |(customer, order): &(Customer, String)| {
        let request = Request::get(&format!("/v1/orders/{order}")).bearer(&customer.token);
        (order.clone(), request.send(gate).json())
    };
    let told: BTreeMap<String, Value> = orders.iter().map(ask).collect();
    assert!(told.values().all(|order| statuses(order).len() <= 1), "nobody has paid twice");
    for worker in WORKERS {
        eprintln!("{worker}: {:?}", compare(&standin.books(), &told, &books(cluster, worker)));
    }
    let notes: Vec<&Path> = notes.iter().map(PathBuf::as_path).collect();
    cluster.judge(sale, &notes);
}
