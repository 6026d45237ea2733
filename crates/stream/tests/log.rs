//! The chain on three real NATS servers: rivals at one place, a writer that is superseded, leaders that die, servers that stand still.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use async_nats::jetstream::stream::{Config, StorageType};
use chain::{BatchBuilder, BatchHeader, EncodedBatch, HeadSigner};
use domain::{ChainTime, Record, SaleId};
use rustix::process::Signal;
use services::nats::Servers;
use services::process::Life;
use stream::{AppendError, ConnectError, Login, Store, StoreOptions, StreamLog};

const SALE: SaleId = SaleId([7; 16]);

struct Cluster {
    servers: Servers,
    folder: PathBuf,
}

impl Cluster {
    fn start() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("doorbuster-stream-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let servers = services::nats::cluster(Life::Ours, &folder, &services::nats::program()).unwrap();
        Self { servers, folder }
    }

    fn options(&self, name: &str) -> StoreOptions {
        let login = self.servers.login.clone();
        StoreOptions {
            servers: self.servers.addresses.iter().map(ToString::to_string).collect(),
            login: Login { user: login.user, password: login.password },
            tls_authority: None,
            name: name.to_owned(),
            vault: "ours".to_owned(),
            replicas: 3,
            monitors: self.servers.monitors.iter().map(ToString::to_string).collect(),
            dangerous_unsynced: false,
            jitter_seed: 1,
        }
    }

    async fn store(&self) -> Store {
        Store::connect(&self.options("sales")).await.unwrap()
    }

    /// Which server leads the stream.
    async fn leader(&self, store: &Store) -> usize {
        let context = async_nats::jetstream::new(store.client().clone());
        loop {
            let info = match context.get_stream("doorbuster_sales").await {
                Ok(stream) => stream.cached_info().clone(),
                Err(_) => continue,
            };
            let leader = info.cluster.and_then(|cluster| cluster.leader).unwrap_or_default();
            if let Some(number) = leader.strip_prefix("doorbuster-") {
                return number.parse().unwrap();
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &self.servers.processes {
            // A server that stands still would not hear that it should end.
            drop(process.signal(Signal::CONT));
        }
        self.servers.processes.clear();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// A batch of one record that continues the log; `writer` tells batches of rivals apart.
fn batch(log: &StreamLog, epoch: u64, writer: u64) -> EncodedBatch {
    let header = BatchHeader {
        sale: SALE,
        partition: 0,
        epoch,
        time: ChainTime(1_000 + log.next()),
        first: log.next(),
        count: 1,
    };
    let mut builder = BatchBuilder::new(header, log.head());
    builder.push(&Record::ClockCredit(writer), None);
    builder.finish(&HeadSigner::from_seed(&[5; 32]))
}

/// Who wrote each record, in order; every hash is checked on the way.
async fn writers(store: &Store, name: &str) -> Vec<u64> {
    let mut writers = Vec::new();
    let mut note = |_: &[u8], batch: &chain::Batch<'_>| {
        for record in batch.records() {
            match record.unwrap().decode().unwrap() {
                Record::ClockCredit(writer) => writers.push(writer),
                other => return Err(format!("{other:?}")),
            }
        }
        Ok(())
    };
    StreamLog::open(store, name, &mut note).await.unwrap();
    writers
}

async fn open(store: &Store, name: &str) -> StreamLog {
    StreamLog::open(store, name, &mut |_, _| Ok(())).await.unwrap()
}

/// Appends `count` batches of `writer`, each anew behind whatever a rival has put there.
async fn write(store: Store, name: &str, writer: u64, count: usize) -> StreamLog {
    let mut log = open(&store, name).await;
    for _ in 0..count {
        loop {
            match log.append(&batch(&log, 1, writer)).await {
                Ok(()) => break,
                Err(AppendError::Moved) => {}
                Err(error) => panic!("writer {writer}: {error}"),
            }
        }
    }
    log
}

#[tokio::test]
async fn rivals_take_turns_and_every_batch_stands_once_through_dying_leaders() {
    let cluster = Cluster::start();
    let store = cluster.store().await;
    // In peace.
    let (one, two) =
        tokio::join!(write(cluster.store().await, "peace", 1, 50), write(cluster.store().await, "peace", 2, 50));
    assert_eq!(one.next().max(two.next()), 100);
    let written = writers(&store, "peace").await;
    for writer in [1, 2] {
        assert_eq!(written.iter().filter(|by| **by == writer).count(), 50, "an acknowledged batch stands once");
    }

    // A newer epoch takes over; the older one learns it and can write no more.
    let (mut old, mut new) = (open(&store, "peace").await, open(&store, "peace").await);
    new.append(&batch(&new, 2, 3)).await.unwrap();
    assert!(matches!(old.append(&batch(&old, 1, 1)).await, Err(AppendError::Superseded(2))));
    // Asked again with what it knows now, it still may not: epochs do not go back.
    assert_eq!(old.epoch(), 2);
    new.append(&batch(&new, 2, 3)).await.unwrap();
    assert_eq!(writers(&store, "peace").await.len(), 102);

    // Through the sudden death of the leader, while two rivals write.
    let leader = cluster.leader(&store).await;
    let (one, two) = (cluster.store().await, cluster.store().await);
    let one = tokio::spawn(async move { write(one, "war", 1, 200).await.next() });
    let two = tokio::spawn(async move { write(two, "war", 2, 200).await.next() });
    let mut watching = open(&store, "war").await;
    while watching.next() < 40 {
        watching.catch_up(&mut |_, _| Ok(())).await.unwrap();
    }
    cluster.servers.processes[leader].signal(Signal::KILL).unwrap();
    assert_eq!(one.await.unwrap().max(two.await.unwrap()), 400);
    let written = writers(&store, "war").await;
    assert_eq!(written.len(), 400);
    assert_eq!(written.iter().filter(|by| **by == 1).count(), 200);

    // Two of three are gone: nothing is acknowledged. When the second comes back, the append ends well and stands once.
    let second = (0..3).find(|number| *number != leader).unwrap();
    let mut log = open(&store, "war").await;
    cluster.servers.processes[second].signal(Signal::STOP).unwrap();
    let appending = tokio::spawn(async move {
        let next = batch(&log, 1, 9);
        log.append(&next).await.unwrap();
        log.next()
    });
    // Longer than one try; that something does not happen can only be watched for a while.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert!(!appending.is_finished(), "without a majority nothing is acknowledged");
    cluster.servers.processes[second].signal(Signal::CONT).unwrap();
    assert_eq!(appending.await.unwrap(), 401);
    assert_eq!(writers(&store, "war").await.iter().filter(|by| **by == 9).count(), 1);
}

#[tokio::test]
async fn a_stream_that_forgets_and_a_stranger_are_refused() {
    let cluster = Cluster::start();
    let admin = cluster.servers.admin.clone();
    let client = async_nats::ConnectOptions::with_user_and_password(admin.user, admin.password)
        .connect(cluster.servers.addresses[0].to_string())
        .await
        .unwrap();
    let context = async_nats::jetstream::new(client);
    let good = Config {
        name: "doorbuster_sales".to_owned(),
        subjects: vec!["log.sales.>".to_owned()],
        num_replicas: 3,
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..Config::default()
    };
    let hour = std::time::Duration::from_secs(3_600);
    for (config, rule) in [
        (Config { storage: StorageType::Memory, ..good.clone() }, "storage"),
        (Config { max_age: hour, ..good.clone() }, "max_age"),
        (Config { num_replicas: 1, ..good.clone() }, "replicas"),
        (Config { max_messages_per_subject: 5, ..good.clone() }, "max_msgs_per_subject"),
        (Config { discard: async_nats::jetstream::stream::DiscardPolicy::Old, ..good.clone() }, "discard"),
        (Config { subjects: vec!["log.one".to_owned()], ..good.clone() }, "subjects"),
    ] {
        context.create_stream(config).await.unwrap();
        match Store::connect(&cluster.options("sales")).await.err() {
            Some(error @ ConnectError::Unsafe { .. }) => assert!(error.to_string().contains(rule), "{rule}: {error}"),
            other => panic!("{rule}: {other:?}"),
        }
        context.delete_stream("doorbuster_sales").await.unwrap();
    }
    context.create_stream(good).await.unwrap();
    Store::connect(&cluster.options("sales")).await.unwrap();
    // One that the operator made says nothing of a vault; one that we made serves the vault that it was made for.
    context.delete_stream("doorbuster_sales").await.unwrap();
    Store::connect(&cluster.options("sales")).await.unwrap();
    Store::connect(&cluster.options("sales")).await.unwrap();
    let other = StoreOptions { vault: "another".to_owned(), ..cluster.options("sales") };
    match Store::connect(&other).await.err() {
        Some(ConnectError::OtherVault { found, ours, .. }) => assert_eq!((&*found, &*ours), ("ours", "another")),
        told => panic!("{told:?}"),
    }
    let login = Login { user: "doorbuster".to_owned(), password: "wrong".to_owned() };
    let stranger = StoreOptions { login, ..cluster.options("sales") };
    assert!(
        matches!(Store::connect(&stranger).await, Err(ConnectError::Refused { user }) if user == stranger.login.user)
    );
}
