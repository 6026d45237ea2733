//! One sale in one process of a cluster: a thread of its own that follows the chain, has requests decided, and relays where that is
//! this process's part.

use std::path::Path;
use std::sync::Arc;

use admission::{OwnerHandle, Requests};
use chain::batch::{BatchBuilder, BatchHeader};
use chain::{EncodedBatch, HeadSigner};
use domain::ids::Hash;
use domain::record::Created;
use domain::{ChainTime, Clock, Record, SaleId};
use fastrand::Rng;
use stream::{AppendError, ConnectError, ReadError, Store, StreamLog};
use tokio::runtime::{Builder, Runtime};

use crate::decider::Decider;
use crate::follower::{FollowError, Follower};
use crate::gate::Gate;
use crate::link::Link;
use crate::options::ClusterOptions;
use crate::relay::Relay;

/// Hears why a sale cannot be followed any further.
pub type OnEnd = Box<dyn FnOnce(ReadError) + Send>;

/// Why a sale's chain was not begun.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The stream could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It was not appended, or that is unknown; creating the same sale again is safe.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// The connection of one process to the servers of its cluster.
pub struct Cluster {
    options: ClusterOptions,
    store: Store,
    clock: Arc<dyn Clock>,
    runtime: Runtime,
}

/// What a process needs to know of a sale to take part in it.
pub struct Part<'a> {
    /// The shop's name of it.
    pub name: &'a str,
    /// Its id in the chain.
    pub sale: SaleId,
    /// Where the copy of its chain is kept.
    pub folder: &'a Path,
    /// Signs heads, where this process relays.
    pub signer: HeadSigner,
    /// Revealed after closing.
    pub slot_secret: Hash,
}

impl Cluster {
    /// Connects to NATS; Redis is looked for when a sale needs it. Blocks.
    pub fn connect(options: ClusterOptions, clock: Arc<dyn Clock>) -> Result<Self, ConnectError> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("cluster").enable_all().build();
        let runtime = runtime.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
        let store = runtime.block_on(Store::connect(&options.store))?;
        Ok(Self { options, store, clock, runtime })
    }

    /// What this process does.
    pub fn options(&self) -> &ClusterOptions {
        &self.options
    }

    /// Begins a sale's chain, unless it has been begun. Blocks.
    pub fn create(&self, part: &Part<'_>, created: Created) -> Result<(), CreateError> {
        self.runtime.block_on(async {
            let mut log = StreamLog::at_end(&self.store, part.name, part.sale).await?;
            if log.next() > 0 {
                return Ok(());
            }
            match log.append(&first_batch(part, created, self.clock.wall_milliseconds())).await {
                // Two gates were asked to create the same sale: it is there.
                Err(AppendError::Moved | AppendError::Superseded(_)) => Ok(()),
                other => Ok(other?),
            }
        })
    }

    /// Takes part in a sale from here on. `None` while its chain has not been begun. Blocks until the chain is read to its end.
    pub fn join(&self, part: Part<'_>, on_end: OnEnd) -> Result<Option<OwnerHandle>, FollowError> {
        let opened = self.runtime.block_on(Follower::open(&self.store, part.folder, part.name, part.sale))?;
        let Some((follower, log)) = opened else { return Ok(None) };
        let view = Arc::clone(follower.lock().replica.view());
        let running = Running {
            follower,
            log,
            options: self.options.clone(),
            clock: Arc::clone(&self.clock),
            signer: part.signer,
            slot_secret: part.slot_secret,
        };
        let handle = OwnerHandle::elsewhere(view, move |requests| running.run(&requests, on_end));
        handle.map(Some).map_err(|error| FollowError::Copy { folder: part.folder.to_owned(), reason: error.to_string() })
    }
}

fn first_batch(part: &Part<'_>, created: Created, wall: u64) -> EncodedBatch {
    let header =
        BatchHeader { sale: part.sale, partition: 0, epoch: 1, time: ChainTime(wall), first: 0, count: 2 };
    let mut builder = BatchBuilder::new(header, chain::batch::GENESIS_HEAD);
    builder.push(&Record::Created(Box::new(created)), None);
    builder.push(&Record::Epoch(1), None);
    builder.finish(&part.signer)
}

struct Running {
    follower: Follower,
    log: StreamLog,
    options: ClusterOptions,
    clock: Arc<dyn Clock>,
    signer: HeadSigner,
    slot_secret: Hash,
}

impl Running {
    fn run(self, requests: &Requests, on_end: OnEnd) {
        match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.work(requests, on_end)),
            Err(error) => on_end(ReadError::Unreachable(error.to_string())),
        }
    }

    async fn work(self, requests: &Requests, on_end: OnEnd) {
        let Self { follower, log, options, clock, signer, slot_secret } = self;
        let name = follower.name.clone();
        let random = Rng::with_seed(options.process);
        let gate = Gate::new(&follower, requests, clock.as_ref());
        let decider = Decider::new(&options.redis, &name, random);
        let holder = format!("{:016x}", options.process);
        let link = Link::new(&options.redis, &name);
        let secrets = (&signer, slot_secret);
        let mut relay =
            Relay::new(&follower, clock.as_ref(), link, secrets, options.redis.uncommitted_max, holder, log.clone());
        let relaying = async {
            if options.roles.relay { relay.run().await } else { std::future::pending().await }
        };
        tokio::select! {
            error = follower.follow(log) => on_end(error),
            () = gate.run(decider) => {}
            () = relaying => {}
        }
        if options.roles.relay {
            relay.unlock().await;
        }
    }
}
