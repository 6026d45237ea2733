//! How files begin, what they may be called, and what may not stand in them.

use super::files::TextFile;
use super::scan::blanked;
use super::{Finding, lines};

/// Names that say nothing about what is inside.
const NAMES: [&str; 8] = ["utils", "util", "common", "manager", "managers", "helper", "helpers", "misc"];

/// Not anywhere. Written in pieces, since this file is checked too.
const MARKS: [(&str, &str); 7] = [
    (concat!("to", "do!("), "finish it"),
    (concat!("unimple", "mented!("), "finish it"),
    (concat!("#[", "ignore"), "every test runs; a long one takes its length from DOORBUSTER_SOAK"),
    (concat!("TO", "DO"), "do it, or open an issue"),
    (concat!("FIX", "ME"), "do it, or open an issue"),
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("../sha", "red"), "say it in the project's own words"),
];

pub(crate) fn check(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        findings.extend(marks(file));
        if file.is_rust() {
            findings.extend(head(file));
            findings.extend(name(file));
            findings.extend(unwraps(file));
        }
    }
    findings
}

fn marks(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in lines(file) {
        for (mark, advice) in MARKS {
            if line.contains(mark) {
                findings.push(Finding::new(&file.path, number, format!("{mark:?}: {advice}")));
            }
        }
    }
    findings
}

fn head(file: &TextFile) -> Option<Finding> {
    let says_something = file.text.starts_with("//! ") && file.text.lines().next().is_some_and(|line| line.len() > 20);
    (!says_something).then(|| Finding::new(&file.path, 1, "begin with `//!`: what the file is for, what it may not do"))
}

fn name(file: &TextFile) -> Option<Finding> {
    let named = file.path.trim_end_matches(".rs").split('/').find(|part| NAMES.contains(part))?;
    Some(Finding::new(&file.path, 0, format!("{named:?} says nothing about what is inside")))
}

/// `unwrap()` outside tests: use `?`, or `expect` with the reason why it cannot happen.
fn unwraps(file: &TextFile) -> Vec<Finding> {
    let is_test = file.path.starts_with("tests/") || file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
    if is_test {
        return Vec::new();
    }
    let code = String::from_utf8_lossy(&blanked(&file.text)).into_owned();
    let outside_tests = code.split("#[cfg(test)]").next().unwrap_or_default();
    let numbered = outside_tests.lines().enumerate().filter(|(_, line)| line.contains(".unwrap()"));
    numbered
        .map(|(index, _)| Finding::new(&file.path, index + 1, "unwrap() outside tests; say why in expect()"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::files::TextFile;

    fn findings(path: &str, text: &str) -> usize {
        check(&[TextFile { path: path.to_owned(), text: text.to_owned() }]).len()
    }

    const HEAD: &str = "//! What this file is for.\n";

    #[test]
    fn a_file_says_what_it_is_for() {
        assert_eq!(findings("crates/a/src/lib.rs", HEAD), 0);
        assert_eq!(findings("crates/a/src/lib.rs", "//! a\n"), 1);
        assert_eq!(findings("crates/a/src/lib.rs", "use a;\n"), 1);
        assert_eq!(findings("docs/a.md", "# a\n"), 0);
    }

    #[test]
    fn unfinished_work_and_machine_paths_are_found() {
        for (mark, _) in super::MARKS {
            assert_eq!(findings("docs/a.md", &format!("x {mark} y")), 1, "{mark}");
        }
    }

    #[test]
    fn empty_names_are_found_in_files_and_folders() {
        assert_eq!(findings("crates/a/src/utils.rs", HEAD), 1);
        assert_eq!(findings("crates/a/tests/common/mod.rs", HEAD), 1);
        assert_eq!(findings("crates/a/src/commons_of_the_town.rs", HEAD), 0);
    }

    #[test]
    fn unwrap_is_for_tests_and_for_comments_about_it() {
        assert_eq!(findings("crates/a/src/lib.rs", &format!("{HEAD}fn a() {{ b.unwrap() }}")), 1);
        assert_eq!(findings("crates/a/src/lib.rs", &format!("{HEAD}// no .unwrap() here")), 0);
        assert_eq!(
            findings("crates/a/src/lib.rs", &format!("{HEAD}#[cfg(test)]\nmod tests {{ fn a() {{ b.unwrap() }} }}")),
            0
        );
        assert_eq!(findings("crates/a/tests/b.rs", &format!("{HEAD}fn a() {{ b.unwrap() }}")), 0);
    }
}
