//! Runs other programs from the repository's folder and says which one failed.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, bail};

/// The cargo that runs us, so that a chosen toolchain stays chosen.
pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root);
    command
}

/// Runs to the end with our own input and output; an error names the command.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{} cannot be started", line_of(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", line_of(command));
    }
    Ok(())
}

/// The target that rustc compiles for when it is told none.
pub(crate) fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc cannot be started")?;
    let text = String::from_utf8(output.stdout).context("rustc does not print text")?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc does not name its host")?.to_owned())
}

/// Where cargo puts what it builds.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into)
}

/// What the debug build of our own binary prints; its progress goes to our stderr.
pub(crate) fn binary_output(root: &Path, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new(target(root).join("debug/doorbuster"));
    command.args(arguments).current_dir(root).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("{} cannot be started", line_of(&command)))?;
    if !output.status.success() {
        bail!("{} failed: {}", line_of(&command), output.status);
    }
    Ok(output.stdout)
}

/// Whether a command can be run and ends well; it prints nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Runs to the end, showing both outputs on our stderr and writing them to `copy`, with the repository's folder as `.`.
pub(crate) fn run_and_copy(command: &mut Command, root: &Path, copy: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let line = line_of(command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{line} cannot be started"))?;
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|output| Box::new(output) as _),
        child.stderr.take().map(|output| Box::new(output) as _),
    ];
    let folder = root.to_string_lossy().into_owned();
    let copy = Mutex::new(copy);
    let copied: Vec<std::io::Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            outputs.into_iter().flatten().map(|output| scope.spawn(|| copy_lines(output, &folder, &copy))).collect();
        threads.into_iter().map(|thread| thread.join().expect("copying lines does not panic")).collect()
    });
    let status = child.wait()?;
    copied.into_iter().collect::<std::io::Result<()>>()?;
    if !status.success() {
        bail!("{line} failed: {status}");
    }
    Ok(())
}

fn copy_lines(output: impl Read, folder: &str, copy: &Mutex<&mut (dyn Write + Send)>) -> std::io::Result<()> {
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).replace(folder, ".");
        let mut copy = copy.lock().expect("copying lines does not panic");
        eprintln!("{line}");
        writeln!(copy, "{line}")?;
    }
    Ok(())
}

fn line_of(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
