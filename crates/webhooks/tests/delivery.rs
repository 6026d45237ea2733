//! The service on a real engine, with receivers as a shop may have them: slow, dead, failing, redirecting, endless, and back again.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use admission::{Answer as Decision, Command, PurchaseRequest, Request, Wish};
use chain::PrivatePart;
use domain::clock::SystemClock;
use domain::record::PauseReason;
use domain::{ChainTime, Currency, ItemDefinition, Pseudonym, PurchaseId, PurchaseNumber, SaleDefinition};
use engine::{Engine, EngineOptions, Sale};
use gate::{IdentityConfig, KeySet};
use ledger::Pace as BooksPace;
use services::receiver::{Answer, Received, Receiver};
use webhooks::{CallTimes, EndpointState, EventKind, NewEndpoint, Pace, WebhookError, WebhookOptions, Webhooks};

static MADE: AtomicU64 = AtomicU64::new(0);

/// An engine with one open sale, and the service that tells of it.
struct Deployment {
    folder: PathBuf,
    engine: Arc<Engine>,
    sale: Arc<Sale>,
    webhooks: Option<Webhooks>,
    bought: u32,
}

const QUICK: Pace = Pace {
    first: Duration::from_millis(20),
    longest: Duration::from_millis(100),
    give_up_after: Duration::from_secs(60),
};
const TIMES: CallTimes =
    CallTimes { connect: Duration::from_millis(500), whole: Duration::from_millis(500), idle: Duration::from_secs(15) };

impl Deployment {
    fn new() -> Self {
        Self::with(QUICK)
    }

    fn with(pace: Pace) -> Self {
        let own = std::env::current_exe().unwrap();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = own.parent().unwrap().join(format!("webhook-tests-{}-{number}", std::process::id()));
        let options = EngineOptions {
            cluster: None,
            identity: IdentityConfig {
                issuer: "none".to_owned(),
                audience: "none".to_owned(),
                secrets: Vec::new(),
                fixed_keys: KeySet::default(),
                keys_are_published: false,
                required_claims: Vec::new(),
                leeway_seconds: 0,
                guest_tokens: true,
            },
            keyring: None,
            books_pace: BooksPace::Unlimited,
            clock: Arc::new(SystemClock::new()),
            on_fatal: Arc::new(|reason| panic!("{reason}")),
        };
        let engine = Arc::new(Engine::start(&folder, options).unwrap());
        let sale = engine.create_sale(&definition(engine.now())).unwrap();
        let webhooks = Some(start(&engine, pace));
        Self { folder, engine, sale, webhooks, bought: 0 }
    }

    fn webhooks(&self) -> &Webhooks {
        self.webhooks.as_ref().unwrap()
    }

    fn add(&self, url: &str) -> String {
        self.add_for(url, &[EventKind::Held, EventKind::Confirmed, EventKind::Released])
    }

    fn add_for(&self, url: &str, events: &[EventKind]) -> String {
        let new = NewEndpoint { url: url.to_owned(), sales: Vec::new(), events: events.to_vec() };
        self.webhooks().add(new).unwrap().0.id
    }

    fn decide(&self, command: Command) {
        let part = PrivatePart { commitment: [0; 32], sealed: vec![0; 28] };
        let part = matches!(command, Command::Purchase(_)).then_some(part);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer = runtime.block_on(self.sale.owner.ask(Request::Decide(command, part))).unwrap();
        assert!(!matches!(answer, Decision::Refused { .. }), "{answer:?}");
    }

    /// Buys a unit for somebody new; gives the purchase's number.
    fn buy(&mut self) -> PurchaseNumber {
        let number = self.bought;
        self.bought += 1;
        let mark = |length: usize| number.to_be_bytes().into_iter().cycle().take(length).collect::<Vec<_>>();
        let wish = Wish {
            customer: Pseudonym(mark(16).try_into().unwrap()),
            item: 0,
            quantity: 1,
            coupon: 0,
            pass: u64::from(number),
            pass_expires_at: ChainTime(self.engine.now() + 60_000),
            slot_offset: 0,
        };
        let purchase = PurchaseId(mark(12).try_into().unwrap());
        let key_hash = mark(16).try_into().unwrap();
        self.decide(Command::Purchase(PurchaseRequest { wish, purchase, key_hash, body_hash: [0; 16] }));
        PurchaseNumber(number)
    }

    fn confirm(&self, number: PurchaseNumber) {
        self.decide(Command::Confirm { number });
    }

    /// The process starts again: the service forgets all that is not in its file.
    fn restart(&mut self, pace: Pace) {
        self.webhooks.take().unwrap().stop();
        self.webhooks = Some(start(&self.engine, pace));
    }

    fn state(&self, id: &str) -> EndpointState {
        self.webhooks().state(id).unwrap()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if let Some(webhooks) = &self.webhooks {
            webhooks.stop();
        }
        self.engine.stop();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn start(engine: &Arc<Engine>, pace: Pace) -> Webhooks {
    let options = WebhookOptions { loopback_allowed: true, pace, times: TIMES };
    Webhooks::start(Arc::clone(engine), options).unwrap()
}

fn definition(now: u64) -> SaleDefinition {
    SaleDefinition {
        sale: "drop".to_owned(),
        title: "A sale of the tests".to_owned(),
        currency: Currency(*b"EUR"),
        passes_open_at: ChainTime(now - 1_000),
        opens_at: ChainTime(now - 1_000),
        closes_at: ChainTime(now + 3_600_000),
        spread_milliseconds: 0,
        hold_seconds: 600,
        grace_seconds: 0,
        pass_seconds: 3_600,
        grants_per_pass_max: 1_000,
        grants_per_customer_max: 1_000,
        limit_per_customer: 1_000,
        resale_delay_milliseconds: 1_000,
        unpaid_releases_max: 1_000,
        hold_extension_seconds: 900,
        coupons: Vec::new(),
        external_id: None,
        test: false,
        settle_after_seconds: 3_600,
        items: vec![ItemDefinition {
            item: "boot".to_owned(),
            title: "Boot".to_owned(),
            stock: 10_000,
            price: 4_900,
            limit_per_customer: 1_000,
            sku: None,
            external_id: None,
            points: 0,
        }],
    }
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "still no sign of {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn id(call: &Received) -> String {
    call.header("webhook-id").to_owned()
}

fn distinct(calls: &[Received]) -> usize {
    calls.iter().map(id).collect::<BTreeSet<_>>().len()
}

fn order(call: &Received) -> String {
    call.json()["data"]["order"].as_str().unwrap_or_default().to_owned()
}

fn kind(call: &Received) -> String {
    call.json()["type"].as_str().unwrap_or_default().to_owned()
}

/// A receiver that answers with the status that stands in the switch.
fn switched(status: &Arc<AtomicU64>) -> Receiver {
    let status = Arc::clone(status);
    Receiver::start(move |_| Answer::Status(u16::try_from(status.load(Ordering::SeqCst)).unwrap())).unwrap()
}

#[test]
fn events_arrive_once_each_order_in_order_over_few_connections() {
    let mut shop = Deployment::new();
    let receiver = Receiver::start(|_| Answer::Status(204)).unwrap();
    let endpoint = shop.add(&receiver.url());
    for _ in 0..100 {
        let number = shop.buy();
        shop.confirm(number);
    }
    until("all events", || receiver.calls().len() >= 200);
    until("their notes", || shop.state(&endpoint).places[0].2 == 0);
    let calls = receiver.calls();
    assert_eq!((calls.len(), distinct(&calls)), (200, 200), "each event came once");
    for call in calls.iter().filter(|call| kind(call) == "confirmed") {
        let of_order: Vec<_> = calls.iter().filter(|other| order(other) == order(call)).map(kind).collect();
        assert_eq!(of_order, ["held", "confirmed"]);
    }
    let connections = calls.iter().map(|call| call.connection).max().unwrap() + 1;
    assert!(connections <= 8, "{connections} connections");
    for call in &calls {
        assert_eq!(call.target, "POST /hook");
        assert_eq!(call.header("content-type"), "application/json");
        assert_eq!(call.json()["id"], id(call));
        assert!(call.header("webhook-signature").starts_with("v1,"));
    }
}

#[test]
fn a_failed_event_comes_again_under_its_id_and_its_order_waits_while_others_go_on() {
    let mut shop = Deployment::new();
    let broken = Arc::new(AtomicBool::new(true));
    let first = Arc::new(Mutex::new(None::<String>));
    let (is_broken, is_first) = (Arc::clone(&broken), Arc::clone(&first));
    let receiver = Receiver::start(move |call| {
        let refused = is_first.lock().unwrap().get_or_insert_with(|| order(call)) == &order(call);
        Answer::Status(if refused && is_broken.load(Ordering::SeqCst) { 500 } else { 200 })
    });
    let receiver = receiver.unwrap();
    let endpoint = shop.add(&receiver.url());
    let failing = shop.buy();
    until("the first failure", || !receiver.calls().is_empty());
    shop.confirm(failing);
    for _ in 0..20 {
        let number = shop.buy();
        shop.confirm(number);
    }
    let refused = first.lock().unwrap().clone().unwrap();
    let others = || receiver.calls().iter().filter(|call| order(call) != refused).count();
    until("the other orders", || others() == 40);
    until("some more attempts", || receiver.calls().iter().filter(|call| order(call) == refused).count() >= 4);
    assert!(receiver.calls().iter().all(|call| order(call) != refused || kind(call) == "held"));
    // The place moves on while an order waits.
    until("both to wait", || shop.state(&endpoint).waiting == 2 && shop.state(&endpoint).places[0].2 == 0);
    broken.store(false, Ordering::SeqCst);
    until("nothing to wait", || shop.state(&endpoint).waiting == 0);
    let of_refused: Vec<_> = receiver.calls().into_iter().filter(|call| order(call) == refused).collect();
    assert_eq!(distinct(&of_refused), 2, "the same id at every attempt");
    assert_eq!(kind(of_refused.last().unwrap()), "confirmed");
    assert_eq!(others(), 40, "what was delivered does not come again");
}

#[test]
fn a_dead_or_slow_receiver_hurts_nobody_else_and_loses_nothing() {
    let mut shop = Deployment::new();
    let (open, slow) = (Arc::new((Mutex::new(false), Condvar::new())), Arc::new(AtomicU64::new(204)));
    let gate = Arc::clone(&open);
    let silent = Receiver::start(move |_| {
        let is_open = *gate.0.lock().unwrap();
        if is_open { Answer::Status(204) } else { Answer::Silence }
    });
    let (silent, well) = (silent.unwrap(), switched(&slow));
    let dead = {
        let once = Receiver::start(|_| Answer::Status(204)).unwrap();
        once.address()
    };
    let [slow, dead_one, well_one] =
        [silent.url(), format!("http://{dead}/hook"), well.url()].map(|url| shop.add(&url));
    for _ in 0..300 {
        shop.buy();
    }
    until("the well one's events", || well.calls().len() == 300);
    until("the well one's place", || shop.state(&well_one).places[0].2 == 0);
    for endpoint in [&slow, &dead_one] {
        until("failures", || shop.state(endpoint).last.1.is_some());
        let state = shop.state(endpoint);
        assert!(state.waiting <= 20, "{} wait: a receiver that is down is not called for all", state.waiting);
        assert!(state.places[0].2 > 200, "it falls behind instead");
    }
    assert!(silent.calls().len() < 60, "{} calls of a receiver that is down", silent.calls().len());
    assert!(shop.state(&slow).last.1.unwrap().contains("no answer within 0.5 s"));
    assert!(shop.state(&dead_one).last.1.unwrap().contains("refused"));
    *open.0.lock().unwrap() = true;
    let back = Receiver::start_at(dead, |_| Answer::Status(204)).unwrap();
    for (endpoint, receiver) in [(&slow, &silent), (&dead_one, &back)] {
        until("it to catch up", || shop.state(endpoint).places[0].2 == 0 && shop.state(endpoint).waiting == 0);
        assert_eq!(distinct(&receiver.calls()), 300);
    }
}

#[test]
fn an_answer_is_not_followed_and_not_read_to_its_end() {
    let mut shop = Deployment::new();
    let never = Receiver::start(|_| Answer::Status(204)).unwrap();
    let elsewhere = never.url();
    let redirecting = Receiver::start(move |_| Answer::Redirect(elsewhere.clone())).unwrap();
    let inward = Receiver::start(|_| Answer::Redirect("http://169.254.169.254/latest".to_owned())).unwrap();
    let endless = Receiver::start(|_| Answer::Endless).unwrap();
    let headless = Receiver::start(|_| Answer::EndlessHead).unwrap();
    let ids = [&redirecting, &inward, &endless, &headless].map(|receiver| shop.add(&receiver.url()));
    shop.buy();
    for id in &ids[..2] {
        until("the redirection", || shop.state(id).last.1.is_some());
        let state = shop.state(id);
        assert_eq!(state.last.0, Some(301));
        assert!(state.last.1.unwrap().contains("redirects are not followed"));
        until("it to wait", || shop.state(id).waiting == 1);
    }
    until("the endless one to be believed", || shop.state(&ids[2]).places[0].2 == 0);
    assert_eq!((shop.state(&ids[2]).last.0, shop.state(&ids[2]).waiting), (Some(200), 0));
    until("the endless head to fail", || shop.state(&ids[3]).last.1.is_some());
    assert!(never.calls().is_empty(), "a redirection was followed");
}

#[test]
fn an_event_without_success_is_parked_with_its_reason_and_can_be_taken_up() {
    let status = Arc::new(AtomicU64::new(503));
    let mut shop = Deployment::with(Pace { give_up_after: Duration::from_millis(200), ..QUICK });
    let receiver = switched(&status);
    let endpoint = shop.add(&receiver.url());
    let number = shop.buy();
    until("it to be parked", || shop.state(&endpoint).parked == 1);
    let state = shop.state(&endpoint);
    assert_eq!((state.waiting, state.parked_reason.as_deref()), (0, Some("answered 503")));
    status.store(200, Ordering::SeqCst);
    // The order goes on without it.
    shop.confirm(number);
    until("the next event of the order", || receiver.calls().last().is_some_and(|call| kind(call) == "confirmed"));
    // Else it would come again, behind the parked one.
    until("its note", || shop.state(&endpoint).places[0].2 == 0);
    shop.webhooks().replay(&endpoint, None).unwrap();
    until("the parked event", || receiver.calls().last().is_some_and(|call| kind(call) == "held"));
    until("no parked one", || shop.state(&endpoint).parked == 0 && shop.state(&endpoint).waiting == 0);
    assert_eq!(distinct(&receiver.calls()), 2);
}

#[test]
fn a_restart_goes_on_where_the_file_stands_and_without_the_file_the_ids_are_the_same() {
    let status = Arc::new(AtomicU64::new(500));
    let mut shop = Deployment::new();
    let receiver = switched(&status);
    let endpoint = shop.add(&receiver.url());
    for _ in 0..3 {
        shop.buy();
    }
    until("them to wait", || shop.state(&endpoint).waiting == 3);
    shop.restart(QUICK);
    let before = receiver.calls().len();
    until("the attempts to go on", || receiver.calls().len() > before);
    status.store(200, Ordering::SeqCst);
    until("nothing to wait", || shop.state(&endpoint).waiting == 0);
    let ids: BTreeSet<_> = receiver.calls().iter().map(id).collect();
    assert_eq!(ids.len(), 3);
    shop.webhooks.take().unwrap().stop();
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(shop.folder.join(format!("webhooks.sqlite{ending}")));
    }
    shop.webhooks = Some(start(&shop.engine, QUICK));
    assert!(shop.webhooks().list().unwrap().is_empty());
    let before = receiver.calls().len();
    let endpoint = shop.add(&receiver.url());
    let oldest = ChainTime(0);
    shop.webhooks().replay(&endpoint, Some(oldest)).unwrap();
    until("all of them again", || receiver.calls().len() == before + 3);
    let again: BTreeSet<_> = receiver.calls()[before..].iter().map(id).collect();
    assert_eq!(again, ids, "the same events have the same ids");
}

#[test]
fn a_new_endpoint_is_told_what_happens_from_then_on() {
    let mut shop = Deployment::new();
    shop.buy();
    let receiver = Receiver::start(|_| Answer::Status(200)).unwrap();
    // Chain time is in milliseconds: the purchase before must not lie in the same one as the endpoint's beginning.
    let bought = shop.engine.now();
    until("the next millisecond", || shop.engine.now() > bought);
    shop.add(&receiver.url());
    shop.buy();
    until("the purchase", || !receiver.calls().is_empty());
    let closing = shop.add_for(&receiver.url(), &[EventKind::SalePaused, EventKind::SaleResumed]);
    shop.decide(Command::Pause(PauseReason::Operator));
    shop.decide(Command::Resume);
    until("pause and resumption", || receiver.calls().len() == 3);
    until("the place", || shop.state(&closing).places[0].2 == 0);
    assert_eq!(receiver.calls().iter().map(kind).collect::<Vec<_>>(), ["held", "sale_paused", "sale_resumed"]);
}

#[test]
fn an_endpoint_can_be_paused_rotated_and_removed() {
    let mut shop = Deployment::new();
    let receiver = Receiver::start(|_| Answer::Status(200)).unwrap();
    let endpoint = shop.add(&receiver.url());
    shop.webhooks().pause(&endpoint).unwrap();
    shop.buy();
    let (rotated, _) = shop.webhooks().rotate(&endpoint).unwrap();
    assert!(rotated.former_secret_until.is_some());
    assert_eq!((shop.state(&endpoint).paused.as_deref(), receiver.calls().len()), (Some("operator"), 0));
    shop.webhooks().resume(&endpoint).unwrap();
    until("what happened meanwhile", || receiver.calls().len() == 1);
    let signatures = receiver.calls()[0].header("webhook-signature").to_owned();
    assert_eq!(signatures.split(' ').filter(|signature| signature.starts_with("v1,")).count(), 2, "{signatures}");
    shop.webhooks().remove(&endpoint).unwrap();
    assert!(matches!(shop.webhooks().state(&endpoint), Err(WebhookError::Unknown)));
    assert!(matches!(shop.webhooks().pause(&endpoint), Err(WebhookError::Unknown)));
    shop.buy();
    let other = Receiver::start(|_| Answer::Status(410)).unwrap();
    let gone = shop.add(&other.url());
    shop.buy();
    until("410 to pause it", || shop.state(&gone).paused.is_some());
    assert_eq!((receiver.calls().len(), other.calls().len()), (1, 1));
}

#[test]
fn what_may_not_be_called_is_not_added() {
    let shop = Deployment::new();
    for url in ["http://8.8.8.8:8000/", "https://10.0.0.1/", "https://user@shop.example/", "https://shop.example:22/"] {
        let new = NewEndpoint { url: url.to_owned(), ..NewEndpoint::default() };
        assert!(matches!(shop.webhooks().add(new), Err(WebhookError::Target(_))), "{url}");
    }
    let sales = vec!["../vault".to_owned()];
    let new = NewEndpoint { url: "https://shop.invalid/".to_owned(), sales, events: Vec::new() };
    assert!(matches!(shop.webhooks().add(new), Err(WebhookError::Invalid(_))));
    for _ in 0..16 {
        shop.add("https://shop.invalid/hook");
    }
    let new = NewEndpoint { url: "https://shop.invalid/hook".to_owned(), ..NewEndpoint::default() };
    assert!(matches!(shop.webhooks().add(new), Err(WebhookError::Invalid(_))));
}
