//! The operator's way to a running server: its addresses and its token lie in the data folder.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use crowd::http::{HttpError, Reply, download_blocking, request_blocking, upload_blocking};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const ENDPOINTS_FILE: &str = "endpoints.json";
const TIME_MAX: Duration = Duration::from_secs(30);
/// A large picture takes a while on a busy machine.
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(120);

/// Where a server listens; written at start, since a port may be the system's choice.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    /// `None` for a process that serves no customers.
    pub(crate) public: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
}

impl Endpoints {
    pub(crate) fn write(&self, data: &Path) -> anyhow::Result<()> {
        let path = data.join(ENDPOINTS_FILE);
        let unfinished = data.join(format!("{ENDPOINTS_FILE}.unfinished"));
        std::fs::write(&unfinished, serde_json::to_vec(self)?)
            .and_then(|()| std::fs::rename(&unfinished, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn read(data: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(data.join(ENDPOINTS_FILE)).ok()?).ok()
    }

    pub(crate) fn forget(data: &Path) {
        // Absent is as good as removed.
        let _ = std::fs::remove_file(data.join(ENDPOINTS_FILE));
    }
}

/// An operator's connection to a running server.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) endpoints: Endpoints,
    pub(crate) token: String,
}

impl Operator {
    pub(crate) fn of(data: &Path) -> anyhow::Result<Self> {
        let folder = data.display();
        let endpoints = Endpoints::read(data).with_context(|| {
            format!("{folder}: no server has run here; start one with: doorbuster serve --data {folder}")
        })?;
        let path = data.join("admin-token");
        let token = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read the admin token in {}; in a cluster only the process that made the vault has the file (its log says so): copy \
                 it here, mode 0600",
                path.display()
            )
        })?;
        Ok(Self { endpoints, token: token.trim().to_owned() })
    }

    pub(crate) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let authorization = format!("Bearer {}", self.token);
        let headers = [("authorization", authorization.as_str())];
        self.answered(request_blocking(self.endpoints.admin, method, path, &headers, body, TIME_MAX))
    }

    /// Reads something large into `sink` as it comes.
    pub(crate) fn download(&self, path: &str, sink: &mut dyn Write) -> anyhow::Result<()> {
        let authorization = format!("Bearer {}", self.token);
        let headers = [("authorization", authorization.as_str())];
        self.answered(download_blocking(self.endpoints.admin, path, &headers, sink, TIME_MAX)).map(drop)
    }

    /// Sends a file as it is.
    pub(crate) fn upload(&self, path: &str, file: Vec<u8>) -> anyhow::Result<Value> {
        let authorization = format!("Bearer {}", self.token);
        let headers = [("authorization", authorization.as_str())];
        self.answered(upload_blocking(self.endpoints.admin, path, &headers, file, UPLOAD_TIME_MAX))
    }

    fn answered(&self, reply: Result<Reply, HttpError>) -> anyhow::Result<Value> {
        let reply = reply.with_context(|| {
            format!("no whole answer from the server's admin address {}; is it running?", self.endpoints.admin)
        })?;
        let answer = reply.json();
        if !(200..300).contains(&reply.status) {
            let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
            let detail = [text("title"), text("detail")].into_iter().filter(|part| !part.is_empty());
            bail!("{} ({})", detail.collect::<Vec<_>>().join(" "), text("code"));
        }
        Ok(answer)
    }
}
