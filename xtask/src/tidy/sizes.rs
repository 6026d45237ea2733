//! Files stay within 500 lines and functions within 70. Exceptions are listed, and the list may only shrink.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use super::Finding;
use super::files::TextFile;
use super::scan::{blanked, functions};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LIST: &str = "xtask/tidy-exceptions.toml";
/// How many exceptions there are. Lower it with every one that goes; it is never raised.
const EXCEPTIONS_MAX: usize = 0;

/// Larger ones that are known, each with the lines that it may have at most.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exceptions {
    /// By path.
    #[serde(default)]
    files: BTreeMap<String, usize>,
    /// By `path::function`.
    #[serde(default)]
    functions: BTreeMap<String, usize>,
}

impl Exceptions {
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(root.join(LIST)).with_context(|| format!("{LIST} cannot be read"))?;
        toml::from_str(&text).context(LIST)
    }
}

pub(crate) fn check(files: &[TextFile], exceptions: &Exceptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut file_sizes, mut function_sizes) = (BTreeMap::new(), BTreeMap::new());
    for file in files.iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        file_sizes.insert(file.path.clone(), lines);
        let allowed = exceptions.files.get(&file.path).copied().unwrap_or(FILE_LINES_MAX);
        if lines > allowed {
            findings.push(Finding::new(&file.path, 0, format!("{lines} lines; {allowed} are allowed: split it")));
        }
        for function in functions(&blanked(&file.text)) {
            let key = format!("{}::{}", file.path, function.name);
            let allowed = exceptions.functions.get(&key).copied().unwrap_or(FUNCTION_LINES_MAX);
            if function.lines > allowed {
                let text = format!("{} has {} lines; {allowed} are allowed", function.name, function.lines);
                findings.push(Finding::new(&file.path, function.line, text));
            }
            let longest = function_sizes.entry(key).or_insert(0);
            *longest = function.lines.max(*longest);
        }
    }
    findings.extend(not_needed(&exceptions.files, &file_sizes, FILE_LINES_MAX));
    findings.extend(not_needed(&exceptions.functions, &function_sizes, FUNCTION_LINES_MAX));
    let count = exceptions.files.len() + exceptions.functions.len();
    if count != EXCEPTIONS_MAX {
        let text = format!("{count} exceptions, EXCEPTIONS_MAX says {EXCEPTIONS_MAX}: the list may only shrink");
        findings.push(Finding::new(LIST, 0, text));
    }
    findings
}

/// Exceptions for what is gone, small enough, or smaller than it was.
fn not_needed(listed: &BTreeMap<String, usize>, sizes: &BTreeMap<String, usize>, limit: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, &allowed) in listed {
        match sizes.get(key) {
            None => findings.push(Finding::new(LIST, 0, format!("{key} does not exist; remove it"))),
            Some(&size) if size <= limit => {
                findings.push(Finding::new(LIST, 0, format!("{key} needs no exception any more; remove it")));
            }
            Some(&size) if size < allowed => {
                findings.push(Finding::new(LIST, 0, format!("{key} has shrunk to {size} lines; write that")));
            }
            Some(_) => {}
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{Exceptions, check};
    use crate::tidy::files::TextFile;

    fn findings(lines: usize, exception: Option<usize>) -> Vec<String> {
        let file = TextFile { path: "crates/a/src/lib.rs".to_owned(), text: "//! x\n".repeat(lines) };
        let mut exceptions = Exceptions::default();
        exceptions.files.extend(exception.map(|lines| ("crates/a/src/lib.rs".to_owned(), lines)));
        check(&[file], &exceptions).into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn a_file_has_500_lines_and_an_exception_is_exact() {
        assert!(findings(500, None).is_empty());
        assert!(findings(501, None)[0].contains("501 lines; 500 are allowed"));
        assert!(findings(500, Some(600))[0].contains("needs no exception"));
        assert!(findings(550, Some(600))[0].contains("has shrunk to 550"));
        assert!(findings(601, Some(600))[0].contains("601 lines; 600 are allowed"));
        let only_the_count = findings(600, Some(600));
        assert!(only_the_count.len() == 1 && only_the_count[0].contains("may only shrink"), "{only_the_count:?}");
    }

    #[test]
    fn a_function_has_70_lines() {
        let of = |lines: usize| format!("//! x\nfn f() {{\n{}}}\n", "x;\n".repeat(lines - 2));
        let check = |text| check(&[TextFile { path: "a.rs".to_owned(), text }], &Exceptions::default());
        assert!(check(of(70)).is_empty());
        let found = check(of(71));
        assert!(found.len() == 1 && found[0].line == 2 && found[0].text.contains("71 lines"), "{found:?}");
    }
}
