//! What tests need and cargo does not bring. Packages of the system: installed when root runs us, else named with the line that installs
//! them. And files from Python packages, pinned by their hashes, below the target folder.

use std::path::Path;
use std::process::Command;

use anyhow::{bail, ensure};

use crate::process::{run, succeeds, target};

struct Package {
    name: &'static str,
    is_present: fn() -> bool,
}

/// One line per package, with a check that does not depend on how it was installed.
const PACKAGES: [Package; 9] = [
    Package { name: "postgresql", is_present: postgresql_is_present },
    Package { name: "redis-server", is_present: redis_is_present },
    Package { name: "python3-pip", is_present: pip_is_present },
    Package { name: "openssl", is_present: openssl_is_present },
    Package { name: "valgrind", is_present: valgrind_is_present },
    Package { name: "chromium", is_present: chromium_is_present },
    Package { name: "fontconfig", is_present: fontconfig_is_present },
    Package { name: "fonts-dejavu-core", is_present: latin_and_arabic_are_present },
    Package { name: "fonts-droid-fallback", is_present: chinese_is_present },
];
const AXE_REQUIREMENTS: &str = "xtask/axe-requirements.txt";

pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    check_packages()?;
    crate::services::nats_server(root)?;
    // The tests of pages look for it there.
    let axe = target(root).join("axe");
    from_python(root, AXE_REQUIREMENTS, &axe, &axe.join("axe_playwright_python/axe.min.js"))
}

/// Installs what `requirements` pins into `folder`, unless `file` of it is there.
pub(crate) fn from_python(root: &Path, requirements: &str, folder: &Path, file: &Path) -> anyhow::Result<()> {
    if file.exists() {
        return Ok(());
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]);
    run(pip.arg("--target").arg(folder).arg("-r").arg(requirements).current_dir(root))?;
    ensure!(file.exists(), "pip installed no {}", file.display());
    Ok(())
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

/// It brings the NATS server, which Debian has only in a version that is not safe, and axe-core, which it does not have.
fn pip_is_present() -> bool {
    succeeds(Command::new("python3").args(["-m", "pip", "--version"]))
}

fn openssl_is_present() -> bool {
    succeeds(Command::new("openssl").arg("version"))
}

/// It counts instructions.
fn valgrind_is_present() -> bool {
    succeeds(Command::new("valgrind").arg("--version"))
}

fn chromium_is_present() -> bool {
    succeeds(Command::new("chromium").arg("--version"))
}

/// It says which languages the others are for.
fn fontconfig_is_present() -> bool {
    succeeds(Command::new("fc-list").arg("--version"))
}

fn latin_and_arabic_are_present() -> bool {
    ["en", "ar"].iter().all(|language| has_font_for(language))
}

fn chinese_is_present() -> bool {
    has_font_for("zh")
}

fn has_font_for(language: &str) -> bool {
    succeeds(Command::new("fc-list").arg("--quiet").arg(format!(":lang={language}")))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}
