//! The machine under the figures: what it is, how fast its disk syncs, and which two cores are for server and client.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use rustix::thread::sched_getaffinity;
use serde::Serialize;

/// Writes that are synced to learn what a sync takes.
const SYNCS: u64 = 500;

/// What the figures were measured on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    /// Cores that this process may use.
    cores: usize,
    kernel: String,
    filesystem: String,
    device: String,
    #[serde(skip)]
    usable: Vec<usize>,
}

impl Machine {
    /// Looks at the machine; refuses a folder in memory, where a sync means nothing.
    pub(crate) fn look(folder: &Path) -> anyhow::Result<Self> {
        let (filesystem, device) = mounted(folder)?;
        if matches!(filesystem.as_str(), "tmpfs" | "ramfs") || !(device.starts_with("/dev/") || filesystem == "overlay")
        {
            bail!(
                "{} lies on {filesystem} ({device}), where a sync costs nothing; choose a folder on a block device with --data",
                folder.display()
            );
        }
        let allowed = sched_getaffinity(None).context("the cores cannot be read")?;
        let usable: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Ok(Self {
            cpu: cpu.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            cores: usable.len(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            filesystem,
            device,
            usable,
        })
    }

    /// A core for the server and another for the client.
    pub(crate) fn cores(&self) -> anyhow::Result<(usize, usize)> {
        match self.usable[..] {
            [server, client, ..] => Ok((server, client)),
            _ => bail!("server and client need a core each"),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} cores, Linux {}, {} on {}", self.cpu, self.cores, self.kernel, self.filesystem, self.device)
    }
}

/// File system and device of the mount that `folder` lies on.
fn mounted(folder: &Path) -> anyhow::Result<(String, String)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("the mounts cannot be read")?;
    let mut best: Option<(usize, String, String)> = None;
    for line in mounts.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let point = front.split(' ').nth(4).unwrap_or("/").replace("\\040", " ");
        let mut fields = back.split(' ');
        let (filesystem, device) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        // Of several mounts on one point the last one is seen.
        if folder.starts_with(&point) && best.as_ref().is_none_or(|(length, ..)| point.len() >= *length) {
            best = Some((point.len(), filesystem.to_owned(), device.to_owned()));
        }
    }
    best.map(|(_, filesystem, device)| (filesystem, device)).context("the data folder lies on no mount")
}

/// p50 and p99 in milliseconds of writing 4 KiB to a preallocated file and syncing it.
pub(crate) fn sync_milliseconds(folder: &Path) -> anyhow::Result<(f64, f64)> {
    let path = folder.join("syncs");
    let file = File::create(&path)?;
    let block = [1; 4096];
    for number in 0..SYNCS {
        file.write_all_at(&[0; 4096], number * 4096)?;
    }
    file.sync_all()?;
    let mut microseconds = Histogram::<u64>::new(3)?;
    for number in 0..SYNCS {
        let start = Instant::now();
        file.write_all_at(&block, number * 4096)?;
        file.sync_data()?;
        microseconds.record(start.elapsed().as_micros() as u64)?;
    }
    fs::remove_file(&path)?;
    let at = |quantile| microseconds.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok((at(0.5), at(0.99)))
}
