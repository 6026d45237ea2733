//! A crowd that comes while something breaks.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crowd::{CrowdOptions, CrowdReport};
use system_tests::cluster::{Cluster, master_of};
use system_tests::{AUDIENCE, ISSUER, Request, SECRET, eventually, open_sale, until};

/// How many people come for how many units, over how many seconds, and how long they keep looking.
struct Length {
    shoppers: u32,
    stock: u32,
    seconds: u64,
    linger_seconds: u64,
}

fn length() -> Length {
    if std::env::var_os("DOORBUSTER_SOAK").is_some() {
        Length { shoppers: 4_000, stock: 1_500, seconds: 12, linger_seconds: 8 }
    } else {
        Length { shoppers: 1_000, stock: 400, seconds: 5, linger_seconds: 3 }
    }
}

/// So many have won when the fault comes.
const WINS_BEFORE: u64 = 60;

/// The longest that a fault's end is waited for.
const WATCHED_MAX: Duration = Duration::from_secs(20);

/// A sale with people in it.
pub(crate) struct Rush {
    pub(crate) sale: String,
    pub(crate) notes: PathBuf,
    crowd: JoinHandle<CrowdReport>,
}

impl Rush {
    /// Opens a sale and lets the crowd come; returns when many have won and more are asking.
    pub(crate) fn begin(cluster: &mut Cluster, sale: &str) -> Self {
        let mut definition = open_sale(sale, length().stock);
        definition.resale_delay_milliseconds = 1_000;
        definition.opens_at = definition.opens_at.plus(2_000);
        definition.hold_seconds = 4;
        definition.limit_per_customer = 1;
        definition.items[0].limit_per_customer = 1;
        cluster.create(&definition);
        let (public, admin) = cluster.gates();
        let notes = cluster.path(&format!("notes-of-{sale}.jsonl"));
        let options = CrowdOptions {
            public,
            admin,
            admin_token: cluster.token(),
            sale: sale.to_owned(),
            items: vec!["boot".to_owned()],
            shoppers: length().shoppers,
            seconds: length().seconds,
            linger_seconds: length().linger_seconds,
            notes: notes.clone(),
            token_secret: SECRET.into(),
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            connections: 128,
            give_up_seconds: 60,
            flush_each: true,
            ..CrowdOptions::default()
        };
        let wins = Arc::new(AtomicU64::new(0));
        let seen_wins = Arc::clone(&wins);
        let crowd = std::thread::spawn(move || {
            let watch = |seen: &crowd::Progress| seen_wins.store(seen.wins, Ordering::Relaxed);
            crowd::run(options, watch).expect("the crowd comes")
        });
        let rush = Self { sale: sale.to_owned(), notes, crowd };
        until("winners", || wins.load(Ordering::Relaxed) >= WINS_BEFORE);
        rush
    }

    /// Waits for a moment in which Redis has decided what the chain does not have. A fault at another moment would show nothing.
    pub(crate) fn until_uncommitted(&self, cluster: &Cluster) -> usize {
        let master = master_of(cluster, &self.sale);
        let redis = &cluster.servers.redis;
        let mut connection = redis.connect(redis.addresses[master]).expect("the master answers");
        let key = format!("doorbuster:{{main/{}}}:outbox", self.sale);
        eventually("decisions that are not in the chain", || {
            let length: u64 = redis::cmd("LLEN").arg(&key).query(&mut connection).ok()?;
            (length > 0).then_some(())
        });
        master
    }

    /// How long until the chain goes on: somebody wins again.
    pub(crate) fn seconds_without_sales(&self, cluster: &Cluster) -> f64 {
        let (gates, _) = cluster.gates();
        let path = format!("/v1/sales/{}", self.sale);
        let position = || {
            let replies = gates.iter().filter_map(|gate| Request::get(&path).try_send(*gate).ok());
            replies.filter_map(|reply| reply.json()["position"].as_u64()).max().unwrap_or(0)
        };
        // What was under way when it broke arrives yet; a sale is what comes after a pause.
        let (start, mut last, mut moved) = (Instant::now(), position(), Instant::now());
        let mut longest = Duration::ZERO;
        while start.elapsed() < Duration::from_secs(7) && !self.crowd.is_finished()
            || moved.elapsed() > Duration::from_secs(1) && start.elapsed() < WATCHED_MAX
        {
            std::thread::sleep(Duration::from_millis(5));
            let now = position();
            if now > last {
                longest = longest.max(moved.elapsed());
                (last, moved) = (now, Instant::now());
            }
        }
        longest.max(moved.elapsed()).as_secs_f64()
    }

    /// Lets the crowd go, ends the sale and checks every promise.
    pub(crate) fn end(self, cluster: &mut Cluster) -> CrowdReport {
        let report = self.crowd.join().expect("the crowd does not panic");
        eprintln!(
            "{}: {} asked {} times, {} won, {} unanswered, {} repeated, refused {:?}, errors {:?}",
            self.sale,
            report.shoppers,
            report.attempts,
            report.wins,
            report.unanswered,
            report.retried,
            report.refusals,
            report.errors
        );
        assert_eq!(report.protocol_errors, 0, "{:?}", report.protocol_error_samples);
        assert!(report.wins >= u64::from(length().stock) / 2, "the crowd bought: {report:?}");
        cluster.judge(&self.sale, &[&self.notes]);
        report
    }
}
