//! What a NATS server tells of itself by HTTP: whether it syncs every message, which no client is told.

use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::store::VERSION_MIN;

const PATIENCE: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The part of `/varz` that matters here.
#[derive(Debug, Deserialize)]
pub struct Monitored {
    /// Version of the server.
    pub version: String,
    /// Its name.
    pub server_name: String,
    /// What its clock showed when it answered, as RFC 3339.
    pub now: String,
    #[serde(default)]
    jetstream: JetStream,
}

#[derive(Debug, Default, Deserialize)]
struct JetStream {
    #[serde(default)]
    config: JetStreamConfig,
}

#[derive(Debug, Default, Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
}

impl Monitored {
    /// Whether the version is one that keeps rival appends apart.
    pub fn is_recent(&self) -> bool {
        let mut parts = self.version.split(['.', '-']).map_while(|part| part.parse::<i64>().ok());
        let mut next = || parts.next().unwrap_or(0);
        (next(), next(), next()) >= VERSION_MIN
    }

    /// Whether a message is on disk before it is acknowledged.
    pub fn syncs_always(&self) -> bool {
        self.jetstream.config.sync_always
    }
}

/// Asks the monitoring port at `address`.
pub async fn ask(address: &str) -> Result<Monitored, String> {
    let asked = tokio::time::timeout(PATIENCE, get(address)).await;
    let answer = asked.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).map_err(|error| format!("its answer is not that of a NATS server: {error}"))
}

async fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET /varz HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_from_each_other_by_their_numbers() {
        let recent = |version: &str| {
            let told = format!(r#"{{"version":"{version}","server_name":"n","now":"2026-11-22T18:00:00Z"}}"#);
            serde_json::from_str::<Monitored>(&told).unwrap().is_recent()
        };
        assert!(["2.12.3", "2.12.10", "2.13.0-beta.1", "2.100.0", "3.0.0"].into_iter().all(recent));
        assert!(!["2.12.2", "2.9.30", "2.12", "1.99.99", "unknown", ""].into_iter().any(recent));
    }
}
