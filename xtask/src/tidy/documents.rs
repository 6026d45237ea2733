//! What documents name exists: paths, links, `cargo xtask` commands; and every refusal has its page.

use std::path::Path;

use super::files::TextFile;
use super::{Finding, lines};

const TOP_FOLDERS: [&str; 6] = [".ci/", "config/", "crates/", "docs/", "tests/", "xtask/"];
const COMMANDS: [&str; 10] =
    ["ci", "tidy", "packages", "soak", "bars", "fuzz", "instructions", "screenshots", "services", "cluster"];
const PAGES: &str = "docs/errors";
const REFUSALS: &str = "crates/domain/src/refusal.rs";

pub(crate) fn check(root: &Path, files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in files.iter().filter(|file| file.is_document()) {
        findings.extend(names(root, document));
    }
    findings.extend(error_pages(files));
    findings
}

fn names(root: &Path, document: &TextFile) -> Vec<Finding> {
    let folder = document.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    for (number, line) in lines(document) {
        let mut missing = |text: String| findings.push(Finding::new(&document.path, number, text));
        for path in line.split('`').skip(1).step_by(2).filter_map(repository_path) {
            if !root.join(path).exists() && !root.join(folder).join(path).exists() {
                missing(format!("{path} does not exist"));
            }
        }
        for target in link_targets(line) {
            if !root.join(folder).join(target).exists() {
                missing(format!("the link to {target} leads nowhere"));
            }
        }
        for command in line.split("cargo xtask ").skip(1) {
            let word: String = command.chars().take_while(char::is_ascii_alphanumeric).collect();
            if !word.is_empty() && !COMMANDS.contains(&word.as_str()) {
                missing(format!("cargo xtask {word} does not exist"));
            }
        }
    }
    findings
}

/// What between backticks looks like a path of the repository; of a pattern, the folder before it.
fn repository_path(words: &str) -> Option<&str> {
    let is_plain = words.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-*".contains(&byte));
    let in_folder = TOP_FOLDERS.iter().any(|folder| words.starts_with(folder));
    let at_top = !words.contains('/') && words.ends_with(".md");
    if !is_plain || !(in_folder || at_top) {
        return None;
    }
    match words.split_once('*') {
        None => Some(words),
        Some((before, _)) => before.rsplit_once('/').map(|(folder, _)| folder),
    }
}

/// Targets of links within the repository, without the part after `#`.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        (!target.is_empty() && !target.contains(':') && !target.starts_with('/')).then_some(target)
    })
}

fn error_pages(files: &[TextFile]) -> Vec<Finding> {
    let Some(refusals) = files.iter().find(|file| file.path == REFUSALS) else {
        return vec![Finding::new(REFUSALS, 0, "does not exist; tidy reads the codes of refusals there")];
    };
    let codes = codes(&refusals.text);
    let mut findings = Vec::new();
    if codes.is_empty() {
        findings.push(Finding::new(REFUSALS, 0, "no codes found in `fn code`"));
    }
    for code in &codes {
        let path = format!("{PAGES}/{code}.md");
        let page = files.iter().find(|file| file.path == path);
        if !page.is_some_and(|page| page.text.starts_with(&format!("# `{code}`\n"))) {
            findings.push(Finding::new(&path, 0, format!("is missing, or does not begin with the line: # `{code}`")));
        }
    }
    for file in files.iter().filter(|file| file.path.starts_with(PAGES)) {
        let name = file.path.trim_start_matches("docs/errors/").trim_end_matches(".md");
        if name != "README" && !codes.iter().any(|code| code == name) {
            findings.push(Finding::new(&file.path, 0, "is no refusal's page"));
        }
    }
    findings
}

/// The texts of the arms of `fn code`.
fn codes(source: &str) -> Vec<String> {
    let arms = source.lines().skip_while(|line| !line.contains("pub fn code(")).take_while(|line| *line != "    }");
    arms.filter_map(|line| Some(line.split_once("=> \"")?.1.split_once('"')?.0.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::{codes, link_targets, repository_path};

    #[test]
    fn paths_are_told_from_other_words() {
        assert_eq!(repository_path("crates/gate/src/pass.rs"), Some("crates/gate/src/pass.rs"));
        assert_eq!(repository_path("docs/errors/*.md"), Some("docs/errors"));
        assert_eq!(repository_path("STYLE.md"), Some("STYLE.md"));
        for other in ["DATA/sales/", "docs/errors/<code>.md", "cargo xtask ci", "/v1/sales", "a/b", "sold_out"] {
            assert_eq!(repository_path(other), None, "{other}");
        }
    }

    #[test]
    fn links_within_the_repository_are_followed() {
        let line = "[a](docs/a.md#b) [c](https://example.com) [d](#d) ![e](../e.png)";
        assert_eq!(link_targets(line).collect::<Vec<_>>(), ["docs/a.md", "../e.png"]);
    }

    #[test]
    fn codes_are_read_from_their_function_only() {
        let source =
            "x => \"no\",\n    pub fn code(self) {\n  Self::A => \"a_b\",\n  Self::B => \"c\",\n    }\n  y => \"no\"\n";
        assert_eq!(codes(source), ["a_b", "c"]);
    }
}
