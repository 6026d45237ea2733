//! `cargo xtask services up|down`: private copies of the servers of a cluster, on loopback ports of this machine.

use std::path::{Path, PathBuf};

use services::process::Life;

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
    let target = program.parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    crate::packages::from_python(root, REQUIREMENTS, &target, &program)?;
    Ok(program)
}
