//! The system packages that tests need: installed when root runs us, else named with the line that installs them.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::process::{run, succeeds};

struct Package {
    name: &'static str,
    is_present: fn() -> bool,
}

/// One line per package, with a check that does not depend on how it was installed.
const PACKAGES: [Package; 4] = [
    Package { name: "postgresql", is_present: postgresql_is_present },
    Package { name: "redis-server", is_present: redis_is_present },
    Package { name: "python3-pip", is_present: pip_is_present },
    Package { name: "openssl", is_present: openssl_is_present },
];

pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    check_packages()?;
    crate::services::nats_server(root).map(drop)
}

fn check_packages() -> anyhow::Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|package| !(package.is_present)()).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        bail!(
            "tests need system packages; install them with:\n    sudo apt-get update && sudo apt-get install -y {}",
            missing.join(" ")
        );
    }
    run(Command::new("apt-get").arg("update"))?;
    run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y"]).args(&missing))?;
    for package in PACKAGES {
        if !(package.is_present)() {
            bail!("apt-get installed {} but its programs are still not found", package.name);
        }
    }
    Ok(())
}

/// Debian keeps the server's programs out of the path, in one folder per version.
fn postgresql_is_present() -> bool {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .is_ok_and(|versions| versions.flatten().any(|version| version.path().join("bin/initdb").is_file()));
    debian || succeeds(Command::new("initdb").arg("--version"))
}

fn redis_is_present() -> bool {
    succeeds(Command::new("redis-server").arg("--version"))
}

/// It brings the NATS server, which Debian has only in a version that is not safe.
fn pip_is_present() -> bool {
    succeeds(Command::new("python3").args(["-m", "pip", "--version"]))
}

fn openssl_is_present() -> bool {
    succeeds(Command::new("openssl").arg("version"))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}
