//! `cargo xtask fuzz`: the tests of any bytes for minutes instead of a second, with the compiler's coverage counters, so that an input that
//! reaches new code is kept and changed further. Nothing has to be installed for it.

use std::path::Path;

use crate::process::{cargo, host, run as run_command, target};

/// What has such tests, and where. A program without them has nobody who takes its counters, and is not built.
const PROGRAMS: [&[&str]; 2] = [
    &["-p", "gate", "-p", "limiter", "-p", "payment", "-p", "webhooks", "--test", "any_bytes"],
    &["-p", "web", "--lib"],
];
/// How the tests' names begin.
const TESTS: &str = "any_byte";
/// Counters at every branch. Nothing else is compiled differently, optimisation neither.
const FLAGS: &str = "--cfg=guided -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters";

pub(crate) fn run(root: &Path, minutes: u64) -> anyhow::Result<()> {
    // A target folder of its own: everything is compiled anew for it, and the usual one stays as it is.
    let folder = target(root).join("fuzz");
    // With a named target the flags are not for what runs while compiling.
    let host = host()?;
    for program in PROGRAMS {
        let mut command = cargo(root, &["test", "--locked", "--target", &host, "--no-fail-fast"]);
        // One after the other: the counters are those of the whole process.
        command.args(program).args([TESTS, "--", "--test-threads=1", "--nocapture"]);
        command.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &folder);
        command.env("DOORBUSTER_FUZZ_FOLDER", folder.join("inputs"));
        command.env("DOORBUSTER_FUZZ_SECONDS", (minutes * 60).to_string());
        run_command(&mut command)?;
    }
    Ok(())
}
