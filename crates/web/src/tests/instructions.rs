//! A refusal, a pass and a win, each as the serving thread makes them: all of a request but its socket. As a test it sees that they are
//! what they are called; `cargo xtask instructions` runs the same under an instrument that counts, with `DOORBUSTER_COUNT`.
//!
//! Whatever is made beforehand is the same for every count, so that the difference of two counts is the price of the things themselves.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use admission::postbox::Desk;
use axum::body::Body;
use domain::clock::SystemClock;
use domain::{ChainTime, Clock as _, Currency, ItemDefinition, SaleDefinition, limits};
use engine::{Engine, EngineOptions, Sale};
use gate::sign::sign_hs256;
use gate::{IdentityConfig, KeySet, Pass, token_hash};
use ledger::Pace;
use limiter::overload::{Bounds, Priority};
use pages::{Site, SiteOptions};
use tower::ServiceExt as _;

use crate::address::Peer;
use crate::asking::Heard;
use crate::express::{self, Buffers, Request};
use crate::overload::Turn;
use crate::service::Front;
use crate::{App, AppOptions, HumanOptions, LimitOptions, OverloadOptions, Rate, router};

const SECRET: &[u8] = b"a secret of the shop, 32 bytes at least";
const ISSUER: &str = "https://shop.example";
const AUDIENCE: &str = "doorbuster";
/// Customers with a pass; as many wins as can be counted.
const CUSTOMERS: usize = 1_100;
const DATE: &str = "Thu, 26 Nov 2026 20:00:00 GMT";

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Refusal,
    Pass,
    Win,
}

struct Shop {
    folder: PathBuf,
    front: Rc<Front>,
    peer: Peer,
    /// Purchases that have not been sent yet, one for each customer.
    purchases: Vec<Vec<u8>>,
    refused: Vec<u8>,
}

fn definition(now: u64) -> SaleDefinition {
    let item = |name: &str, stock| ItemDefinition {
        item: name.to_owned(),
        title: name.to_owned(),
        stock,
        price: 4_900,
        limit_per_customer: 1,
        sku: None,
        external_id: None,
        points: 0,
    };
    SaleDefinition {
        sale: "drop".to_owned(),
        title: "A sale that is counted".to_owned(),
        currency: Currency(*b"EUR"),
        passes_open_at: ChainTime(now - 1_000),
        opens_at: ChainTime(now - 1_000),
        closes_at: ChainTime(now + 3_600_000),
        spread_milliseconds: 0,
        hold_seconds: 600,
        grace_seconds: 5,
        pass_seconds: 3_600,
        grants_per_pass_max: 5,
        grants_per_customer_max: 10,
        limit_per_customer: 2,
        resale_delay_milliseconds: 1_000,
        unpaid_releases_max: 1_000,
        hold_extension_seconds: 900,
        coupons: Vec::new(),
        settle_after_seconds: 3_600,
        external_id: None,
        test: false,
        items: vec![item("boot", 10_000), item("rare", 1)],
    }
}

fn token_of(customer: usize) -> String {
    sign_hs256(SECRET, ISSUER, AUDIENCE, &format!("customer-{customer:05}"), 4_000_000_000)
}

fn pass_of(engine: &Engine, sale: &Sale, customer: usize, token: &str) -> String {
    let name = format!("customer-{customer:05}");
    let pseudonym = sale.pseudonym(ISSUER, &name);
    let pass = Pass {
        sale: sale.ordinal,
        customer: pseudonym,
        number: customer as u64,
        slot_offset: 0,
        expires_at: ChainTime(engine.now() + 3_600_000),
        token_hash: token_hash(token),
        identity_hash: engine.identity_key.identity_hash(sale.id, ISSUER, &name),
        token_expires_at_milliseconds: Some(4_000_000_000_000),
    };
    engine.passes.now().seal(&pass, &sale.customer_sale_key(&[7; 32]))
}

fn purchase(item: &str, token: &str, pass: &str) -> Vec<u8> {
    let head = format!(
        "POST /v1/sales/drop/items/{item}/purchases HTTP/1.1\r\nhost: shop.example\r\nauthorization: Bearer {token}\r\n\
         doorbuster-pass: {pass}\r\nidempotency-key: 0f8fad5b-d9cb-469f-a165-70867728950e\r\ncontent-type: application/json\r\n\
         content-length: 14\r\n\r\n{{\"quantity\":1}}"
    );
    head.into_bytes()
}

impl Shop {
    async fn open(name: &str) -> Self {
        let folder = std::env::current_exe().unwrap().with_extension(format!("{name}-{}", std::process::id()));
        let identity = IdentityConfig {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            secrets: vec![SECRET.to_vec()],
            fixed_keys: KeySet::default(),
            keys_are_published: false,
            required_claims: Vec::new(),
            leeway_seconds: 0,
            guest_tokens: false,
        };
        let options = EngineOptions {
            cluster: None,
            identity,
            keyring: None,
            // The books follow at their own time, which is not a purchase's.
            books_pace: Pace::PerSecond(1),
            clock: Arc::new(SystemClock::new()),
            on_fatal: Arc::new(|reason| panic!("{reason}")),
        };
        let engine = Arc::new(Engine::start(&folder, options).unwrap());
        let sale = engine.create_sale(&definition(SystemClock::new().wall_milliseconds())).unwrap();
        // Every check is made, and none refuses.
        let rate = Rate { per_second: 1_000_000, burst: 1_000_000 };
        let limits = LimitOptions {
            loopback: true,
            memory_bytes: 1 << 20,
            address: [rate; 3],
            customer: [rate; 3],
            hammering: rate,
            ..LimitOptions::default()
        };
        let site = Site::new(SiteOptions::default()).unwrap();
        let bounds = Bounds { in_flight_max: 10_000, ..OverloadOptions::default().bounds };
        let overload = OverloadOptions { bounds, ..OverloadOptions::default() };
        let app = App::new(
            engine,
            None,
            None,
            site,
            AppOptions { purchase_wait_seconds: 60, limits, overload, human: HumanOptions::default() },
        );
        let desk = Desk::new();
        tokio::task::spawn_local(desk.clone().carry());
        let turn = Turn::new(&app);
        tokio::task::spawn_local(Rc::clone(&turn).keep());
        let front = Front {
            app: Arc::clone(&app),
            desk,
            router: router::public(&app),
            body_bytes_max: limits::PUBLIC_BODY_BYTES_MAX,
            takes_purchases: true,
            turn,
            buffers: Buffers::new(),
            made: Default::default(),
        };
        let tokens: Vec<String> = (0..CUSTOMERS).map(token_of).collect();
        let pass = |customer| pass_of(&app.engine, &sale, customer, &tokens[customer]);
        let purchases =
            (0..CUSTOMERS - 2).map(|customer| purchase("boot", &tokens[customer], &pass(customer))).collect();
        let [first, late] =
            [CUSTOMERS - 2, CUSTOMERS - 1].map(|customer| purchase("rare", &tokens[customer], &pass(customer)));
        let peer = app.limits.addresses.peer(([127, 0, 0, 1], 4_711).into());
        let shop = Self { folder, front: Rc::new(front), peer, purchases, refused: late };
        shop.ask(&first, "HTTP/1.1 201 ").await;
        shop
    }

    /// Asks for a purchase as its bytes came, and sees how the answer begins.
    async fn ask(&self, bytes: &[u8], expected: &str) {
        let request = Request::read(bytes).expect("the lane takes it");
        let _place = self.front.turn.enter(Priority::Purchases, || None).ok().expect("there is room");
        let taken = express::take(&self.front, &self.peer, &request, &mut Heard::default());
        let taken = taken.ok().expect("one process asks nobody");
        let (reply, request_id) = express::answer(&self.front, taken).await;
        let mut answer = Vec::with_capacity(2_048);
        reply.write(Some((&request_id, DATE)), &mut answer);
        assert!(answer.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&answer));
    }

    async fn take_pass(&self, customer: usize) {
        let request = http::Request::post("/v1/sales/drop/passes")
            .header("authorization", format!("Bearer {}", token_of(CUSTOMERS + customer)))
            .body(Body::empty())
            .unwrap();
        let response = self.front.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), http::StatusCode::CREATED);
    }

    async fn make(&self, thing: Thing, count: usize) {
        for number in 0..count {
            match thing {
                Thing::Refusal => self.ask(&self.refused, "HTTP/1.1 409 ").await,
                Thing::Pass => self.take_pass(number).await,
                Thing::Win => self.ask(&self.purchases[number], "HTTP/1.1 201 ").await,
            }
        }
    }

    fn close(self) {
        self.front.app.engine.stop();
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn in_a_shop(name: &str, work: impl AsyncFnOnce(&Shop)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let shop = Shop::open(name).await;
        work(&shop).await;
        shop.close();
    });
}

#[test]
fn what_is_counted_is_a_refusal_a_pass_and_a_win() {
    in_a_shop("things", async |shop| {
        let app = &shop.front.app;
        for thing in [Thing::Refusal, Thing::Pass, Thing::Win] {
            shop.make(thing, 3).await;
        }
        let sale = app.engine.sale("drop").unwrap();
        assert_eq!(sale.view().held(0), 3);
    });
}

/// Counts nothing unless it is told what and how many: `refusal:100`.
#[test]
fn so_many_are_made_for_the_instrument() {
    let Ok(told) = std::env::var("DOORBUSTER_COUNT") else { return };
    let (thing, count) = told.split_once(':').unwrap();
    let things = [("refusal", Thing::Refusal), ("pass", Thing::Pass), ("win", Thing::Win)];
    let (_, thing) = things.into_iter().find(|(name, _)| *name == thing).unwrap();
    let count = count.parse().unwrap();
    in_a_shop("counted", async |shop| shop.make(thing, count).await);
}
