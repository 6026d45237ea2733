//! Whoever decides a sale at the moment: Redis, or the process that has taken the sale over.

use std::time::Duration;

use admission::core::Verdict;
use admission::redis::{DECIDE, verdict};
use bytes::Bytes;
use fastrand::Rng;
use redis::Value;

use crate::follower::Follower;
use crate::ladder::{Ladder, Rung};
use crate::link::{Link, LinkError};
use crate::options::RedisOptions;
use crate::takeover::OWNER;
use crate::wire::{decode_decisions, encode_call};

/// One request as it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    /// Under which epoch.
    pub(crate) epoch: u64,
    /// It counts once the chain has all records below.
    pub(crate) next: u64,
}

/// The ways to it.
pub(crate) struct Decider<'a> {
    link: Link,
    follower: &'a Follower,
    ladder: &'a Ladder,
    random: Rng,
    /// Whether Redis did not take us in when it was last asked.
    is_refused: bool,
}

impl<'a> Decider<'a> {
    pub(crate) fn new(options: &RedisOptions, follower: &'a Follower, ladder: &'a Ladder, random: Rng) -> Self {
        Self { link: Link::new(options, &follower.name), follower, ladder, random, is_refused: false }
    }

    /// Has the requests decided whose arguments these are, by whoever is said to decide; else by the other one. After an error it is
    /// not known whether they were.
    pub(crate) async fn decide(&mut self, arguments: &[Vec<u8>], count: usize) -> Result<Vec<Decision>, LinkError> {
        if self.ladder.rung() == Rung::Takeover
            && let Ok(decisions) = self.owner_decides(arguments, count).await
        {
            return Ok(decisions);
        }
        let decided = self.redis_decides(arguments, count).await;
        let refused = if let Err(LinkError::Refused(reason)) = &decided { Some(reason.clone()) } else { None };
        if refused.is_some() || self.is_refused {
            self.is_refused = refused.is_some();
            self.ladder.set_refused(refused);
        }
        match decided {
            Err(error) => self.owner_decides(arguments, count).await.map_err(|_| error),
            decided => decided,
        }
    }

    async fn redis_decides(&mut self, arguments: &[Vec<u8>], count: usize) -> Result<Vec<Decision>, LinkError> {
        let reply: Vec<Value> = self.link.call(DECIDE, arguments).await?;
        decisions(reply, count).ok_or_else(|| LinkError::Fenced("its library speaks another language".to_owned()))
    }

    /// Where nobody has taken the sale over, this fails at once.
    async fn owner_decides(&self, arguments: &[Vec<u8>], count: usize) -> Result<Vec<Decision>, LinkError> {
        let store = &self.follower.store;
        let call = Bytes::from(encode_call(arguments));
        let reply = store.client().request(store.beside(OWNER, &self.follower.name), call).await;
        let reply = reply.map_err(|error| LinkError::Unreachable(error.to_string()))?;
        let decisions = decode_decisions(&reply.payload).filter(|decisions| decisions.len() == count);
        decisions.ok_or_else(|| LinkError::Unreachable("the owner speaks another language".to_owned()))
    }

    /// Finds out anew who decides.
    pub(crate) fn look_again(&mut self) {
        self.link.reset();
    }

    /// Half of `pause` to all of it, so that not everybody comes back at once.
    pub(crate) fn jitter(&mut self, pause: Duration) -> Duration {
        pause.mul_f64(0.5 + self.random.f64() / 2.0)
    }
}

fn decisions(reply: Vec<Value>, count: usize) -> Option<Vec<Decision>> {
    let mut reply = reply.into_iter();
    let epoch = redis::from_redis_value(reply.next()?).ok()?;
    let decision = |value| {
        let (what, number, retry_at, next): (String, u64, u64, u64) = redis::from_redis_value(value).ok()?;
        Some(Decision { verdict: verdict(&what, number, retry_at)?, epoch, next })
    };
    let decisions: Vec<_> = reply.map(decision).collect::<Option<_>>()?;
    (decisions.len() == count).then_some(decisions)
}
