//! Pictures of the pages: a server with sales in it, and Chromium in front. `cargo xtask screenshots` runs it with the folder to fill.
//!
//! A picture is `PAGE-WIDTH-SCHEME.png`, in English; in other languages `PAGE-LANGUAGE-WIDTH-SCHEME.png`. One device pixel is one CSS pixel,
//! so that a page takes some 30 KiB.

use std::path::{Path, PathBuf};

use system_tests::browser::Browser;
use system_tests::paying::{pay, sandbox_settings};
use system_tests::{Server, open_sale};

/// A telephone's and a desk's.
const WIDTHS: [u32; 2] = [360, 1_280];
const SCHEMES: [&str; 2] = ["light", "dark"];

/// A page, and the languages that it is shown in.
struct Shown {
    name: &'static str,
    url: fn(&Scene) -> String,
    languages: &'static [&'static str],
}

const PAGES: [Shown; 1] = [Shown { name: "sandbox", url: |scene| scene.payment.clone(), languages: &["en"] }];

/// What there is to see.
struct Scene {
    /// Audits itself at the end.
    _server: Server,
    /// The page of a payment that nobody has made yet.
    payment: String,
}

impl Scene {
    fn set() -> Self {
        let server = Server::start_with(&sandbox_settings().each_ref().map(String::as_str));
        server.create(&open_sale("drop", 3));
        let anna = server.customer("anna", "drop");
        let order = anna.buy("boot", "key").is(201, "held").text("order");
        let payment = pay(&anna, &order).is(201, "").text("pay_url");
        Self { _server: server, payment }
    }
}

fn main() {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("give the folder for the pictures"));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let browser = Browser::start();
    let scene = Scene::set();
    for shown in &PAGES {
        for language in shown.languages {
            take(&browser, &folder, shown, &scene, language);
        }
    }
}

fn take(browser: &Browser, folder: &Path, shown: &Shown, scene: &Scene, language: &str) {
    let page = browser.context().page();
    page.language(language);
    page.reduced_motion();
    for width in WIDTHS {
        page.size(width, 640, 1.0, width < 600);
        for scheme in SCHEMES {
            page.scheme(scheme);
            page.open(&in_language(&(shown.url)(scene), language));
            let name = if language == "en" { shown.name.to_owned() } else { format!("{}-{language}", shown.name) };
            let file = folder.join(format!("{name}-{width}-{scheme}.png"));
            page.screenshot(&file, true);
            eprintln!("screenshots: {}", file.display());
        }
    }
}

fn in_language(url: &str, language: &str) -> String {
    match language {
        "en" => url.to_owned(),
        _ => format!("{url}{}lang={language}", if url.contains('?') { '&' } else { '?' }),
    }
}
