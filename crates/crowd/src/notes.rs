//! The clients' notes: what was sent and what was heard, one JSON object per line, for the auditor to hold against the chain.
//!
//! A `sent` line is written before its request leaves. Nothing here interprets an answer.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Bytes gathered before they go to the file, when lines are not flushed one by one.
const BUFFER_BYTES: usize = 256 * 1024;

/// A purchase request that is about to leave.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SentNote<'a> {
    /// The sale's name.
    pub sale: &'a str,
    /// The item's name.
    pub item: &'a str,
    /// The access token's subject.
    pub customer: &'a str,
    /// The idempotency key.
    pub key: &'a str,
    /// Units asked for.
    pub quantity: u32,
}

/// What a purchase request was told. Fields that the answer did not carry are absent from the line.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct AnsweredNote<'a> {
    /// The HTTP status.
    pub status: u16,
    /// `held`, `confirmed`, `released`, `pending` or a refusal's code.
    pub code: &'a str,
    /// The purchase's public id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purchase: Option<&'a str>,
    /// The order's public id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<&'a str>,
    /// The receipt's position for a win, the position that the refusal rests on for `sold_out`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// The receipt's record hash, base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_hash: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<T> {
    note: &'static str,
    at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<u64>,
    #[serde(flatten)]
    rest: T,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct PurchaseOnly<'a> {
    purchase: &'a str,
}

/// Writes one file of notes and numbers the requests. Every error means that the file may lack a line.
pub struct NotesWriter {
    file: BufWriter<File>,
    flush_each: bool,
    requests: u64,
    line: Vec<u8>,
}

impl NotesWriter {
    /// Starts a file, replacing one of the same name. With `flush_each` every `sent` line is handed to the operating
    /// system before the call returns, so it outlives this process; without, lines are gathered.
    pub fn create(path: &Path, flush_each: bool) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
        Ok(Self { file, flush_each, requests: 0, line: Vec::with_capacity(512) })
    }

    /// Notes that a request is about to be sent and gives it a number, from 1, unique in the file.
    pub fn sent(&mut self, sent: &SentNote<'_>) -> io::Result<u64> {
        self.requests += 1;
        self.write("sent", Some(self.requests), sent)?;
        if self.flush_each {
            self.file.flush()?;
        }
        Ok(self.requests)
    }

    /// Notes what the request was told.
    pub fn answered(&mut self, request: u64, answered: &AnsweredNote<'_>) -> io::Result<()> {
        self.write("answered", Some(request), answered)
    }

    /// Notes that the reply never came or was thrown away: the client does not know the outcome.
    pub fn lost(&mut self, request: u64) -> io::Result<()> {
        self.write("lost", Some(request), &Nothing {})
    }

    /// Notes that an admin's confirmation of the purchase was acknowledged.
    pub fn confirmed(&mut self, purchase: &str) -> io::Result<()> {
        self.write("confirmed", None, &PurchaseOnly { purchase })
    }

    /// Notes that the customer's cancellation of the purchase was acknowledged.
    pub fn cancelled(&mut self, purchase: &str) -> io::Result<()> {
        self.write("cancelled", None, &PurchaseOnly { purchase })
    }

    /// Hands all lines to the operating system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn write<T: Serialize>(&mut self, note: &'static str, request: Option<u64>, rest: &T) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, &Line { note, at_ms: unix_milliseconds(), request, rest })?;
        self.line.push(b'\n');
        self.file.write_all(&self.line)
    }
}

/// The wall clock in milliseconds since the Unix epoch.
pub(crate) fn unix_milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::{AnsweredNote, NotesWriter, SentNote};

    #[test]
    fn a_sent_line_is_in_the_file_before_the_call_returns() {
        let path = std::env::temp_dir().join(format!("crowd-notes-{}.jsonl", std::process::id()));
        let mut notes = NotesWriter::create(&path, true).unwrap();
        let sent =
            SentNote { sale: "winter-drop", item: "boot-42", customer: "shopper-17", key: "k-17-1", quantity: 1 };
        let request = notes.sent(&sent).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(r#"{"note":"sent","at_ms":"#), "{text}");
        assert!(
            text.ends_with(
                ",\"request\":1,\"sale\":\"winter-drop\",\"item\":\"boot-42\",\"customer\":\"shopper-17\",\
                 \"key\":\"k-17-1\",\"quantity\":1}\n"
            ),
            "{text}"
        );

        notes.answered(request, &AnsweredNote { status: 409, code: "sold_out", ..Default::default() }).unwrap();
        notes.lost(request).unwrap();
        notes.confirmed("pu_x").unwrap();
        notes.cancelled("pu_x").unwrap();
        notes.flush().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let notes: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(notes.len(), 5);
        assert_eq!(notes[1]["code"], "sold_out");
        assert_eq!(notes[1].get("purchase"), None);
        assert_eq!(notes[2]["request"], 1);
        assert_eq!(notes[3]["purchase"], "pu_x");
        assert_eq!(notes[4]["note"], "cancelled");
    }
}
