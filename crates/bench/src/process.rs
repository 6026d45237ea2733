//! Processes of the bench: started from this executable, told their work as JSON, answering in lines, dying with their parent.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bare::BareJob;
use crate::classic::ClassicJob;
use crate::client::ClientJob;
use crate::grow::GrowJob;
use crate::postgres::PostgresJob;
use crate::server::ServerJob;
use crate::{bare, classic, client, grow, postgres, server};

/// The hidden subcommand under which the binary calls [`crate::child`].
const SUBCOMMAND: &str = "bench-child";

/// What a process is for.
#[derive(Serialize, Deserialize)]
pub(crate) enum Job {
    /// The engine behind its listeners, as `serve` runs it.
    Server(ServerJob),
    /// The server to compare with.
    Bare(BareJob),
    /// The lean client.
    Client(ClientJob),
    /// An owner that decides in process.
    Grow(GrowJob),
    /// The client of PostgreSQL.
    Postgres(PostgresJob),
    /// Buyers who go the classic way.
    Classic(ClassicJob),
}

/// The child's side: does the job on the command line.
pub(crate) fn child(args: &[String]) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot bind this process to its parent")?;
    let [job] = args else { bail!("this subcommand is for the bench itself") };
    match serde_json::from_str(job).context("this subcommand is for the bench itself")? {
        Job::Server(job) => server::serve(&job),
        Job::Bare(job) => bare::serve(&job),
        Job::Client(job) => tell(&client::run(&job)?),
        Job::Grow(job) => tell(&grow::run(&job)?),
        Job::Postgres(job) => tell(&postgres::client(&job)?),
        Job::Classic(job) => classic::buyers(&job),
    }
}

/// Tells the parent one line.
pub(crate) fn tell(value: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    io::stdout().write_all(&line)?;
    Ok(io::stdout().flush()?)
}

/// Returns when the parent wants this process to end.
pub(crate) fn wait_for_end() -> io::Result<()> {
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

/// Keeps this thread, and those it starts from now on, on one core.
pub(crate) fn pin(core: Option<usize>) -> anyhow::Result<()> {
    let Some(core) = core else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on core {core}"))
}

/// CPU seconds, user and system, that a process has used; exact to a hundredth.
pub(crate) fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").context("/proc/PID/stat has no name")?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok()).context("/proc/PID/stat is short");
    // USER_HZ is 100 on every Linux that programs see.
    Ok((ticks()? + ticks()?) as f64 / 100.0)
}

/// Bytes of this process that lie in memory.
pub(crate) fn resident_bytes() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc/self/status")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1_024)
}

/// The parent's side of a child. Killed when dropped, unless it was let finish.
pub(crate) struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts a child on a job. Must be called on the main thread: a child ends with the thread that started it.
    pub(crate) fn start(job: &Job) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's own file cannot be found")?;
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            .arg(serde_json::to_string(job)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a process of the bench cannot be started")?;
        let output = child.stdout.take().context("a child without an output")?;
        Ok(Self { input: child.stdin.take(), output: BufReader::new(output), child })
    }

    /// The next line that the child tells.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("a process of the bench ended early: {}", self.child.wait()?);
        }
        Ok(serde_json::from_str(&line)?)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lets the child end, and waits for it.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        drop(self.input.take());
        let status = self.child.wait()?;
        if !status.success() {
            bail!("a process of the bench failed: {status}");
        }
        Ok(())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a job that tells one line and ends.
pub(crate) fn ask<T: DeserializeOwned>(job: &Job) -> anyhow::Result<T> {
    let mut helper = Helper::start(job)?;
    let told = helper.hear()?;
    helper.finish()?;
    Ok(told)
}
