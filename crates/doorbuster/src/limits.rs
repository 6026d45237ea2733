//! `[limits]` of the configuration, and the proxies that are believed.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use limiter::{BURST_MAX, PER_SECOND_MAX, Prefix};
use serde::{Deserialize, Serialize};
use web::{LimitOptions, Rate};

use crate::config::Settings;

/// More than any machine that sells has to spare.
const MEBIBYTES_MAX: usize = 1_024;
/// Longer than a reply of Redis may take, nobody waits.
const SHARED_WAIT_MILLISECONDS_MAX: u64 = 1_000;
const BLOCK_SECONDS_MAX: u64 = 24 * 3_600;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitSettings {
    address_passes_per_second: u32,
    address_passes_burst: u32,
    address_purchases_per_second: u32,
    address_purchases_burst: u32,
    address_status_per_second: u32,
    address_status_burst: u32,
    customer_passes_per_second: u32,
    customer_passes_burst: u32,
    customer_purchases_per_second: u32,
    customer_purchases_burst: u32,
    customer_status_per_second: u32,
    customer_status_burst: u32,
    hammering_per_second: u32,
    hammering_burst: u32,
    automatic_block_seconds: u64,
    automatic_block_seconds_max: u64,
    loopback: bool,
    memory_mebibytes: usize,
    pub(crate) shared_wait_milliseconds: u64,
}

impl Settings {
    /// Who may ask how often; an error says which key is wrong.
    pub(crate) fn limit_options(&self) -> anyhow::Result<LimitOptions> {
        let limits = &self.limits;
        let rate = |what: &str, per_second: u32, burst: u32| {
            ensure!(per_second <= PER_SECOND_MAX, "limits.{what}_per_second: {PER_SECOND_MAX} at most; 0 is no limit");
            ensure!((1..=BURST_MAX).contains(&burst), "limits.{what}_burst: 1 to {BURST_MAX}");
            Ok(Rate { per_second, burst })
        };
        let address = [
            rate("address_passes", limits.address_passes_per_second, limits.address_passes_burst)?,
            rate("address_purchases", limits.address_purchases_per_second, limits.address_purchases_burst)?,
            rate("address_status", limits.address_status_per_second, limits.address_status_burst)?,
        ];
        let customer = [
            rate("customer_passes", limits.customer_passes_per_second, limits.customer_passes_burst)?,
            rate("customer_purchases", limits.customer_purchases_per_second, limits.customer_purchases_burst)?,
            rate("customer_status", limits.customer_status_per_second, limits.customer_status_burst)?,
        ];
        let hammering = rate("hammering", limits.hammering_per_second, limits.hammering_burst)?;
        let (first, max) = (limits.automatic_block_seconds, limits.automatic_block_seconds_max);
        ensure!((1..=max).contains(&first), "limits.automatic_block_seconds: 1 to automatic_block_seconds_max");
        ensure!(max <= BLOCK_SECONDS_MAX, "limits.automatic_block_seconds_max: {BLOCK_SECONDS_MAX} at most");
        ensure!(
            (1..=SHARED_WAIT_MILLISECONDS_MAX).contains(&limits.shared_wait_milliseconds),
            "limits.shared_wait_milliseconds: 1 to {SHARED_WAIT_MILLISECONDS_MAX}"
        );
        let mebibytes = limits.memory_mebibytes;
        ensure!((1..=MEBIBYTES_MAX).contains(&mebibytes), "limits.memory_mebibytes: 1 to {MEBIBYTES_MAX}");
        Ok(LimitOptions {
            trusted_proxies: self.trusted_proxies()?,
            loopback: limits.loopback,
            memory_bytes: mebibytes << 20,
            address,
            customer,
            hammering,
            automatic_block: (Duration::from_secs(first), Duration::from_secs(max)),
        })
    }

    fn trusted_proxies(&self) -> anyhow::Result<Vec<Prefix>> {
        let proxies = self.public.trusted_proxies.iter();
        let parse = |text: &String| {
            let prefix: Prefix = text.parse().with_context(|| format!("public.trusted_proxies: {text}"))?;
            ensure!(
                !prefix.is_too_wide(),
                "public.trusted_proxies: {text} is a large part of everybody, who could claim to be anybody else; a /8 of IPv4 and a /16 of IPv6 are the widest"
            );
            Ok(prefix)
        };
        proxies.map(parse).collect()
    }
}
