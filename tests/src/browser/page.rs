//! A tab: opened, led somewhere, asked, and judged at its end.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::pipe::{PATIENCE, lock};
use super::watch::{BINDING, WORLD, Watch, exception};
use super::{Context, text};
use crate::waiting::within;

/// Listens for what the page's policy forbids, where the page cannot hear it.
const LISTEN_FOR_VIOLATIONS: &str = include_str!("violations.js");
const DOMAINS: [&str; 6] = ["Page", "Runtime", "Network", "Log", "Audits", "Inspector"];
/// On a desk.
const SIZE: (u32, u32) = (1_280, 800);

/// A tab. Dropped, it is closed, and what its content security policy had to forbid fails the test.
pub struct Page {
    context: Context,
    target: String,
    session: String,
    watch: Arc<Watch>,
    /// Emulated media features; the protocol takes all of them at once.
    pub(super) media: Mutex<Vec<Value>>,
}

impl Page {
    pub(super) fn open_in(context: &Context) -> Self {
        let profile = &context.0;
        let ask = |method: &str, parameters: Value| {
            profile.pipe.ask(None, method, &parameters).unwrap_or_else(|error| panic!("no page: {error}"))
        };
        // A window of its own, because what is in a hidden tab neither draws nor takes input.
        let target = json!({ "url": "about:blank", "browserContextId": profile.id, "newWindow": true });
        let target = text(&ask("Target.createTarget", target), "targetId");
        let attached = ask("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        let session = text(&attached, "sessionId");
        let watch = Arc::new(Watch::default());
        profile.pipe.listen(&session, &watch);
        let page = Self { context: context.clone(), target, session, watch, media: Mutex::default() };
        for domain in DOMAINS {
            page.command(&format!("{domain}.enable"), &json!({}));
        }
        page.command("Page.setLifecycleEventsEnabled", &json!({ "enabled": true }));
        page.command("Emulation.setFocusEmulationEnabled", &json!({ "enabled": true }));
        page.command("Runtime.addBinding", &json!({ "name": BINDING, "executionContextName": WORLD }));
        page.command(
            "Page.addScriptToEvaluateOnNewDocument",
            &json!({ "source": LISTEN_FOR_VIOLATIONS.replace("BINDING", BINDING), "worldName": WORLD }),
        );
        page.size(SIZE.0, SIZE.1, 1.0, false);
        page
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    pub(super) fn try_command(&self, method: &str, parameters: &Value) -> Result<Value, String> {
        self.context.0.pipe.ask(Some(&self.session), method, parameters)
    }

    #[track_caller]
    pub(super) fn command(&self, method: &str, parameters: &Value) -> Value {
        match self.try_command(method, parameters) {
            Ok(given) => given,
            Err(error) => self.fail(&error),
        }
    }

    /// Ends the test, with what is known of the page.
    #[track_caller]
    pub(super) fn fail(&self, what: &str) -> ! {
        let seen = self.watch.seen();
        let mut story = format!("{what}\n  page: {}{}", seen.url, if seen.has_crashed { " (crashed)" } else { "" });
        for line in seen.console.iter().chain(&seen.violations) {
            write!(story, "\n  it said: {line}").expect("a text can be written to");
        }
        drop(seen);
        panic!("{story}")
    }

    /// Goes to an address and waits until it has loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        let gone = self.command("Page.navigate", &json!({ "url": url }));
        if let Some(error) = gone["errorText"].as_str() {
            self.fail(&format!("{url} cannot be opened: {error}"));
        }
        // There is none when only the part after `#` has changed.
        if let Some(document) = gone["loaderId"].as_str() {
            self.until_loaded(url, |loaded| loaded == document);
        }
    }

    /// Loads it again and waits for that. A tab that has crashed comes back.
    #[track_caller]
    pub fn reload(&self) {
        let before = self.watch.seen().document.clone();
        self.command("Page.reload", &json!({}));
        self.until_loaded("the page again", |loaded| loaded != before);
    }

    #[track_caller]
    fn until_loaded(&self, what: &str, is_it: impl Fn(&str) -> bool) {
        let is_loaded = || {
            let seen = self.watch.seen();
            seen.loaded == seen.document && is_it(&seen.loaded)
        };
        if !within(PATIENCE, is_loaded) {
            self.fail(&format!("{what} has not loaded after {} s", PATIENCE.as_secs()));
        }
    }

    /// The back button; waits until the entry before is shown.
    #[track_caller]
    pub fn back(&self) {
        let history = self.command("Page.getNavigationHistory", &json!({}));
        let Some(before) = place(&history).checked_sub(1) else { self.fail("there is nothing to go back to") };
        let entry = &history["entries"][before];
        self.command("Page.navigateToHistoryEntry", &json!({ "entryId": entry["id"] }));
        let is_there = || {
            let Ok(history) = self.try_command("Page.getNavigationHistory", &json!({})) else { return false };
            // What was shown until now may still answer.
            let shown = json!([history["entries"][before]["url"], "complete"]);
            place(&history) == before && self.evaluate("[location.href, document.readyState]", None) == Ok(shown)
        };
        if !within(PATIENCE, is_there) {
            self.fail(&format!("not back at {} after {} s", entry["url"], PATIENCE.as_secs()));
        }
    }

    /// Closes the tab as a person does; the same as dropping it.
    pub fn close(self) {}

    /// Kills the process behind the tab, as a lack of memory does. [`Page::reload`] brings it back.
    #[track_caller]
    pub fn crash(&self) {
        self.context.0.pipe.tell(Some(&self.session), "Page.crash", &json!({}));
        if !within(PATIENCE, || self.watch.seen().has_crashed) {
            self.fail("it does not crash");
        }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.watch.seen().url.clone()
    }

    /// The value of an expression, as JSON; a promise is waited for. No policy of the page is in the way.
    ///
    /// # Panics
    /// When it throws.
    #[track_caller]
    pub fn eval(&self, js: &str) -> Value {
        match self.evaluate(js, None) {
            Ok(value) => value,
            Err(error) => self.fail(&format!("{js}\n  {error}")),
        }
    }

    /// Evaluates in a world of the page, the page's own without one.
    pub(super) fn evaluate(&self, js: &str, world: Option<u64>) -> Result<Value, String> {
        let mut parameters = json!({ "expression": js, "awaitPromise": true, "returnByValue": true });
        if let Some(world) = world {
            parameters["contextId"] = world.into();
        }
        let mut evaluated = self.try_command("Runtime.evaluate", &parameters)?;
        match &evaluated["exceptionDetails"] {
            Value::Null => Ok(evaluated["result"]["value"].take()),
            thrown => Err(exception(thrown)),
        }
    }

    /// Waits until an expression is `true`; what it throws meanwhile is not so yet.
    #[track_caller]
    pub fn until(&self, what: &str, js: &str) {
        let mut last = Ok(Value::Null);
        let is_so = within(PATIENCE, || {
            last = self.evaluate(js, None);
            last == Ok(Value::Bool(true))
        });
        if !is_so {
            let last = last.map_or_else(|error| error, |value| value.to_string());
            self.fail(&format!("still no sign of {what} after {} s: {js} is {last}", PATIENCE.as_secs()));
        }
    }

    /// The text of the first element that is found, as it is shown.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({})?.innerText", json!(selector)));
        let Value::String(text) = text else { self.fail(&format!("there is no {selector}")) };
        text
    }

    /// Runs a script in every document from now on, before the document's own.
    pub fn before_scripts(&self, js: &str) {
        self.command("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": js }));
    }

    /// Moves `Date` in every document from now on. What counts time by `performance.now` or a timer goes on as it was.
    pub fn shift_clock(&self, hours: i32) {
        self.before_scripts(&include_str!("clock.js").replace("HOURS", &hours.to_string()));
    }

    /// Errors and warnings, whoever wrote them; what was thrown and not caught; dialogs.
    pub fn console(&self) -> Vec<String> {
        self.watch.seen().console.clone()
    }

    /// What the content security policy had to forbid since the last call. Who takes it answers for it: it no longer fails the test.
    pub fn violations(&self) -> Vec<String> {
        // Whatever the page has caused until now is told before this is answered.
        let _ = self.evaluate("0", None);
        std::mem::take(&mut self.watch.seen().violations)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let has_crashed = self.watch.seen().has_crashed;
        let violations = if has_crashed || std::thread::panicking() { Vec::new() } else { self.violations() };
        let pipe = &self.context.0.pipe;
        pipe.forget(&self.session);
        pipe.tell(None, "Target.closeTarget", &json!({ "targetId": self.target }));
        assert!(violations.is_empty(), "{} goes against its own policy: {violations:#?}", self.url());
    }
}

/// Which entry of the history is shown.
fn place(history: &Value) -> usize {
    history["currentIndex"].as_u64().and_then(|index| index.try_into().ok()).unwrap_or_default()
}

impl Page {
    /// Sets an emulated media feature, and keeps the others.
    pub(super) fn feature(&self, name: &str, value: &str) {
        let mut media = lock(&self.media);
        media.retain(|feature| feature["name"] != name);
        media.push(json!({ "name": name, "value": value }));
        self.command("Emulation.setEmulatedMedia", &json!({ "features": *media }));
    }
}
