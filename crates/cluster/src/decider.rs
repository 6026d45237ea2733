//! Whoever decides a sale at the moment: Redis, or the process that has taken the sale over.

use std::time::Duration;

use admission::core::Verdict;
use admission::redis::{DECIDE, verdict};
use fastrand::Rng;
use redis::Value;

use crate::link::{Link, LinkError};
use crate::options::RedisOptions;

/// One request as it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    /// Under which epoch.
    pub(crate) epoch: u64,
    /// It counts once the chain has all records below.
    pub(crate) next: u64,
}

/// The way to it.
pub(crate) struct Decider {
    link: Link,
    random: Rng,
}

impl Decider {
    pub(crate) fn new(options: &RedisOptions, sale: &str, random: Rng) -> Self {
        Self { link: Link::new(options, sale), random }
    }

    /// Has the requests decided whose arguments these are. After an error it is not known whether they were.
    pub(crate) async fn decide(&mut self, arguments: &[Vec<u8>], count: usize) -> Result<Vec<Decision>, LinkError> {
        let reply: Vec<Value> = self.link.call(DECIDE, arguments).await?;
        decisions(reply, count).ok_or_else(|| LinkError::Fenced("its library speaks another language".to_owned()))
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
