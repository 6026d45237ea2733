//! Payments at a provider that keeps books of its own: whatever it does, and whatever dies, both sides agree to the cent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use standin::{Behaviour, CallbackTarget, Customers, Outage, Plan, StandIn, StandInOptions};
use system_tests::{Customer, Reply, Request, Server, eventually, open_sale, until};

const SECRET_KEY: &str = "sk_test_of_the_tests";
const CALLBACK_SECRET: &str = "whsec_of_the_tests";

/// A server whose provider is the stand-in.
fn start(standin: &StandIn) -> Server {
    let server = Server::start_with(&settings(standin).each_ref().map(String::as_str));
    aim(standin, &server);
    server
}

fn settings(standin: &StandIn) -> [String; 5] {
    [
        "payment.provider=stripe".to_owned(),
        format!("payment.secret_key={SECRET_KEY}"),
        format!("payment.callback_secrets={CALLBACK_SECRET}"),
        format!("payment.base_url=http://{}", standin.address()),
        "payment.dangerous_plain_http=true".to_owned(),
    ]
}

/// Callbacks go to where the server listens now.
fn aim(standin: &StandIn, server: &Server) {
    let path = "/v1/payments/callbacks/stripe".to_owned();
    standin.aim(CallbackTarget { address: server.public(), path });
}

fn pay(customer: &Customer, order: &str) -> Reply {
    let request = Request::post(&format!("/v1/orders/{order}/payments"));
    customer.asks(request.json(&json!({ "return_url": "https://shop.test/thanks" })))
}

fn statuses(order: &Value) -> Vec<String> {
    let payments = order["payments"].as_array().cloned().unwrap_or_default();
    payments.iter().map(|payment| payment["status"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn an_order_is_paid_at_the_provider_and_refunded_there_once() {
    let mut options = StandInOptions::new(SECRET_KEY, CALLBACK_SECRET);
    options.customers = Customers::WhenAsked;
    let standin = StandIn::start(options).unwrap();
    let server = start(&standin);
    server.create(&open_sale("drop", 3));
    let (anna, ben) = (server.customer("anna", "drop"), server.customer("ben", "drop"));
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    pay(&ben, &order).is(404, "not_found");
    let begun = pay(&anna, &order).is(201, "");
    let secret = begun.text("client_secret");
    assert_eq!(pay(&anna, &order).is(201, "").text("client_secret"), secret, "the same payment again");
    assert_eq!(standin.books().payments.len(), 1);
    standin.pay(&secret).unwrap();
    until("the callback", || anna.order(&order).code() == "confirmed");
    pay(&anna, &order).is(409, "order_confirmed");
    // A forged callback, and a true one that was seen before.
    let forged = Request::post("/v1/payments/callbacks/stripe").header("stripe-signature", "t=1,v1=00").body(b"{}");
    forged.send(server.public()).is(400, "malformed");
    Request::post("/v1/payments/callbacks/sandbox").body(b"{}").send(server.public()).is(404, "not_found");
    server.operate(Request::post(&format!("/admin/v1/orders/{order}/refund"))).is(200, "confirmed");
    until("the refund", || statuses(&anna.order(&order).json()) == ["refunded"]);
    let books = standin.books();
    assert_eq!((books.captured["EUR"], books.refunded["EUR"], books.refunds.len()), (4_900, 4_900, 1));
    // A payment under way is ended there when the hold is given back.
    let second = anna.buy("boot", "key-2").is(201, "held").text("order");
    pay(&anna, &second).is(201, "");
    anna.cancel(&second).is(200, "released");
    assert_eq!(statuses(&anna.order(&second).json()), ["ended"]);
    assert!(!standin.books().payments.iter().any(|payment| payment.captured > payment.refunded));
}

#[test]
fn killed_between_a_refund_and_its_record_it_refunds_once() {
    let mut options = StandInOptions::new(SECRET_KEY, CALLBACK_SECRET);
    // Only what we ask tells us: no callback says that the money went back.
    options.plan = Plan { weights: vec![(Behaviour::CallbackNever, 1)], ..Plan::default() };
    options.customers = Customers::WhenAsked;
    let standin = StandIn::start(options).unwrap();
    let mut server = start(&standin);
    server.create(&open_sale("drop", 3));
    let anna = server.customer("anna", "drop");
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    standin.pay(&pay(&anna, &order).is(201, "").text("client_secret")).unwrap();
    // Nobody tells of it, and the shop cannot wait: it asks for an end, and hears that the money was faster.
    anna.cancel(&order).is(409, "order_confirmed");
    server.terminate();
    server.start_again_with(&["testing.dangerous_fault_point=refunded:1"]);
    server.operate(Request::post(&format!("/admin/v1/orders/{order}/refund"))).is(200, "confirmed");
    until("the kill", || server.has_ended().is_some());
    let refunded = |standin: &StandIn| (standin.books().refunded["EUR"], standin.books().refunds.len());
    assert_eq!(refunded(&standin), (4_900, 1), "the money is back");
    server.start_again();
    until("the record", || statuses(&anna.order(&order).json()) == ["refunded"]);
    assert_eq!(refunded(&standin), (4_900, 1));
}

/// So many customers pay while the provider does whatever providers do, is away for a while, and our process is killed.
#[test]
fn both_sides_agree_to_the_cent_through_outages_and_kills() {
    let seed = 20_261_125;
    eprintln!("seed {seed}");
    let mut options = StandInOptions::new(SECRET_KEY, CALLBACK_SECRET);
    options.plan = Plan { seed, weights: Behaviour::ALL.map(|behaviour| (behaviour, 1)).to_vec(), ..Plan::default() };
    let standin = StandIn::start(options).unwrap();
    let mut server = start(&standin);
    let mut definition = open_sale("drop", 1_000);
    (definition.hold_seconds, definition.hold_extension_seconds) = (8, 4);
    server.create(&definition);
    let mut orders = Vec::new();
    for round in 0..3 {
        if round == 1 {
            standin.outage(Outage::Unavailable);
        }
        let bought: Vec<_> = (0..30)
            .map(|number| {
                let customer = server.customer(&format!("customer-{round}-{number}"), "drop");
                let order = customer.buy("boot", "key").is(201, "held").text("order");
                (customer, order)
            })
            .collect();
        std::thread::scope(|scope| {
            for part in bought.chunks(8) {
                scope.spawn(move || {
                    // Nobody waits for a provider that is away or does not answer in time.
                    part.iter().for_each(|(customer, order)| drop(pay(customer, order)));
                });
            }
        });
        orders.extend(bought.into_iter().map(|(customer, order)| (customer.token, order)));
        if round == 1 {
            server.kill();
            standin.outage(Outage::None);
            server.start_again();
            aim(&standin, &server);
        }
    }
    let of = |order: &(String, String)| {
        Request::get(&format!("/v1/orders/{}", order.1)).bearer(&order.0).send(server.public()).json()
    };
    // Banks come to their end, and what is over is ended.
    eventually("an end of every hold and payment", || {
        standin.books().payments.iter().for_each(|payment| standin.release(&payment.reference).unwrap_or_default());
        let parked = parked(&server);
        let is_under_way = |order: &Value| {
            let open = statuses(order).iter().any(|status| status == "refund_due" || status == "open");
            order["status"] == "held" || (open && !parked.contains(order["order"].as_str().unwrap_or_default()))
        };
        (!orders.iter().map(of).any(|order| is_under_way(&order))).then_some(())
    });
    let told = orders.iter().map(|order| (order.1.clone(), of(order))).collect();
    compare(&standin, &told, &parked(&server));
}

/// Every payment at the provider has its place here, and as much of it.
fn compare(standin: &StandIn, told: &BTreeMap<String, Value>, parked: &BTreeSet<String>) {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for payment in standin.books().payments {
        let (order, attempt) = payment.key.split_once('.').expect("a payment has our name");
        let Some(order) = told.get(order) else { panic!("a payment for {order}, which nobody has") };
        let status = statuses(order)[attempt.parse::<usize>().unwrap()].clone();
        *seen.entry(format!("{status} {}", order["status"])).or_insert(0) += 1;
        match status.as_str() {
            "paid" => assert_eq!((payment.captured, payment.refunded, payment.currency.as_str()), (4_900, 0, "EUR")),
            "refunded" => assert_eq!(payment.captured, payment.refunded, "{payment:?}"),
            "ended" => assert_eq!(payment.captured, 0, "{payment:?}"),
            // Somebody has to look: its money has no place here.
            _ => assert!(parked.contains(order["order"].as_str().unwrap()), "{payment:?}"),
        }
    }
    let has = |status: &str| seen.keys().any(|kind| kind.starts_with(status));
    assert!(has("paid") && has("ended"), "{seen:?}");
}

/// Orders with a report that did not fit them, as the shop is told.
fn parked(server: &Server) -> BTreeSet<String> {
    let (mut parked, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let page = server.operate(Request::get(&format!("/admin/v1/feed?limit=500{cursor}"))).json();
        let events = page["events"].as_array().cloned().unwrap_or_default();
        if events.is_empty() {
            return parked;
        }
        let of_order = |event: &Value| event["data"]["order"].as_str().map(str::to_owned);
        parked.extend(events.iter().filter(|event| event["type"] == "payment_parked").filter_map(of_order));
        cursor = format!("&after={}", page["next_cursor"].as_str().unwrap_or_default());
    }
}
