//! The repository's own text files; never what a build or a run has left behind.

use std::path::Path;

use anyhow::Context;

const FOLDERS: [&str; 6] = [".ci", "config", "crates", "docs", "tests", "xtask"];
const ENDINGS: [&str; 9] = ["rs", "md", "toml", "txt", "json", "lua", "sql", "html", "js"];

/// A file with its path from the repository's folder, `/` between folders.
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl TextFile {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(crate) fn is_document(&self) -> bool {
        self.path.ends_with(".md")
    }
}

/// All text files of the repository, sorted by path.
pub(crate) fn read_all(root: &Path) -> anyhow::Result<Vec<TextFile>> {
    let mut files = Vec::new();
    for entry in entries(root)? {
        if root.join(&entry).is_file() {
            read(root, entry, &mut files)?;
        }
    }
    for folder in FOLDERS {
        if root.join(folder).is_dir() {
            walk(root, folder, &mut files)?;
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn walk(root: &Path, folder: &str, files: &mut Vec<TextFile>) -> anyhow::Result<()> {
    for name in entries(&root.join(folder))? {
        let path = format!("{folder}/{name}");
        if root.join(&path).is_dir() {
            if name != "target" {
                walk(root, &path, files)?;
            }
        } else {
            read(root, path, files)?;
        }
    }
    Ok(())
}

fn read(root: &Path, path: String, files: &mut Vec<TextFile>) -> anyhow::Result<()> {
    let is_text =
        path.starts_with(".ci/") || path.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending));
    if is_text {
        let text =
            std::fs::read_to_string(root.join(&path)).with_context(|| format!("{path} cannot be read as text"))?;
        files.push(TextFile { path, text });
    }
    Ok(())
}

fn entries(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{} cannot be listed", folder.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}
