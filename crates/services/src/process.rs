//! Processes of servers: started with their output in a file, known by their folder, ended for sure.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to be ready.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a server may take to end when it is asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// In each folder of running servers: a line for each, its process number and its name.
const PROCESSES: &str = "processes";

/// How long a server lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// As long as the process that started it.
    Ours,
    /// Until [`stop_all`] in the same folder.
    ItsOwn,
}

/// A server that was started.
#[derive(Debug)]
pub struct Started {
    /// For messages.
    pub name: String,
    child: Child,
    life: Life,
    log: PathBuf,
}

impl Started {
    /// Starts `program` in `folder`, which stands in its command line; its output goes to `name.log` there.
    pub fn new(life: Life, folder: &Path, name: &str, mut command: Command) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = fs::File::create(&log)?;
        let program = command.get_program().to_string_lossy().into_owned();
        command.current_dir(folder).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // An interrupt at the terminal is for whoever started the servers.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("{program} cannot be started"))?;
        let started = Self { name: name.to_owned(), child, life, log };
        if life == Life::ItsOwn {
            let mut processes = fs::File::options().create(true).append(true).open(folder.join(PROCESSES))?;
            io::Write::write_all(&mut processes, format!("{} {name}\n", started.id()).as_bytes())?;
        }
        Ok(started)
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `look` finds something; fails with the server's last words when it ends before, or takes too long.
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before {what}: {}", self.name, self.last_words());
            }
            if start.elapsed() > START_PATIENCE {
                bail!("{} runs without {what}: {}", self.name, self.last_words());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.id().cast_signed()).context("a started process has a number")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Whether it stands still, as SIGSTOP leaves it: no thread of it does anything any more.
    pub fn is_frozen(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, behind)| behind.starts_with('T'))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// kill -9, over when it returns.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and sees to it that it does.
    pub fn end(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        let asked = self.signal(Signal::INT).is_ok();
        while asked && start.elapsed() < STOP_PATIENCE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.life == Life::Ours {
            // One that has ended already is what is wanted.
            drop(self.end());
        }
    }
}

/// A command that dies with this process where its life is ours.
pub fn command(life: Life, program: impl AsRef<std::ffi::OsStr>) -> Command {
    match life {
        Life::Ours => {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        }
        Life::ItsOwn => Command::new(program),
    }
}

/// Ends every server that was started with a life of its own in `folder`; gives how many were running.
pub fn stop_all(folder: &Path) -> anyhow::Result<usize> {
    let list = folder.join(PROCESSES);
    let Ok(text) = fs::read_to_string(&list) else { return Ok(0) };
    let servers: Vec<Pid> = text
        .lines()
        .filter_map(|line| Pid::from_raw(line.split(' ').next()?.parse().ok()?))
        .filter(|pid| is_in(*pid, folder))
        .collect();
    for pid in &servers {
        // It may end by itself at any moment.
        let _ = kill_process(*pid, Signal::INT);
    }
    let start = Instant::now();
    while servers.iter().any(|pid| is_in(*pid, folder)) {
        if start.elapsed() > STOP_PATIENCE {
            for pid in servers.iter().filter(|pid| is_in(**pid, folder)) {
                let _ = kill_process(*pid, Signal::KILL);
            }
        }
        if start.elapsed() > 2 * STOP_PATIENCE {
            bail!("servers in {} do not end", folder.display());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    fs::remove_file(list)?;
    Ok(servers.len())
}

/// Whether the process is one of that folder: numbers are used again, and a stranger's process must not be ended.
fn is_in(pid: Pid, folder: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let ended = fs::read_to_string(process.join("stat")).is_ok_and(|stat| stat.contains(") Z "));
    !ended && fs::read_link(process.join("cwd")).is_ok_and(|works_in| works_in.starts_with(folder))
}

/// So many loopback ports that nobody uses; all different.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<io::Result<_>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// A port on this machine alone.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A password that nobody guesses.
pub fn password() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("no random bytes")?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}
