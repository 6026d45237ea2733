//! `cargo xtask services up|down`: private copies of the servers of a cluster, on loopback ports of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use services::process::Life;

use crate::process::run as run_command;

const REQUIREMENTS: &str = "xtask/nats-requirements.txt";

/// Starts everything, and says where it is.
pub(crate) fn up(root: &Path, folder: Option<PathBuf>) -> anyhow::Result<()> {
    crate::packages::check(root)?;
    let nats = services::nats::program();
    let cluster = services::up(Life::ItsOwn, &folder_of(root, folder), &nats, &|part| eprintln!("services: {part}"))?;
    eprintln!("services: all are ready; addresses and passwords are in {}", cluster.file.display());
    Ok(())
}

/// Ends everything, and removes what it wrote.
pub(crate) fn down(root: &Path, folder: Option<PathBuf>) -> anyhow::Result<()> {
    let ended = services::down(&folder_of(root, folder))?;
    eprintln!("services: {ended} servers ended");
    Ok(())
}

fn folder_of(root: &Path, folder: Option<PathBuf>) -> PathBuf {
    folder.unwrap_or_else(|| root.join("target/services"))
}

/// The NATS server, installed under `target` when it is not there yet; the packager's file is pinned by its hash.
pub(crate) fn nats_server(root: &Path) -> anyhow::Result<PathBuf> {
    let program = services::nats::program();
    if !program.exists() {
        let target = program.parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
            "--target",
        ]);
        run_command(pip.arg(&target).arg("-r").arg(REQUIREMENTS).current_dir(root))?;
        ensure!(program.exists(), "pip installed no {}", program.display());
    }
    Ok(program)
}
