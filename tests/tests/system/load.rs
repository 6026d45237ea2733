//! Shoppers who never stop asking, for servers that are killed under them. Every one notes what they send before it leaves, keeps
//! what they were told, and asks again with the same key until they know.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use domain::SaleDefinition;
use system_tests::{Connection, Customer, Reach, Reply, Server, eventually, item, sale_of};

/// Enough that fifty requests are always under way.
const SHOPPERS: usize = 80;
/// The item that everybody gets, and the one that is gone most of the time.
const ITEMS: [&str; 2] = ["boot", "rare"];

/// What somebody has asked for and not heard about.
enum Open {
    Purchase { item: &'static str, key: String },
    Confirmation(String),
    Cancellation(String),
}

/// One who shops, and what they know.
struct Shopper {
    customer: Customer,
    rng: fastrand::Rng,
    keys: u32,
    open: Option<Open>,
    /// Key to (item, purchase, order) of every answer that was a purchase.
    won: BTreeMap<String, (&'static str, String, String)>,
}

/// What happened while the server lived.
#[derive(Default)]
pub(crate) struct Watch {
    /// Requests under way.
    pub(crate) under_way: AtomicUsize,
    /// Answers so far.
    pub(crate) answers: AtomicUsize,
}

/// All of them.
pub(crate) struct Load {
    reach: Arc<Reach>,
    shoppers: Vec<Shopper>,
}

impl Load {
    /// Creates the sale `drop` and gives everybody a pass.
    pub(crate) fn new(server: &Server, seed: u64) -> Self {
        let definition = sale_of("drop", vec![item(ITEMS[0], 10_000_000), item(ITEMS[1], 30)]);
        server.create(&SaleDefinition { hold_seconds: 3_600, ..definition });
        let mut rng = fastrand::Rng::with_seed(seed);
        let shoppers = (0..SHOPPERS).map(|number| Shopper {
            customer: server.customer(&format!("shopper-{number}"), "drop"),
            rng: rng.fork(),
            keys: 0,
            open: None,
            won: BTreeMap::new(),
        });
        Self { reach: server.reach(), shoppers: shoppers.collect() }
    }

    /// Everybody shops until the server is gone; `meanwhile` sees to that. Gives how many requests were left without an answer.
    pub(crate) fn shop(&mut self, meanwhile: impl FnOnce(&Watch)) -> usize {
        let watch = Watch::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .shoppers
                .iter_mut()
                .map(|shopper| {
                    let (reach, watch) = (Arc::clone(&self.reach), &watch);
                    scope.spawn(move || shopper.shop(&reach, watch))
                })
                .collect();
            meanwhile(&watch);
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        })
    }

    /// Everybody asks again, with the same key, for what they do not know; everybody has to learn it.
    pub(crate) fn ask_again(&mut self) {
        std::thread::scope(|scope| {
            for shopper in &mut self.shoppers {
                let reach = Arc::clone(&self.reach);
                scope.spawn(move || shopper.ask_again(&reach));
            }
        });
    }

    /// Every purchase that anybody was told of is an order in the books, and its key still leads to it.
    pub(crate) fn everybody_has_their_order(&self, server: &Server) {
        server.drained("drop");
        let orders = server.orders("drop");
        let orders: BTreeMap<_, _> = orders
            .iter()
            .map(|order| (order["purchase"].as_str().unwrap(), order["order"].as_str().unwrap()))
            .collect();
        let won = self.shoppers.iter().flat_map(|shopper| shopper.won.values());
        for (_, purchase, order) in won {
            assert_eq!(orders.get(purchase.as_str()), Some(&order.as_str()), "{purchase} has no order");
        }
        for shopper in &self.shoppers {
            for (key, (item, purchase, _)) in shopper.won.iter().take(3).chain(shopper.won.iter().next_back()) {
                assert_eq!(shopper.customer.buy(item, key).text("purchase"), *purchase, "{key}");
            }
        }
    }
}

impl Shopper {
    /// Shops until nothing answers any more; whether a request was under way then.
    fn shop(&mut self, reach: &Reach, watch: &Watch) -> bool {
        let Ok(mut connection) = Connection::open(reach.public()) else { return false };
        loop {
            let open = self.open.take().unwrap_or_else(|| self.next_wish());
            watch.under_way.fetch_add(1, Ordering::Relaxed);
            let answered = self.ask(reach, &open, &mut connection);
            watch.under_way.fetch_sub(1, Ordering::Relaxed);
            match answered {
                Ok(reply) => {
                    watch.answers.fetch_add(1, Ordering::Relaxed);
                    self.learn(&open, &reply);
                }
                Err(_) => {
                    self.open = Some(open);
                    return true;
                }
            }
        }
    }

    fn ask_again(&mut self, reach: &Reach) {
        while let Some(open) = self.open.take() {
            let reply = eventually("the answer to a repeated request", || {
                self.ask(reach, &open, &mut Connection::open(reach.public()).ok()?).ok()
            });
            self.learn(&open, &reply);
        }
    }

    fn next_wish(&mut self) -> Open {
        self.keys += 1;
        let item = ITEMS[usize::from(self.rng.u8(0..8) == 0)];
        Open::Purchase { item, key: format!("key-{}", self.keys) }
    }

    fn ask(&self, reach: &Reach, open: &Open, connection: &mut Connection) -> io::Result<Reply> {
        match open {
            Open::Purchase { item, key } => self.customer.attempt(item, key, 1).try_send_on(connection),
            Open::Confirmation(order) => reach.try_confirm(order),
            Open::Cancellation(order) => self.customer.try_cancel(order),
        }
    }

    /// Takes an answer in; some winners pay or give back next.
    fn learn(&mut self, open: &Open, reply: &Reply) {
        match open {
            Open::Purchase { item, key } if reply.status < 300 => {
                let found = (*item, reply.text("purchase"), reply.text("order"));
                let order = found.2.clone();
                let before = self.won.insert(key.clone(), found.clone());
                assert!(before.is_none_or(|before| before == found), "{key} means two purchases");
                self.open = match self.rng.u8(0..8) {
                    0 => Some(Open::Confirmation(order)),
                    1 => Some(Open::Cancellation(order)),
                    _ => None,
                };
            }
            Open::Purchase { key, .. } => {
                assert_eq!(reply.code(), "sold_out", "{key}");
                assert!(!self.won.contains_key(key), "{key} was won and is refused");
            }
            Open::Confirmation(order) => assert_eq!(reply.code(), "confirmed", "{order}"),
            Open::Cancellation(order) => assert_eq!(reply.code(), "released", "{order}"),
        }
    }
}
