//! The DevTools protocol on two pipes: JSON messages that end with a zero byte. One thread reads; whoever asks waits for the answer with
//! its number, and events go to the page that they are about.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::watch::Watch;

/// How long the browser, or a page in it, may take for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct Pipe {
    input: Mutex<ChildStdin>,
    last_id: AtomicU64,
    /// Who waits for which answer.
    waiting: Mutex<HashMap<u64, SyncSender<Value>>>,
    /// By session.
    pages: Mutex<HashMap<String, Arc<Watch>>>,
    /// What the browser says on the side.
    stderr: PathBuf,
}

/// A test that panicked has left nothing half-done in here.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pipe {
    pub(super) fn open(child: &mut Child, stderr: PathBuf) -> Arc<Self> {
        let input = child.stdin.take().expect("the input is a pipe");
        let output = child.stdout.take().expect("the output is a pipe");
        let pipe = Arc::new(Self {
            input: Mutex::new(input),
            last_id: AtomicU64::new(0),
            waiting: Mutex::default(),
            pages: Mutex::default(),
            stderr,
        });
        let reader = Arc::clone(&pipe);
        std::thread::spawn(move || reader.read(output));
        pipe
    }

    /// Events of this session go to `watch` from now on.
    pub(super) fn listen(&self, session: &str, watch: &Arc<Watch>) {
        lock(&self.pages).insert(session.to_owned(), Arc::clone(watch));
    }

    pub(super) fn forget(&self, session: &str) {
        lock(&self.pages).remove(session);
    }

    /// Sends a command whose answer is of no interest.
    pub(super) fn tell(&self, session: Option<&str>, method: &str, parameters: &Value) {
        // A browser that has ended needs no telling; whoever asks next hears of it.
        let _ = self.send(self.next_id(), session, method, parameters);
    }

    /// Sends a command and waits for what it gives.
    pub(super) fn ask(&self, session: Option<&str>, method: &str, parameters: &Value) -> Result<Value, String> {
        let id = self.next_id();
        let (sender, receiver) = sync_channel(1);
        lock(&self.waiting).insert(id, sender);
        self.send(id, session, method, parameters).map_err(|error| self.ended(&error.to_string()))?;
        match receiver.recv_timeout(PATIENCE) {
            Ok(answer) if answer["error"].is_object() => Err(format!("{method}: {}", answer["error"]["message"])),
            Ok(mut answer) => Ok(answer["result"].take()),
            Err(RecvTimeoutError::Disconnected) => Err(self.ended("it closed the pipe")),
            Err(RecvTimeoutError::Timeout) => {
                lock(&self.waiting).remove(&id);
                Err(format!("{method}: no answer after {} s", PATIENCE.as_secs()))
            }
        }
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn send(&self, id: u64, session: Option<&str>, method: &str, parameters: &Value) -> std::io::Result<()> {
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        lock(&self.input).write_all(&bytes)
    }

    fn ended(&self, sign: &str) -> String {
        let said = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        format!("the browser has ended ({sign}); its last words:\n{said}")
    }

    /// Until the browser ends. It never waits for a page.
    fn read(&self, output: ChildStdout) {
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        while matches!(output.read_until(0, &mut bytes), Ok(1..)) {
            bytes.pop();
            self.take(serde_json::from_slice(&bytes).unwrap_or_default());
            bytes.clear();
        }
        // Nobody will be answered any more.
        lock(&self.waiting).clear();
    }

    fn take(&self, mut message: Value) {
        if let Some(id) = message["id"].as_u64() {
            if let Some(waiting) = lock(&self.waiting).remove(&id) {
                // Who has given up does not hear it.
                let _ = waiting.try_send(message);
            }
        } else if let (Some(session), Some(method)) = (message["sessionId"].as_str(), message["method"].as_str()) {
            let watch = lock(&self.pages).get(session).cloned();
            if let Some(watch) = watch {
                let (session, method) = (session.to_owned(), method.to_owned());
                watch.take(&method, &message["params"].take(), |command, parameters| {
                    self.tell(Some(&session), command, &parameters);
                });
            }
        }
    }
}
