//! `cargo xtask screenshots`: pictures of the pages for the documents, made by the program `screenshots` of the system tests.

use std::path::Path;

use crate::process::{cargo, run as run_command};

const PICTURES: &str = "docs/pages";

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    crate::packages::check(root)?;
    run_command(&mut cargo(root, &["build", "--locked", "--quiet", "--package", "doorbuster"]))?;
    let make = ["run", "--locked", "--quiet", "--package", "system-tests", "--bin", "screenshots", "--", PICTURES];
    run_command(&mut cargo(root, &make))
}
