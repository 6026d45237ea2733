//! What a page asks for, with the bytes on the wire; and a network that is gone, or loses one request or one answer.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::page::Page;
use super::text;

/// One request of a page and its answer; a redirection is one of its own.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// Where to.
    pub url: String,
    /// The method.
    pub method: String,
    /// What for: `Document`, `Script`, `Fetch`, and so on.
    pub kind: String,
    /// The answer's status; 0 when there is none yet, or none at all.
    pub status: u16,
    /// Bytes of the answer, status line and headers included, as they were sent. What is not over yet has none.
    pub wire_bytes: u64,
    /// Bytes of the request line and the headers, as HTTP/1.1 writes them.
    pub request_headers_bytes: u64,
    /// Nothing went over the wire, because it was known.
    pub is_from_cache: bool,
    /// Asked by the browser, to hear whether the page may ask.
    pub is_preflight: bool,
    /// Why there is no answer; empty when there is one.
    pub error: String,
    id: String,
}

/// Where a request that fails gets to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It never leaves.
    Request,
    /// The server has answered, and the page does not hear it.
    Response,
}

struct Fault {
    url_part: String,
    stage: Stage,
    left: u32,
}

/// All requests of a page, and those that have to fail.
#[derive(Default)]
pub(super) struct Traffic {
    exchanges: Vec<Exchange>,
    /// What the network says of each request's headers; it may say so before or after the page asks. More than one after redirections.
    headers_bytes: HashMap<String, Vec<u64>>,
    faults: Vec<Fault>,
}

impl Traffic {
    /// Takes an event of the Network domain.
    pub(super) fn take(&mut self, method: &str, event: &Value) {
        let id = text(event, "requestId");
        if method == "Network.requestWillBeSent" {
            return self.begin(id, event);
        }
        if method == "Network.requestWillBeSentExtraInfo" {
            return self.headers_bytes.entry(id).or_default().push(bytes_of(&event["headers"]));
        }
        let Some(exchange) = self.exchanges.iter_mut().rfind(|exchange| exchange.id == id) else { return };
        match method {
            "Network.responseReceived" => exchange.answered(&event["response"]),
            "Network.requestServedFromCache" => exchange.is_from_cache = true,
            "Network.loadingFinished" => exchange.wire_bytes = whole(&event["encodedDataLength"]),
            "Network.loadingFailed" => exchange.error = text(event, "errorText"),
            _ => {}
        }
    }

    fn begin(&mut self, id: String, event: &Value) {
        let redirected = &event["redirectResponse"];
        if let Some(before) = self.exchanges.iter_mut().rfind(|exchange| exchange.id == id && redirected.is_object()) {
            before.answered(redirected);
            before.wire_bytes = whole(&redirected["encodedDataLength"]);
        }
        self.exchanges.push(Exchange {
            url: text(&event["request"], "url"),
            method: text(&event["request"], "method"),
            kind: text(event, "type"),
            is_preflight: event["initiator"]["type"] == "preflight",
            id,
            ..Exchange::default()
        });
    }

    /// What becomes of a request that was stopped on its way.
    pub(super) fn judge(&mut self, event: &Value) -> (&'static str, Value) {
        let is_answered = event["responseStatusCode"].is_u64() || event["responseErrorReason"].is_string();
        let stage = if is_answered { Stage::Response } else { Stage::Request };
        let url = text(&event["request"], "url");
        let is_meant = |fault: &&mut Fault| fault.left > 0 && fault.stage == stage && url.contains(&fault.url_part);
        match self.faults.iter_mut().find(is_meant) {
            Some(fault) => {
                fault.left -= 1;
                ("Fetch.failRequest", json!({ "requestId": event["requestId"], "errorReason": "ConnectionReset" }))
            }
            None => ("Fetch.continueRequest", json!({ "requestId": event["requestId"] })),
        }
    }

    fn exchanges(&self) -> Vec<Exchange> {
        let mut exchanges = self.exchanges.clone();
        let mut told = self.headers_bytes.clone();
        for exchange in exchanges.iter_mut().filter(|exchange| !exchange.is_from_cache) {
            let Some(headers) = told.get_mut(&exchange.id).filter(|headers| !headers.is_empty()) else { continue };
            // The path is the URL without scheme and host; the line is `METHOD path HTTP/1.1`, and an empty line ends the headers.
            let path = exchange.url.splitn(4, '/').nth(3).map_or(0, str::len) as u64 + 1;
            exchange.request_headers_bytes = exchange.method.len() as u64 + path + 14 + headers.remove(0);
        }
        exchanges
    }
}

impl Exchange {
    fn answered(&mut self, response: &Value) {
        self.status = u16::try_from(whole(&response["status"])).unwrap_or_default();
        self.is_from_cache |= response["fromDiskCache"] == true || response["fromPrefetchCache"] == true;
    }
}

/// `name: value` and the line's end, for each.
fn bytes_of(headers: &Value) -> u64 {
    let headers = headers.as_object().into_iter().flatten();
    headers.map(|(name, value)| (name.len() + value.as_str().unwrap_or_default().len() + 4) as u64).sum()
}

/// The protocol's numbers are all floating.
fn whole(number: &Value) -> u64 {
    number.as_u64().or_else(|| number.as_f64().map(|number| number as u64)).unwrap_or_default()
}

impl Page {
    /// Takes the network away, or gives it back. The page is told, as it would be.
    pub fn offline(&self, is_offline: bool) {
        self.command(
            "Network.emulateNetworkConditions",
            &json!({ "offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 }),
        );
    }

    /// The next `count` requests with this in their URL fail at this stage.
    pub fn fail_next(&self, url_part: &str, count: u32, stage: Stage) {
        let mut seen = self.watch().seen();
        seen.traffic.faults.retain(|fault| fault.left > 0);
        seen.traffic.faults.push(Fault { url_part: url_part.to_owned(), stage, left: count });
        let patterns: Vec<_> = seen
            .traffic
            .faults
            .iter()
            .map(|fault| json!({ "urlPattern": format!("*{}*", fault.url_part), "requestStage": format!("{:?}", fault.stage) }))
            .collect();
        drop(seen);
        self.command("Fetch.enable", &json!({ "patterns": patterns }));
    }

    /// What it has asked for since it was opened, or since [`Page::clear_requests`], in order.
    pub fn requests(&self) -> Vec<Exchange> {
        self.watch().seen().traffic.exchanges()
    }

    /// Forgets the requests until now. Those that are under way are not counted either.
    pub fn clear_requests(&self) {
        let mut seen = self.watch().seen();
        seen.traffic.exchanges.clear();
        seen.traffic.headers_bytes.clear();
    }

    /// The cookies that the page's address would be sent, as the protocol tells them: `name`, `value`, `httpOnly`, `sameSite`, ..
    pub fn cookies(&self) -> Vec<Value> {
        let cookies = self.command("Network.getCookies", &json!({}));
        cookies["cookies"].as_array().cloned().unwrap_or_default()
    }
}
