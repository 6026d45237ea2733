//! `[human_check]` of the configuration, and `doorbuster sale human-check`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use domain::{HumanCheck, limits};
use http::Method;
use serde::{Deserialize, Serialize};
use web::HumanOptions;

use crate::config::Settings;
use crate::data_client::Operator;
use crate::report;
use crate::sale::Target;

const FLOOR_MILLISECONDS_MAX: u64 = 10_000;
const SECONDS_MAX: u64 = 24 * 3_600;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HumanCheckSettings {
    proof_rounds: u32,
    challenge_seconds: u64,
    letters_floor_milliseconds: u64,
    proof_floor_milliseconds: u64,
    failure_fades_seconds: u64,
    block_seconds: u64,
    block_seconds_max: u64,
}

impl Settings {
    /// How human checks behave; an error says which key is wrong.
    pub(crate) fn human_options(&self) -> anyhow::Result<HumanOptions> {
        let check = &self.human_check;
        let rounds_max = limits::PROOF_ROUNDS_MAX;
        ensure!((1..=rounds_max).contains(&check.proof_rounds), "human_check.proof_rounds: 1 to {rounds_max}");
        ensure!((1..=3_600).contains(&check.challenge_seconds), "human_check.challenge_seconds: 1 to 3600");
        for (key, floor) in [
            ("letters_floor_milliseconds", check.letters_floor_milliseconds),
            ("proof_floor_milliseconds", check.proof_floor_milliseconds),
        ] {
            ensure!(floor <= FLOOR_MILLISECONDS_MAX, "human_check.{key}: {FLOOR_MILLISECONDS_MAX} at most");
            ensure!(
                floor < check.challenge_seconds * 1_000,
                "human_check.challenge_seconds: longer than human_check.{key}, or nobody could answer in time"
            );
        }
        let fades = check.failure_fades_seconds;
        ensure!((1..=SECONDS_MAX).contains(&fades), "human_check.failure_fades_seconds: 1 to {SECONDS_MAX}");
        let (first, max) = (check.block_seconds, check.block_seconds_max);
        ensure!((1..=max).contains(&first), "human_check.block_seconds: 1 to block_seconds_max");
        ensure!(max <= SECONDS_MAX, "human_check.block_seconds_max: {SECONDS_MAX} at most");
        Ok(HumanOptions {
            proof_rounds: check.proof_rounds,
            lifetime: Duration::from_secs(check.challenge_seconds),
            letters_floor: Duration::from_millis(check.letters_floor_milliseconds),
            proof_floor: Duration::from_millis(check.proof_floor_milliseconds),
            failure_fades_after: Duration::from_secs(fades),
            block: (Duration::from_secs(first), Duration::from_secs(max)),
        })
    }
}

/// A check as the command line names it.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum CheckName {
    /// Nothing is asked.
    None,
    /// The device computes for a moment; people do nothing.
    ProofOfWork,
    /// People read letters in a picture, or hear them.
    Answer,
    /// The same with pictures that an edge may keep.
    Static,
}

pub(crate) fn set(sale: &str, check: CheckName, to: &Target) -> anyhow::Result<ExitCode> {
    let check = match check {
        CheckName::None => None,
        CheckName::ProofOfWork => Some(HumanCheck::ProofOfWork),
        CheckName::Answer => Some(HumanCheck::Answer),
        CheckName::Static => Some(HumanCheck::Static),
    };
    let body = serde_json::json!({ "human_check": HumanCheck::name_of(check) });
    let operator = Operator::of(&Settings::load(&to.config)?.data.folder)?;
    let answer = operator.ask(Method::PUT, &format!("/admin/v1/sales/{sale}/human-check"), Some(&body))?;
    if to.json {
        return report::json(&answer);
    }
    report::say(&format!("{sale}  human check {}", answer["human_check"].as_str().unwrap_or_default()));
    Ok(ExitCode::SUCCESS)
}
