//! `[overload]` of the configuration.

use anyhow::ensure;
use limiter::overload::{Bounds, IN_FLIGHT_MIN};
use serde::{Deserialize, Serialize};
use web::OverloadOptions;

use crate::config::Settings;

const PER_SECOND_MAX: u32 = 1_000_000;
const IN_FLIGHT_MAX: u32 = 1_000_000;
const MILLISECONDS_MAX: u64 = 60_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OverloadSettings {
    in_flight_max: u32,
    queue_milliseconds_max: u64,
    decision_milliseconds_max: u64,
    requests_per_second_max: u32,
    passes_per_second_max: u32,
}

impl Settings {
    /// From where on requests are left out; an error says which key is wrong.
    pub(crate) fn overload_options(&self) -> anyhow::Result<OverloadOptions> {
        let overload = &self.overload;
        let in_flight_max = overload.in_flight_max;
        ensure!(
            in_flight_max == 0 || (IN_FLIGHT_MIN..=IN_FLIGHT_MAX).contains(&in_flight_max),
            "overload.in_flight_max: {IN_FLIGHT_MIN} to {IN_FLIGHT_MAX}; 0 is no ceiling"
        );
        for (key, milliseconds) in [
            ("queue_milliseconds_max", overload.queue_milliseconds_max),
            ("decision_milliseconds_max", overload.decision_milliseconds_max),
        ] {
            ensure!((1..=MILLISECONDS_MAX).contains(&milliseconds), "overload.{key}: 1 to {MILLISECONDS_MAX}");
        }
        for (key, per_second) in [
            ("requests_per_second_max", overload.requests_per_second_max),
            ("passes_per_second_max", overload.passes_per_second_max),
        ] {
            ensure!(per_second <= PER_SECOND_MAX, "overload.{key}: {PER_SECOND_MAX} at most; 0 is no ceiling");
        }
        Ok(OverloadOptions {
            bounds: Bounds {
                queue_milliseconds: overload.queue_milliseconds_max,
                decision_milliseconds: overload.decision_milliseconds_max,
                in_flight_max,
            },
            requests_per_second_max: overload.requests_per_second_max,
            passes_per_second_max: overload.passes_per_second_max,
        })
    }
}
