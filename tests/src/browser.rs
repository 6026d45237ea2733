//! Chromium for the tests of pages: real input, a real cache, and a note of everything that it asks for and complains about.
//!
//! It speaks the DevTools protocol over two pipes, so there is no port to find and nobody else can reach it. It resolves no name but
//! `localhost`: a page that needs something from elsewhere fails here. Every wait has an end, and says what was waited for.

mod axe;
mod input;
mod looks;
mod network;
mod page;
mod pipe;
mod watch;

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::folder::Folder;
use pipe::Pipe;

pub use network::{Exchange, Stage};
pub use page::Page;

/// Nothing is asked of the outside, nothing is drawn that another machine would draw differently, and a page in the background is not
/// slowed down.
const ARGUMENTS: [&str; 30] = [
    "--remote-debugging-pipe",
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--no-proxy-server",
    "--no-service-autorun",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE *.localhost",
    "--disable-quic",
    "--disable-sync",
    "--disable-extensions",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-component-update",
    "--disable-component-extensions-with-background-pages",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-features=Translate,MediaRouter,OptimizationHints,AutofillServerCommunication",
    "--metrics-recording-only",
    "--mute-audio",
    "--password-store=basic",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--hide-scrollbars",
    "--lang=en-US",
];

/// Begins as the leader of a group of processes. The browser reads commands from descriptor 3 and answers on 4, and ends when 3 is closed:
/// also when the test is killed. Then the folder goes too; after any other end it has the browser's last words.
const SCRIPT: &str = r#"folder=$1; shift
chromium "--user-data-dir=$folder/profile" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>"$folder/stderr" &&
    rm -rf "$folder""#;

/// A browser process, without a window on any screen. One is enough for many tests: each has contexts of its own.
pub struct Browser {
    child: Child,
    pipe: Arc<Pipe>,
    /// Removed last.
    _folder: Folder,
}

impl Browser {
    /// Starts one with a new profile.
    ///
    /// # Panics
    /// When Chromium is not installed, or says nothing.
    pub fn start() -> Self {
        let folder = Folder::new();
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh"]).arg(folder.path()).args(ARGUMENTS);
        for name in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env(name, folder.path());
        }
        command.env("DBUS_SESSION_BUS_ADDRESS", "disabled:").process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("there is a shell");
        let pipe = Pipe::open(&mut child, folder.join("stderr"));
        let browser = Self { child, pipe, _folder: folder };
        let version = browser.pipe.ask(None, "Browser.getVersion", &json!({}));
        version.unwrap_or_else(|error| {
            panic!("{error}\nIs the package `chromium` installed? `cargo xtask packages` does it.")
        });
        browser
    }

    /// Somebody's browser: cookies, storage and cache of their own.
    pub fn context(&self) -> Context {
        let made = self.pipe.ask(None, "Target.createBrowserContext", &json!({ "disposeOnDetach": true }));
        let id = text(&made.unwrap_or_else(|error| panic!("no context: {error}")), "browserContextId");
        Context(Arc::new(Profile { pipe: Arc::clone(&self.pipe), id }))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself, and its folder is removed after this.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// What the tabs of one person share. It goes with the last of them.
#[derive(Clone)]
pub struct Context(Arc<Profile>);

impl Context {
    /// A new tab, as wide as a desk's screen. It is in front, as all are.
    pub fn page(&self) -> Page {
        Page::open_in(self)
    }
}

struct Profile {
    pipe: Arc<Pipe>,
    id: String,
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.pipe.tell(None, "Target.disposeBrowserContext", &json!({ "browserContextId": self.id }));
    }
}

/// A text field; empty when it is not there.
fn text(json: &Value, field: &str) -> String {
    json[field].as_str().unwrap_or_default().to_owned()
}
