//! A sale that many processes serve: Redis decides, JetStream remembers, every process follows the chain.
//!
//! `gate` has requests decided and answers from the chain; `relay` brings decisions to the chain; `rebuild` gives Redis what the chain
//! has, after anything that may have made it forget; `reconcile` compares the two; `takeover` decides while Redis is away; `ladder` says on which rung a
//! sale stands; `shared` has what gates keep together beside the sales, and `news` what they tell each other; `follower` keeps the chain in each process. The rules of a sale are not here: they are in `admission`, as the core and as its twin on Redis.

mod decider;
mod follower;
mod gate;
mod ladder;
mod link;
mod news;
mod options;
mod quiet;
mod rebuild;
mod reconcile;
mod relay;
mod sale;
mod shared;
mod survey;
mod takeover;
mod wire;

pub use follower::FollowError;
pub use ladder::{Ladder, Order, Rung};
pub use news::News;
pub use options::{ClusterOptions, RedisOptions, Roles, Topology};
pub use quiet::Quiet;
pub use sale::{Cluster, ConnectError, CreateError, OnEnd, Part};
pub use shared::{Shared, SharedCounts};
pub use stream::{Login, ReadError, StoreOptions};
pub use survey::{ClockReading, RedisTold, survey};
