//! axe-core, which finds what keeps people with a screen reader or without a mouse out of a page.

use serde_json::{Value, json};

use super::page::Page;
use super::text;
use super::watch::WORLD;
use crate::binary::build_folder;

/// Below the target folder; `cargo xtask packages` puts it there.
const SCRIPT: &str = "axe/axe_playwright_python/axe.min.js";
/// What is in a frame is a page of its own.
const RUN: &str =
    "axe.run(document, { resultTypes: ['violations'], iframes: false }).then(({ violations }) => violations)";

impl Page {
    /// Every rule that the page breaks, a line for each element: rule, how bad, the element, what to do.
    ///
    /// It looks from a world of its own: nothing of it is in the page, and the page's policy does not apply to it.
    #[track_caller]
    pub fn axe(&self) -> Vec<String> {
        let path = build_folder().parent().map(|target| target.join(SCRIPT)).unwrap_or_default();
        let script = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!("axe-core cannot be read: {error}; `cargo xtask packages` installs it as {}", path.display())
        });
        let frame = self.command("Page.getFrameTree", &json!({}))["frameTree"]["frame"]["id"].take();
        let world = self.command("Page.createIsolatedWorld", &json!({ "frameId": frame, "worldName": WORLD }));
        let world = world["executionContextId"].as_u64();
        let run = self.evaluate(&format!("{script}\n;0"), world).and_then(|_| self.evaluate(RUN, world));
        let found = run.unwrap_or_else(|error| self.fail(&format!("axe-core: {error}")));
        found.as_array().into_iter().flatten().flat_map(lines).collect()
    }
}

fn lines(violation: &Value) -> impl Iterator<Item = String> {
    let nodes = violation["nodes"].as_array().into_iter().flatten();
    nodes.map(move |node| {
        let (rule, impact, advice) = (text(violation, "id"), text(violation, "impact"), text(violation, "help"));
        format!("{rule} ({impact}) {}: {advice}", node["target"][0])
    })
}
