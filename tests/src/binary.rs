//! The binary under test: where it is, and running one of its commands to the end.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// `target/debug` or whatever profile these tests were built with.
pub(crate) fn build_folder() -> PathBuf {
    let own = std::env::current_exe().expect("a test runs from a file");
    let folder = own.parent().expect("a file lies in a folder");
    // Tests lie in target/PROFILE/deps, programs in target/PROFILE.
    if folder.ends_with("deps") { folder.parent() } else { Some(folder) }.expect("it has a parent").to_owned()
}

/// The real binary, next to the tests. CI builds it before; alone, a run of these tests builds it once.
pub(crate) fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = build_folder().join("doorbuster");
        if !path.exists() {
            let profile = build_folder().ends_with("release").then_some("--release");
            let built = Command::new(env!("CARGO")).args(["build", "-p", "doorbuster"]).args(profile).status();
            assert!(built.is_ok_and(|status| status.success()), "the binary cannot be built");
        }
        path
    })
}

/// The binary as a command, without what the environment of the tests would tell it: `DOORBUSTER_SOAK` is no key of its own.
pub(crate) fn command() -> Command {
    let mut command = Command::new(path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOORBUSTER_") {
            command.env_remove(name);
        }
    }
    command
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub out: String,
    /// What it said on the side.
    pub error: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The output as JSON.
    ///
    /// # Panics
    /// When it is none, or the command failed.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that it refused with words that contain all of `words`.
    pub fn refused_with(&self, words: &[&str]) {
        assert!(self.code.is_some_and(|code| code != 0), "{self:?}");
        for word in words {
            assert!(self.error.contains(word), "{word:?} is not in: {}", self.error);
        }
    }
}

/// Runs `doorbuster` with these arguments to its end.
pub fn doorbuster<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ended {
    doorbuster_in(&[], arguments)
}

/// Runs `doorbuster` with these variables and arguments to its end.
pub fn doorbuster_in<S: AsRef<std::ffi::OsStr>>(variables: &[(&str, &str)], arguments: &[S]) -> Ended {
    let output = command().args(arguments).env("RUST_LOG", "warn").envs(variables.iter().copied()).output();
    Ended::of(output.expect("the binary starts"))
}
