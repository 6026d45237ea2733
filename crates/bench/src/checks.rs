//! What stands before a purchase in the bench's server: the ceilings of `serve`, and for some figures limits and a block list. Where it is not
//! overload that is measured they are so high, and so foreign, that nobody is refused by them and everybody is looked at.

use std::path::Path;
use std::time::Duration;

use engine::{BlockTarget, Engine};
use ledger::Pace;
use limiter::overload::Bounds;
use limiter::{BURST_MAX, PER_SECOND_MAX};
use serde::{Deserialize, Serialize};
use web::{AppOptions, HumanOptions, LimitOptions, OverloadOptions, Rate};

use crate::deployment::{ISSUER, engine_options};

/// Entries of the block list, of either kind.
const BLOCKED: u16 = 250;

/// What the server looks at before it decides.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Checks {
    /// How long may be waited for the serving thread, in milliseconds.
    pub(crate) queue_milliseconds: u64,
    /// Limits by address and by customer, also for this machine.
    pub(crate) has_limits: bool,
    /// A ceiling on requests a second; 0 is none.
    pub(crate) requests_per_second_max: u32,
}

/// A server whose core has other work stands still at times. In a closed loop that makes it slower, and no overload.
impl Default for Checks {
    fn default() -> Self {
        Self { queue_milliseconds: 5_000, has_limits: false, requests_per_second_max: 0 }
    }
}

impl Checks {
    /// The ceilings as `serve` has them by default.
    pub(crate) fn of_serve() -> Self {
        Self { queue_milliseconds: 50, ..Self::default() }
    }

    /// The options of `serve`, with what is asked for.
    pub(crate) fn options(self) -> AppOptions {
        let queue_milliseconds = self.queue_milliseconds;
        let bounds =
            Bounds { queue_milliseconds, decision_milliseconds: 10 * queue_milliseconds, in_flight_max: 16_000 };
        let requests_per_second_max = self.requests_per_second_max;
        AppOptions {
            purchase_wait_seconds: 10,
            limits: if self.has_limits { limits() } else { LimitOptions::default() },
            overload: OverloadOptions { bounds, requests_per_second_max, passes_per_second_max: 5_000 },
            human: HumanOptions::default(),
        }
    }
}

fn limits() -> LimitOptions {
    let high = Rate { per_second: PER_SECOND_MAX, burst: BURST_MAX };
    LimitOptions {
        trusted_proxies: Vec::new(),
        loopback: true,
        memory_bytes: 64 << 20,
        address: [high; 3],
        customer: [high; 3],
        hammering: Rate { per_second: 20, burst: 500 },
        automatic_block: (Duration::from_secs(10), Duration::from_secs(600)),
    }
}

/// Puts networks and customers that nobody of the bench is among onto the block list of a folder that nobody serves.
pub(crate) fn block_others(folder: &Path) -> anyhow::Result<()> {
    let engine = Engine::start(folder, engine_options(Pace::Unlimited))?;
    for number in 0..BLOCKED {
        let network = format!("203.{}.{}.0/24", number >> 8, number & 0xff).parse()?;
        let customer = engine.customer_hash(ISSUER, &format!("blocked-{number}"));
        for target in [BlockTarget::Addresses(network), BlockTarget::Customer(customer)] {
            engine.add_block(&target, "bench", "bench", None)?;
        }
    }
    engine.stop();
    Ok(())
}
