//! Pictures of the pages: servers with sales in every state, and Chromium in front. `cargo xtask screenshots` runs it with the folder to fill.
//!
//! A picture is `PAGE-WIDTH-SCHEME.webp`, in English; in other languages `PAGE-LANGUAGE-WIDTH-SCHEME.webp`. One device pixel is one CSS pixel,
//! so that a page takes some 20 KiB. With more words behind the folder, only the pages that are named are taken; with the word `large`
//! before them, with letters twice as large, as somebody sets their browser who reads badly.

mod scene;
mod shown;

use std::path::{Path, PathBuf};

use system_tests::browser::{Browser, Page};

use scene::Scene;
use shown::{PAGES, Shown};

/// A telephone's and a desk's.
const WIDTHS: [u32; 2] = [360, 1_280];
const SCHEMES: [&str; 2] = ["light", "dark"];

fn main() {
    let mut words: Vec<_> = std::env::args().skip(1).collect();
    assert!(!words.is_empty(), "give the folder for the pictures");
    let folder = PathBuf::from(words.remove(0));
    let is_large = words.first().is_some_and(|word| word == "large");
    words.drain(..usize::from(is_large));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let browser = Browser::start();
    let scene = Scene::set();
    for shown in PAGES.iter().filter(|shown| words.is_empty() || words.iter().any(|word| word == shown.name)) {
        for language in shown.languages {
            take(&browser, &folder, shown, &scene, language, is_large);
        }
    }
}

fn take(browser: &Browser, folder: &Path, shown: &Shown, scene: &Scene, language: &str, is_large: bool) {
    let page = browser.context().page();
    page.language(language);
    page.reduced_motion();
    page.scripts(shown.has_scripts);
    for width in WIDTHS {
        page.size(width, 640, 1.0, width < 600);
        for scheme in SCHEMES {
            page.scheme(scheme);
            page.open("about:blank");
            page.open(&in_language(&(shown.url)(scene), shown.who, language));
            ready(&page, shown, width, is_large);
            let name = if language == "en" { shown.name.to_owned() } else { format!("{}-{language}", shown.name) };
            let file = folder.join(format!("{name}-{width}-{scheme}.webp"));
            page.screenshot(&file, shown.is_whole);
            eprintln!("screenshots: {}", file.display());
        }
    }
}

/// Waits until the page shows what it is to show, and everything fits into its width.
fn ready(page: &Page, shown: &Shown, width: u32, is_large: bool) {
    if let Some(press) = shown.press {
        // Whoever looks again has pressed already.
        page.until("something to press", &format!("!document.querySelector({press:?}).disabled || {}", shown.until));
        page.eval(&format!("document.querySelector({press:?}).click()"));
    }
    page.until("what is to be seen", shown.until);
    if is_large {
        page.eval("document.documentElement.style.fontSize = '200%'");
    }
    page.eval("document.querySelectorAll('img').forEach((image) => image.loading = 'eager')");
    page.until("the pictures", "[...document.images].every((image) => image.complete)");
    // Not the window's own width: a telephone makes that as wide as what is in it.
    let needed = page.eval("document.documentElement.scrollWidth");
    assert!(needed.as_u64() <= Some(width.into()), "{}: {needed} pixels are needed of {width}", shown.name);
}

/// The address in that language, with the token of whoever comes in by it.
fn in_language(url: &str, who: Option<&str>, language: &str) -> String {
    let token = who.map(|who| format!("#token={}", system_tests::token_of(who))).unwrap_or_default();
    match language {
        "en" => format!("{url}{token}"),
        _ => format!("{url}{}lang={language}{token}", if url.contains('?') { '&' } else { '?' }),
    }
}
