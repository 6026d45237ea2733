//! What a page is heard of: where it is, what it complains about, what it asks for. Filled on the pipe's thread, read by the test.

use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};

use super::network::Traffic;
use super::pipe::lock;
use super::text;

/// The name of the world in which the tests' own scripts see the page and the page does not see them.
pub(super) const WORLD: &str = "system-tests";
/// What scripts in that world call to be heard here.
pub(super) const BINDING: &str = "tellSystemTests";

#[derive(Default)]
pub(super) struct Watch(Mutex<Seen>);

#[derive(Default)]
pub(super) struct Seen {
    pub(super) url: String,
    /// The document that the page shows; every load of a document has another.
    pub(super) document: String,
    /// The document that has loaded, with all that belongs to it.
    pub(super) loaded: String,
    pub(super) has_crashed: bool,
    pub(super) console: Vec<String>,
    pub(super) violations: Vec<String>,
    pub(super) traffic: Traffic,
}

impl Watch {
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.0)
    }

    /// Takes an event; `tell` sends a command to the page and does not wait.
    pub(super) fn take(&self, method: &str, event: &Value, tell: impl Fn(&str, Value)) {
        let mut seen = self.seen();
        match method {
            "Page.frameNavigated" if event["frame"]["parentId"].is_null() => {
                seen.url = text(&event["frame"], "url");
                seen.document = text(&event["frame"], "loaderId");
            }
            "Page.navigatedWithinDocument" => seen.url = text(event, "url"),
            // Frames inside have other documents, which nobody waits for.
            "Page.lifecycleEvent" if event["name"] == "load" && event["loaderId"] == seen.document.as_str() => {
                seen.loaded = text(event, "loaderId");
            }
            "Page.javascriptDialogOpening" => {
                seen.console.push(format!("dialog: {}", text(event, "message")));
                tell("Page.handleJavaScriptDialog", json!({ "accept": true }));
            }
            "Inspector.targetCrashed" => seen.has_crashed = true,
            "Inspector.targetReloadedAfterCrash" => seen.has_crashed = false,
            "Runtime.consoleAPICalled" if ["error", "warning", "assert"].iter().any(|kind| event["type"] == *kind) => {
                let words = event["args"].as_array().into_iter().flatten().map(shown);
                seen.console.push(format!("{}: {}", text(event, "type"), words.collect::<Vec<_>>().join(" ")));
            }
            "Runtime.exceptionThrown" => seen.console.push(exception(&event["exceptionDetails"])),
            "Runtime.bindingCalled" if event["name"] == BINDING => seen.violations.push(text(event, "payload")),
            "Log.entryAdded" => seen.log(&event["entry"]),
            "Audits.issueAdded" if event["issue"]["code"] == "ContentSecurityPolicyIssue" => {
                let details = &event["issue"]["details"]["contentSecurityPolicyIssueDetails"];
                seen.violations.push(format!("issue: {details}"));
            }
            "Fetch.requestPaused" => {
                let (command, parameters) = seen.traffic.judge(event);
                tell(command, parameters);
            }
            _ => seen.traffic.take(method, event),
        }
    }
}

impl Seen {
    fn log(&mut self, entry: &Value) {
        let (level, said) = (text(entry, "level"), text(entry, "text"));
        if entry["source"] == "security" {
            self.violations.push(format!("log: {said}"));
        }
        if level == "error" || level == "warning" {
            self.console.push(format!("{level}: {said} {}", text(entry, "url")));
        }
    }
}

/// A value of the page, as its console shows it.
fn shown(value: &Value) -> String {
    let description = || value["description"].as_str().map(str::to_owned);
    value["value"].as_str().map(str::to_owned).or_else(description).unwrap_or_else(|| value["value"].to_string())
}

/// What was thrown, with its stack where it has one.
pub(super) fn exception(details: &Value) -> String {
    format!("{}: {}", text(details, "text"), shown(&details["exception"]))
}
