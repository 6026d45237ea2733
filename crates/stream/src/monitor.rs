//! What a NATS server tells of itself by HTTP: whether it syncs every message, which no client is told.

use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The part of `/varz` that matters here.
#[derive(Debug, Deserialize)]
pub struct Monitored {
    /// Version of the server.
    pub version: String,
    /// Its name.
    pub server_name: String,
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
