//! The buy button on a shop's page of another origin, under a policy as strict as a shop's can be.

use domain::{ChainTime, SaleDefinition};
use serde_json::{Value, json};
use system_tests::browser::{Context, Page};
use system_tests::{Request, Server, item, open_sale, sale_of, until};

use crate::browser;
use crate::site::{File, Site};

type Press = fn(&Page);

const BUTTON: &str = "doorbuster-button >>> button";
/// Notes what the button tells, as a shop would hear it.
const SCRIPT: &str = "window.told = [];
    for (const name of ['state', 'held', 'end', 'check', 'sign-in'])
      document.addEventListener(`doorbuster-${name}`, ({ detail, target }) => told.push([name, detail, target.id]));";
const STYLE: &str = "body { background: canvas; color: canvastext; color-scheme: light dark }
    doorbuster-button { --doorbuster-button: rgb(1, 99, 3); --doorbuster-button-text: rgb(255, 255, 254) }
    doorbuster-button::part(button) { border-radius: 0 }";
const ONE: &str = "<doorbuster-button id=one sale=drop item=boot></doorbuster-button>";

/// A shop that shows these elements, beside an engine with this sale.
struct Shop {
    server: Server,
    site: Site,
    context: Context,
    page: Page,
}

impl Shop {
    fn open(definition: &SaleDefinition, elements: &str) -> Self {
        Self::open_with(definition, elements, true)
    }

    fn open_with(definition: &SaleDefinition, elements: &str, is_let_in: bool) -> Self {
        let server = Server::start();
        server.create(definition);
        let engine = format!("http://{}", server.public());
        let policy = format!(
            "content-security-policy: default-src 'none'; script-src 'self' {engine}; connect-src {engine}; style-src 'self'; \
             img-src data:; require-trusted-types-for 'script'; trusted-types 'none'\r\n"
        );
        let page = format!(
            "<!doctype html><html lang=en><title>Shop</title><link rel=icon href=data:,><link rel=stylesheet href=/shop.css>\
             <script src=/shop.js></script><script type=module src={engine}/button.js></script>\
             <main><h1>Shop</h1>{elements}</main></html>"
        );
        let site = serve(vec![
            ("/".into(), policy, page),
            ("/shop.js".into(), "content-type: text/javascript\r\n".into(), SCRIPT.into()),
            ("/shop.css".into(), "content-type: text/css\r\n".into(), STYLE.into()),
        ]);
        if is_let_in {
            let_in(&server, &site);
        }
        let context = browser().context();
        let page = context.page();
        page.open(&site.url("/"));
        Self { server, site, context, page }
    }

    fn sign_in(&self, name: &str) {
        let token = self.server.customer(name, "drop").token;
        self.page.eval(&format!("document.querySelector('doorbuster-button').token = {}, 0", json!(token)));
    }

    #[track_caller]
    fn until_state(&self, state: &str) {
        self.page
            .until(state, &format!("document.querySelector('doorbuster-button').dataset.state === {}", json!(state)));
    }

    /// What the page was told under this name.
    fn told(&self, name: &str) -> Vec<Value> {
        let all = self.page.eval("told");
        all.as_array().unwrap().iter().filter(|told| told[0] == name).map(|told| told[1].clone()).collect()
    }

    /// The states that the page was told, in order.
    fn states(&self) -> Vec<String> {
        self.told("state").iter().map(|told| told["state"].as_str().unwrap().to_owned()).collect()
    }

    /// The text that stands in the button's shadow.
    fn part(&self, name: &str) -> String {
        let js = format!(
            "document.querySelector('doorbuster-button').shadowRoot.querySelector('[part={name}]').textContent"
        );
        self.page.eval(&js).as_str().unwrap().to_owned()
    }

    /// Requests of the page to addresses that end so.
    fn requests(&self, method: &str, end: &str) -> usize {
        self.page.requests().iter().filter(|one| one.method == method && one.url.ends_with(end)).count()
    }

    /// The page has kept to its policy and is accessible, by day and by night.
    #[track_caller]
    fn is_fine(&self) {
        for scheme in ["light", "dark"] {
            self.page.scheme(scheme);
            assert_eq!(self.page.axe(), Vec::<String>::new(), "{scheme}");
        }
        assert_eq!(self.page.violations(), Vec::<String>::new());
    }
}

fn serve(files: Vec<(String, String, String)>) -> Site {
    let files = files.into_iter().map(|(path, headers, body)| -> File { (path.leak(), headers.leak(), body.leak()) });
    Site::start(files.collect::<Vec<_>>().leak())
}

fn let_in(server: &Server, site: &Site) {
    let body = json!({ "origins": [site.url("")], "button": { "de": "Hol ihn dir" } });
    server.operate(Request::new("PUT", "/admin/v1/sales/drop/showcase").json(&body)).is(200, "");
}

fn opening_in(seconds: u64, stock: u32) -> SaleDefinition {
    let mut definition = open_sale("drop", stock);
    definition.opens_at = ChainTime(definition.opens_at.0 + 1_000 + seconds * 1_000);
    definition
}

#[test]
fn a_press_at_the_opening_is_one_request_and_nothing_is_asked_before_it() {
    let shop = Shop::open(&opening_in(8, 5), ONE);
    let page = &shop.page;
    shop.until_state("not_yet");
    shop.sign_in("anna");
    assert!(shop.part("clock").starts_with("00:"), "{}", shop.part("clock"));
    assert_eq!(page.eval("one.shadowRoot.querySelector('button').disabled"), true);
    until("the pass", || {
        page.requests().iter().any(|one| one.url.ends_with("/mine") && one.status == 200 && !one.is_preflight)
    });
    until("the browser to ask", || {
        page.requests().iter().any(|one| one.is_preflight && one.url.ends_with("/purchases"))
    });
    shop.until_state("open");
    page.clear_requests();
    page.click(BUTTON);
    shop.until_state("yours");
    let requests = page.requests();
    let sent: Vec<_> = requests
        .iter()
        .filter(|one| one.url.contains("/items/"))
        .map(|one| (one.method.as_str(), one.status))
        .collect();
    assert_eq!(sent, [("POST", 201)], "{requests:#?}");
    assert_eq!(shop.states(), ["not_yet", "open", "deciding", "yours"]);
    let held = shop.told("held");
    assert_eq!((held.len(), &held[0]["fresh"], &held[0]["status"]), (1, &json!(true), &json!("held")));
    assert!(shop.part("clock").starts_with("09:") || shop.part("clock") == "10:00", "{}", shop.part("clock"));
    shop.is_fine();

    // Another load of the page finds what is the customer's, and says that it is not new.
    page.reload();
    shop.sign_in("anna");
    shop.until_state("yours");
    assert_eq!(shop.told("held")[0]["fresh"], false);
    shop.server.confirm(held[0]["order"].as_str().unwrap());
    shop.until_state("paid");
    assert_eq!(shop.server.counts("drop"), [4, 0, 1, 0]);
    assert_eq!(page.console(), Vec::<String>::new());

    // What nobody has asked for ahead of time does ask first, or this test would see nothing.
    let server = shop.server.public();
    page.clear_requests();
    page.eval(&format!(
        "fetch('http://{server}/v1/sales/drop/items/other/purchases', {{ method: 'POST', headers: {{ 'Idempotency-Key': '-' }} }}).then(() => 0, () => 0)"
    ));
    let preflights = page.requests().iter().filter(|one| one.is_preflight && one.url.contains("/items/other/")).count();
    assert_eq!(preflights, 1, "{:#?}", page.requests());
}

#[test]
fn one_press_is_one_purchase_however_it_is_done() {
    let shop = Shop::open(&open_sale("drop", 100), &ONE.replace("sale", "quantity=2 sale"));
    let presses: [(&str, Press); 4] = [
        ("a double click", |page| page.double_click(BUTTON)),
        ("Enter", |page| {
            page.press("Tab");
            page.press("Enter");
        }),
        ("a blank", |page| {
            page.press("Tab");
            page.press("Space");
        }),
        ("a finger", |page| page.tap(BUTTON)),
    ];
    for (number, (what, press)) in presses.into_iter().enumerate() {
        let number = number as u64;
        shop.page.reload();
        shop.sign_in(&format!("customer-{number}"));
        shop.until_state("open");
        press(&shop.page);
        shop.until_state("yours");
        assert_eq!(shop.server.counts("drop"), [98 - 2 * number, 2 + 2 * number, 0, 0], "{what}");
        assert_eq!(shop.told("held").len(), 1, "{what}");
    }
    shop.is_fine();
}

#[test]
fn buttons_of_one_sale_share_its_customer_and_its_watch() {
    let two = "<doorbuster-button id=one sale=drop item=boot></doorbuster-button>\
               <doorbuster-button id=two sale=drop item=hat></doorbuster-button>";
    let shop = Shop::open(&sale_of("drop", vec![item("boot", 5), item("hat", 5)]), two);
    let page = &shop.page;
    shop.sign_in("anna");
    shop.until_state("open");
    page.until("the other one", "two.dataset.state === 'open'");
    assert_eq!(shop.requests("GET", "/v1/sales/drop"), 1, "{:#?}", page.requests());
    assert_eq!(page.eval("one.token === two.token"), true);
    let name = |id: &str| page.eval(&format!("{id}.shadowRoot.querySelector('button').ariaLabel"));
    assert_eq!(
        (name("one"), name("two")),
        ("Reserve: The boot of the tests".into(), "Reserve: The hat of the tests".into())
    );
    page.click("#two >>> button");
    page.until("the hat", "two.dataset.state === 'yours'");
    assert_eq!(page.eval("[one.dataset.state, told.at(-1)[2]]"), json!(["open", "two"]));
    shop.is_fine();

    // Taken out and put back, and turned into another one: it is what it was, and nobody asks twice as often.
    page.eval("window.kept = one, kept.remove(), document.querySelector('main').append(kept), 0");
    page.eval("two.setAttribute('item', 'boot')");
    page.until("both", "kept.isConnected && two.shadowRoot.querySelector('button').ariaLabel.includes('boot') && two.dataset.state === 'open'");
    page.eval(
        "for (let round = 0; round < 20; round += 1) { kept.remove(); document.querySelector('main').append(kept) }",
    );
    page.until("the first", "kept.dataset.state === 'open'");
    page.clear_requests();
    until("some looks", || shop.requests("GET", "/v1/sales/drop") >= 2);
    let gaps = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/v1/sales/drop')).slice(-2).map((one) => one.startTime)";
    let times = page.eval(gaps);
    assert!(times[1].as_f64().unwrap() - times[0].as_f64().unwrap() > 1_000.0, "{times}");
    page.click("#one >>> button");
    page.until("the boot", "one.dataset.state === 'yours'");
    assert_eq!(shop.server.counts("drop"), [4, 1, 0, 0], "of the boot");
    assert_eq!(page.console(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_sold_is_said_to_the_engineer_and_does_nothing() {
    let elements = "<doorbuster-button sale=nothing item=boot></doorbuster-button>\
                    <doorbuster-button sale=drop item=hat></doorbuster-button><doorbuster-button sale=drop></doorbuster-button>";
    let shop = Shop::open(&open_sale("drop", 5), elements);
    let page = &shop.page;
    page.until("three that do nothing", "document.querySelectorAll('[data-state=wrong]').length === 3");
    let said = page.console();
    for word in ["there is no sale \"nothing\"", "the sale \"drop\" has no item \"hat\"", "sale and item are missing"] {
        assert!(
            said.iter().any(|said| said.contains("doorbuster-button: ") && said.contains(word)),
            "{word}: {said:#?}"
        );
    }
    assert!(!said.iter().any(|said| said.contains("Uncaught")), "{said:#?}");
    assert_eq!(page.eval("[...document.querySelectorAll('doorbuster-button')].map((one) => one.shadowRoot.querySelector('button').disabled)"), json!([true, true, true]));
    page.eval("document.querySelector('doorbuster-button').setAttribute('sale', 'drop')");
    shop.until_state("signed_out");
    shop.is_fine();
}

#[test]
fn a_page_that_was_not_let_in_says_so_and_sells_nothing() {
    let shop = Shop::open_with(&open_sale("drop", 5), ONE, false);
    shop.until_state("signed_out");
    shop.sign_in("anna");
    shop.until_state("open");
    shop.page.until("an open button", "!one.shadowRoot.querySelector('button').disabled");
    shop.page.click(BUTTON);
    shop.until_state("trouble");
    let origin = shop.site.url("");
    let said = shop.page.console();
    let words = [origin.as_str(), "doorbuster sale showcase drop"];
    assert!(said.iter().any(|said| words.iter().all(|word| said.contains(word))), "{said:#?}");
    assert_eq!(shop.told("end"), [json!({ "code": "origin_refused" })]);
    assert_eq!(shop.server.counts("drop"), [5, 0, 0, 0]);
    shop.is_fine();
    // Let in, and loaded again.
    let_in(&shop.server, &shop.site);
    shop.page.reload();
    shop.sign_in("anna");
    shop.until_state("open");
    shop.page.click(BUTTON);
    shop.until_state("yours");
}

#[test]
fn the_button_shows_how_the_sale_stands_as_the_page_does() {
    let shop = Shop::open(&open_sale("drop", 1), ONE);
    let (page, server) = (&shop.page, &shop.server);
    shop.until_state("signed_out");
    // Pressed by somebody unknown: the shop makes them known.
    page.click(BUTTON);
    assert_eq!(shop.told("sign-in"), [json!({})]);
    shop.sign_in("anna");
    shop.until_state("open");
    page.eval("one.token = null");
    shop.until_state("signed_out");
    page.eval(&format!("one.token = () => {}, 0", json!(server.customer("anna", "drop").token)));
    shop.until_state("open");
    // A lost network ends nothing.
    page.offline(true);
    page.click(BUTTON);
    shop.until_state("offline");
    shop.is_fine();
    server.turn("drop", "pause").is(200, "");
    page.offline(false);
    shop.until_state("paused");
    server.turn("drop", "resume").is(200, "");
    shop.until_state("yours");
    let order = shop.told("held")[0]["order"].as_str().unwrap().to_owned();

    // Somebody else in another tab sees what is left of it.
    let ben = shop.context.page();
    ben.open(&shop.site.url("/"));
    let is = |state: &str| ben.until(state, &format!("one.dataset.state === {}", json!(state)));
    ben.eval(&format!("one.token = {}, 0", json!(server.customer("ben", "drop").token)));
    is("may_return");
    server.confirm(&order);
    is("gone");
    shop.until_state("paid");
    server.turn("drop", "close").is(200, "");
    is("closed");
    assert_eq!(ben.axe(), Vec::<String>::new());
}

#[test]
fn whoever_comes_too_late_is_told_no_and_may_try_again() {
    let shop = Shop::open(&open_sale("drop", 1), ONE);
    shop.until_state("signed_out");
    shop.sign_in("anna");
    shop.until_state("open");
    let ben = shop.server.customer("ben", "drop");
    let order = ben.buy("boot", "key").is(201, "held").text("order");
    shop.page.click(BUTTON);
    shop.page.until("a no", "told.some(([name]) => name === 'end')");
    assert_eq!(shop.told("end"), [json!({ "code": "sold_out" })]);
    shop.until_state("may_return");
    assert_eq!(shop.states(), ["signed_out", "open", "deciding", "may_return"], "it never looks free in between");
    ben.cancel(&order).is(200, "released");
    shop.until_state("open");
    shop.page.click(BUTTON);
    shop.until_state("yours");
    assert_eq!(shop.told("end").len(), 1);
}

#[test]
fn the_shop_gives_the_button_its_looks_and_its_language() {
    let elements = "<doorbuster-button id=one lang=ar sale=drop item=boot></doorbuster-button>\
                    <section lang=de><doorbuster-button id=two sale=drop item=boot></doorbuster-button></section>";
    let shop = Shop::open(&open_sale("drop", 3), elements);
    let page = &shop.page;
    shop.until_state("signed_out");
    page.until("the other one", "two.dataset.state === 'signed_out'");
    let style = "getComputedStyle(one.shadowRoot.querySelector('button'))";
    let looks =
        page.eval(&format!("[{style}.backgroundColor, {style}.color, {style}.borderTopLeftRadius, {style}.direction]"));
    assert_eq!(looks, json!(["rgb(1, 99, 3)", "rgb(255, 255, 254)", "0px", "rtl"]));
    assert_eq!(page.eval("[one.dir, one.lang, two.dir, two.lang]"), json!(["rtl", "ar", "ltr", "de"]));
    assert_eq!(page.eval("two.shadowRoot.querySelector('button').textContent"), "Hol ihn dir");
    shop.is_fine();
}

/// The file that people try, with this test's engine in it.
#[test]
fn the_example_shop_sells() {
    let server = Server::start_with(&["identity.dangerous_guest_tokens=true"]);
    server.create(&sale_of("drop", vec![item("poster", 2)]));
    let example = |name: &str| {
        let path = format!("{}/../examples/shop/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let engine = format!("http://{}", server.public());
    let index = example("index.html").replace("http://127.0.0.1:8080", &engine);
    assert_eq!(index.matches(&engine).count(), 3, "as its README says");
    let site = serve(vec![
        ("/".into(), String::new(), index),
        ("/shop.js".into(), "content-type: text/javascript\r\n".into(), example("shop.js")),
        ("/shop.css".into(), "content-type: text/css\r\n".into(), example("shop.css")),
    ]);
    let_in(&server, &site);
    let context = browser().context();
    let page = context.page();
    page.open(&site.url("/"));
    let shows = |state: &str| {
        page.until(state, &format!("document.querySelector('doorbuster-button').dataset.state === {}", json!(state)))
    };
    let is_fine = || {
        for scheme in ["light", "dark"] {
            page.scheme(scheme);
            assert_eq!(page.axe(), Vec::<String>::new(), "{scheme}");
        }
    };
    shows("open");
    is_fine();
    page.click(BUTTON);
    shows("yours");
    assert!(page.text("#next").starts_with("Your order or_"), "{}", page.text("#next"));
    is_fine();
    assert_eq!(server.counts("drop"), [1, 1, 0, 0]);
    assert_eq!(page.violations(), Vec::<String>::new());
    assert_eq!(page.console(), Vec::<String>::new());
}

/// Asks for the check before anybody can take a pass of the sale.
fn with_check(check: &str) -> Shop {
    let shop = Shop::open(&open_sale("drop", 5), ONE);
    let request = Request::new("PUT", "/admin/v1/sales/drop/human-check").json(&json!({ "human_check": check }));
    shop.server.operate(request).is(200, "");
    shop.until_state("signed_out");
    let token = shop.server.stranger("anna", "drop").token;
    shop.page.eval(&format!("one.token = {}, 0", json!(token)));
    shop.until_state("open");
    shop
}

#[test]
fn the_button_computes_a_proof_of_work_in_its_place() {
    let shop = with_check("proof_of_work");
    shop.page.click(BUTTON);
    shop.until_state("yours");
    assert_eq!(shop.told("held").len(), 1);
    assert_eq!(shop.requests("GET", "/human.js"), 1);
    shop.is_fine();
}

#[test]
fn the_button_leads_to_the_sales_page_for_letters() {
    let shop = with_check("answer");
    shop.page.eval("addEventListener('doorbuster-check', (event) => event.preventDefault(), { once: true }), 0");
    shop.page.click(BUTTON);
    shop.until_state("check_page");
    let url = shop.told("check")[0]["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with(&format!("http://{}/sales/drop#token=", shop.server.public())), "{url}");
    assert_eq!(shop.told("end"), Vec::<Value>::new());
    shop.is_fine();
    shop.page.click(BUTTON);
    shop.page.until("the sale's page with the check", "document.querySelector('#check img')?.naturalWidth > 0");
}
