//! `cargo xtask tidy`: what the compiler does not check. Every finding names a file, a line and what would be right.

mod documents;
mod files;
mod rust;
mod scan;
mod sizes;

use std::path::Path;

use anyhow::bail;

use files::TextFile;

/// Something that is not as it should be.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// From 1; 0 for the file as a whole.
    line: usize,
    text: String,
}

impl Finding {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into() }
    }
}

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let files = files::read_all(root)?;
    let exceptions = sizes::Exceptions::read(root)?;
    let mut findings = sizes::check(&files, &exceptions);
    findings.extend(rust::check(&files));
    findings.extend(documents::check(root, &files));
    findings.sort();
    for Finding { path, line, text } in &findings {
        match line {
            0 => eprintln!("{path}: {text}"),
            _ => eprintln!("{path}:{line}: {text}"),
        }
    }
    if !findings.is_empty() {
        bail!("tidy has {} findings", findings.len());
    }
    eprintln!("tidy: {} files, nothing found", files.len());
    Ok(())
}

/// Lines with their numbers from 1.
fn lines(file: &TextFile) -> impl Iterator<Item = (usize, &str)> {
    file.text.lines().enumerate().map(|(index, line)| (index + 1, line))
}
