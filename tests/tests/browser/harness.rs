//! The harness itself: what it does is done, and what it sees is so. Its pages are its own.

use serde_json::json;
use system_tests::Folder;
use system_tests::browser::{Context, Page, Stage};

use crate::browser;
use crate::site::{File, Site};

const PLAIN: &str = "<!doctype html><html lang=en><title>Plain</title><main><h1>Plain</h1></main>";
const STRICT: &str = "content-security-policy: default-src 'none'; script-src 'self'; connect-src 'self'; \
                      require-trusted-types-for 'script'\r\n";
const SCRIPT: &str = "content-type: text/javascript\r\ncache-control: max-age=600\r\n";
const FILES: &[File] = &[
    ("/", STRICT, PLAIN),
    (
        "/broken",
        STRICT,
        "<!doctype html><html lang=en><title>Broken</title><h1>Broken</h1><script>window.ran=1</script>",
    ),
    ("/data", "content-type: application/json\r\n", "{\"units\":3}"),
    (
        "/with-script",
        "",
        "<!doctype html><html lang=en><title>Script</title><link rel=icon href=data:,><h1>Script</h1><script src=/script.js></script>",
    ),
    ("/script.js", SCRIPT, "window.ran = 1"),
    ("/no-label", "", "<!doctype html><html lang=en><title>Form</title><main><h1>Form</h1><input></main>"),
    (
        "/label",
        "",
        "<!doctype html><html lang=en><title>Form</title><main><h1>Form</h1><label>Name <input></label></main>",
    ),
    (
        "/buttons",
        "",
        "<!doctype html><html lang=en><title>Buttons</title><main><h1>Buttons</h1><div style='height:3000px'></div>\
         <button id=free onclick='said.textContent+=event.type+event.detail+event.isTrusted'>Free</button>\
         <a id=on href=/label>On</a><p id=said></p></main>\
         <script>for (const kind of ['dblclick','touchstart']) \
         free.addEventListener(kind, (event) => said.textContent += kind + event.isTrusted)</script>",
    ),
    (
        "/covered",
        "",
        "<!doctype html><html lang=en><title>Covered</title><button onclick='document.title=1'>Buy</button>\
         <div style='position:fixed;inset:0' id=curtain></div>\
         <script>setTimeout(() => curtain.remove(), 300)</script>",
    ),
];

fn open(path: &str) -> (Site, Context, Page) {
    let site = Site::start(FILES);
    let context = browser().context();
    let page = context.page();
    page.open(&site.url(path));
    (site, context, page)
}

/// A request of the page: its status, or that the network failed.
const ASK: &str = "fetch('/data').then((answer) => answer.status, (error) => error.name)";

#[test]
fn what_a_policy_forbids_is_noticed_and_fails_the_test() {
    let (_site, _context, page) = open("/broken");
    let violations = page.violations();
    assert!(violations.iter().any(|said| said.starts_with("event: script-src-elem forbids inline")), "{violations:#?}");
    assert!(violations.iter().any(|said| said.starts_with("issue: ")), "{violations:#?}");
    assert!(page.console().iter().any(|said| said.contains("Content Security Policy")), "{:#?}", page.console());
    assert_eq!(page.eval("typeof ran"), "undefined");
    page.reload();
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| page.close()));
    let told = *dropped.expect_err("a page does not go against its policy unnoticed").downcast::<String>().unwrap();
    assert!(told.contains("goes against its own policy"), "{told}");
}

#[test]
fn a_strict_policy_is_in_the_way_of_the_page_and_not_of_the_test() {
    let (_site, _context, page) = open("/");
    assert_eq!(page.eval("Promise.resolve(document.title)"), "Plain");
    assert_eq!(page.axe(), Vec::<String>::new());
    assert_eq!(page.eval("typeof axe"), "undefined", "it is not in the page");
    assert_eq!(page.violations(), Vec::<String>::new());
    let thrown = page.eval("(() => { try { document.body.innerHTML = '<b>' } catch (error) { return error.name } })()");
    assert_eq!(thrown, "TypeError");
    assert!(!page.violations().is_empty());
}

#[test]
fn without_a_network_nothing_arrives_and_with_it_everything_does() {
    let (site, _context, page) = open("/");
    page.offline(true);
    assert_eq!(page.eval(&format!("{ASK}.then((said) => [said, navigator.onLine])")), json!(["TypeError", false]));
    page.offline(false);
    assert_eq!(page.eval(&format!("{ASK}.then((said) => [said, navigator.onLine])")), json!([200, true]));
    assert_eq!(site.served("/data").len(), 1);
}

#[test]
fn a_request_is_lost_before_the_server_and_an_answer_after_it() {
    let (site, _context, page) = open("/");
    page.fail_next("/data", 2, Stage::Request);
    page.fail_next("/data", 1, Stage::Response);
    for (answer, served) in [("TypeError", 0), ("TypeError", 0), ("TypeError", 1)] {
        assert_eq!((page.eval(ASK), site.served("/data").len()), (answer.into(), served));
    }
    assert_eq!((page.eval(ASK), site.served("/data").len()), (200.into(), 2));
    let requests = page.requests();
    let errors: Vec<_> =
        requests.iter().filter(|request| request.kind == "Fetch").map(|request| &request.error).collect();
    assert_eq!(errors, ["net::ERR_CONNECTION_RESET", "net::ERR_CONNECTION_RESET", "net::ERR_CONNECTION_RESET", ""]);
}

#[test]
fn tabs_of_one_person_share_what_is_stored_and_others_do_not() {
    let (site, context, page) = open("/");
    let tab = context.page();
    tab.open(&site.url("/"));
    tab.eval("addEventListener('storage', (event) => window.heard = event.newValue)");
    page.eval("localStorage.setItem('key', 'mine'); document.cookie = 'name=anna; path=/'");
    tab.until("the other tab's word", "window.heard === 'mine'");
    assert_eq!(tab.cookies()[0]["value"], "anna");
    let stranger = browser().context().page();
    stranger.open(&site.url("/"));
    assert_eq!(stranger.eval("[localStorage.length, document.cookie]"), json!([0, ""]));
    // All of them are in front: they draw, and take input.
    for page in [&page, &tab, &stranger] {
        assert_eq!(page.eval("document.visibilityState"), "visible");
        page.eval("new Promise(requestAnimationFrame)");
    }
}

#[test]
fn requests_and_their_bytes_are_those_on_the_wire() {
    let (site, _context, page) = open("/with-script");
    let seen = |page: &Page| -> Vec<(String, u16, bool)> {
        page.requests().iter().map(|one| (one.url.clone(), one.status, one.is_from_cache)).collect()
    };
    let urls = ["/with-script", "/script.js"].map(|path| site.url(path));
    assert_eq!(seen(&page), [(urls[0].clone(), 200, false), (urls[1].clone(), 200, false)]);
    for (request, path) in page.requests().iter().zip(["/with-script", "/script.js"]) {
        let served = &site.served(path)[0];
        assert_eq!((request.wire_bytes, request.request_headers_bytes), (served.written, served.read), "{request:?}");
    }
    page.clear_requests();
    page.open(&urls[0]);
    assert_eq!(seen(&page), [(urls[0].clone(), 200, false), (urls[1].clone(), 200, true)]);
    assert_eq!((page.requests()[1].wire_bytes, site.served("/script.js").len()), (0, 1));
}

#[test]
fn a_shifted_clock_shifts_dates_and_nothing_else() {
    let (site, _context, page) = open("/");
    page.shift_clock(-5);
    page.open(&site.url("/label"));
    let hours = "(date) => Math.round((date - performance.timeOrigin) / 3600000)";
    let js = format!("[Date.now(), new Date(), Date.parse(Date())].map({hours})");
    assert_eq!(page.eval(&js), json!([-5, -5, -5]));
    assert_eq!(
        page.eval("[new Date(7).getTime(), Date.UTC(1970, 0), new Date() instanceof Date]"),
        json!([7, 0, true])
    );
    assert_eq!(page.eval("performance.now() < 60000"), true);
}

#[test]
fn axe_misses_no_label_and_praises_a_good_page() {
    let (site, _context, page) = open("/no-label");
    let found = page.axe();
    assert_eq!(found, ["label (critical) \"input\": Form elements must have labels"]);
    page.open(&site.url("/label"));
    assert_eq!(page.axe(), Vec::<String>::new());
}

#[test]
fn a_mouse_a_finger_and_the_back_button_do_what_they_do_for_people() {
    let (site, _context, page) = open("/buttons");
    page.click("#free");
    assert_eq!(page.text("#said"), "click1true");
    page.double_click("#free");
    assert_eq!(page.text("#said"), "click1trueclick1trueclick2truedblclicktrue");
    page.eval("said.textContent = ''");
    page.size(360, 640, 2.0, true);
    page.tap("#free");
    page.until("the click that follows a touch", "said.textContent === 'touchstarttrueclick1true'");
    page.click("#on");
    page.until("the other page", "document.title === 'Form'");
    page.back();
    assert_eq!((page.url(), page.eval("document.title")), (site.url("/buttons"), "Buttons".into()));
    page.open(&site.url("/covered"));
    page.click("button");
    assert_eq!(page.eval("document.title"), "1", "as soon as it is free");
}

#[test]
fn a_person_has_a_language_a_scheme_and_a_tab_that_may_crash() {
    let (site, context, page) = open("/");
    page.language("de");
    page.scheme("dark");
    page.reduced_motion();
    page.open(&site.url("/label"));
    let js = "[navigator.language, (1.5).toLocaleString(), \
              ...['prefers-color-scheme: dark', 'prefers-reduced-motion'].map((query) => matchMedia(`(${query})`).matches)]";
    assert_eq!(page.eval(js), json!(["de", "1,5", true, true]));
    let tab = context.page();
    tab.language("de");
    tab.open(&site.url("/"));
    page.language("ar");
    page.crash();
    page.reload();
    assert_eq!(page.text("h1"), "Form");
    page.press("Tab");
    page.write("Anna");
    page.press("!");
    assert_eq!((page.eval("document.activeElement.value"), page.focused()), ("Anna!".into(), "input \"Name\"".into()));
}

#[test]
fn a_picture_has_the_size_of_the_window_or_of_the_page() {
    let (_site, _context, page) = open("/buttons");
    let folder = Folder::new();
    let pixels = |is_full_page| {
        let path = folder.join("page.png");
        page.screenshot(&path, is_full_page);
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(&bytes[1..4], b"PNG");
        // Width and height stand at the beginning.
        [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()))
    };
    page.size(360, 640, 2.0, false);
    assert_eq!(pixels(false), [720, 1_280]);
    let [width, height] = pixels(true);
    assert!(width == 720 && height > 6_000, "{width} {height}");
}
