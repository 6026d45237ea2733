//! The pages in a real browser. One Chromium serves all of these tests; each has a context of its own.

mod access;
mod buying;
mod embed;
mod first_view;
mod harness;
mod human;
mod network;
mod sandbox;
mod shop;
mod site;

use std::sync::OnceLock;

use system_tests::browser::Browser;

/// The browser of this process. It ends with it, because it hears that the pipe is closed.
fn browser() -> &'static Browser {
    static BROWSER: OnceLock<Browser> = OnceLock::new();
    BROWSER.get_or_init(Browser::start)
}
