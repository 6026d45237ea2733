//! The pages as they travel: what may be kept and by whom, what they may do, and what they say without their script.

use std::collections::BTreeMap;

use system_tests::{Reply, Request, Server, doorbuster, open_sale, until};

fn shop() -> Server {
    let server = Server::start();
    server.create(&open_sale("drop", 3));
    server
}

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.body.clone()).unwrap()
}

#[test]
fn a_page_that_is_everybodys_may_be_kept_for_a_second_and_ones_own_never() {
    let server = shop();
    let anna = server.customer("anna", "drop");
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    let order = format!("/orders/{order}");
    let table = [
        ("/", 200, "public, max-age=1"),
        ("/sales/drop", 200, "public, max-age=1"),
        ("/sales/none", 404, "no-store"),
        ("/mine", 200, "no-store"),
        (&order, 200, "no-store"),
        ("/orders/or_AAAA", 404, "no-store"),
        ("/button.js", 200, "public, max-age=300"),
        ("/button/words?sale=drop&lang=de", 200, "public, max-age=300"),
        ("/assets/page-0000000000000000.js", 404, "no-store"),
        ("/assets/../default.toml", 404, "no-store"),
    ];
    for (path, status, kept) in table {
        let reply = server.ask(&Request::get(path));
        assert_eq!((reply.status, reply.header("cache-control")), (status, Some(kept)), "{path}");
        assert!(reply.header("set-cookie").is_none(), "{path}");
    }
    for path in asset_paths(&text(&server.ask(&Request::get("/sales/drop")))) {
        let reply = server.ask(&Request::get(&path));
        assert_eq!(reply.header("cache-control"), Some("public, max-age=31536000, immutable"), "{path}");
    }
}

fn asset_paths(page: &str) -> Vec<String> {
    let paths = page.split('"').filter(|part| part.starts_with("/assets/"));
    let paths: Vec<_> = paths.map(str::to_owned).collect();
    assert_eq!(paths.len(), 2, "one style and one script: {paths:?}");
    paths
}

#[test]
fn no_page_has_anything_inline_or_from_elsewhere() {
    let server = shop();
    for path in ["/", "/sales/drop", "/mine", "/sales/none"] {
        let reply = server.ask(&Request::get(path));
        let policy = reply.header("content-security-policy").unwrap().to_owned();
        let rules: BTreeMap<_, _> = policy.split("; ").map(|rule| rule.split_once(' ').unwrap_or((rule, ""))).collect();
        assert_eq!(rules["default-src"], "'none'");
        for (rule, sources) in [("script-src", "'self'"), ("style-src", "'self'"), ("connect-src", "'self'")] {
            assert_eq!(rules[rule], sources, "{path}");
        }
        for (rule, sources) in [("frame-ancestors", "'none'"), ("base-uri", "'none'"), ("form-action", "'none'")] {
            assert_eq!(rules[rule], sources, "{path}");
        }
        assert_eq!((rules["require-trusted-types-for"], rules["trusted-types"]), ("'script'", "'none'"));
        for word in ["unsafe", "http:", "https:", "*"] {
            assert!(!policy.contains(word), "{path}: {policy}");
        }
        let page = text(&reply);
        for inline in ["style=\"", "<style", " onclick", " onload", "javascript:", "<script>"] {
            assert!(!page.contains(inline), "{path} has {inline}");
        }
        assert_eq!(page.matches("<script").count(), 2, "the script, and what it is given");
        asset_paths(&page);
    }
}

#[test]
fn a_page_without_its_script_says_how_things_stand_and_what_it_cannot_do() {
    let server = shop();
    let page = text(&server.ask(&Request::get("/sales/drop")));
    for said in
        ["A sale of the tests", "The boot of the tests", "49.00 EUR", "Buying here needs JavaScript", "As of <time"]
    {
        assert!(page.contains(said), "{said}: {page}");
    }
    // The button cannot be pressed until somebody listens.
    assert!(page.contains("data-do=\"press\" disabled"));
    for name in ["anna", "ben", "carl"] {
        server.customer(name, "drop").buy("boot", "key").is(201, "held");
    }
    until("the page to say so", || {
        text(&server.ask(&Request::get("/sales/drop"))).contains("Nothing is free at the moment")
    });
}

#[test]
fn a_sales_own_words_reach_its_page_and_nothing_in_them_becomes_markup() {
    let server = Server::start();
    let mut definition = open_sale("drop", 3);
    definition.title = "</script><script>alert(1)</script> & \"more\"".to_owned();
    definition.items[0].title = "<b onclick=x>boot</b>".to_owned();
    server.create(&definition);
    let showcase =
        serde_json::json!({ "button": { "en": "Mine, <now>" }, "descriptions": { "boot": "\"><img src=x>" } });
    server.operate(Request::new("PUT", "/admin/v1/sales/drop/showcase").json(&showcase)).is(200, "");
    for path in ["/", "/sales/drop"] {
        let page = text(&server.ask(&Request::get(path)));
        for markup in ["<script>alert", "<b onclick", "<img src=x"] {
            assert!(!page.contains(markup), "{path} has {markup}");
        }
    }
    let page = text(&server.ask(&Request::get("/sales/drop")));
    assert!(page.contains("Mine, &#60;now&#62;"), "{page}");
    let words = server.ask(&Request::get("/button/words?sale=drop&lang=en"));
    assert_eq!(words.json()["words"]["button"], "Mine, <now>");
    assert_eq!(words.header("access-control-allow-origin"), Some("*"));
}

#[test]
fn the_configuration_of_pages_is_checked_before_anything_is_served() {
    let server = Server::start();
    let table = [
        ("pages.button_colour=blue", "pages.button_colour: write #rrggbb"),
        ("pages.language=tlh", "there are no words for \"tlh\""),
        ("pages.logo=/nowhere/logo.png", "/nowhere/logo.png"),
        ("pages.words_folder=/nowhere", "pages.words_folder: /nowhere"),
        ("pages.sign_in_url=javascript:alert(1)", "pages.sign_in_url: write an address that begins with https://"),
        ("pages.checkout_url=http://shop.example/pay", "pages.checkout_url: write an address"),
    ];
    for (setting, message) in table {
        let ended = server.refused(&["pages.shop_name=Shop", setting]);
        assert!(ended.error.contains(message), "{setting}: {}", ended.error);
    }
    // A command that shows no page does not need what pages are made of; preflight tries it.
    let data = server.data().to_str().unwrap();
    let listed = doorbuster(&["sale", "list", "--data", data, "--set", "pages.language=tlh"]);
    assert_eq!(listed.code, Some(0), "{}", listed.error);
    let tried = doorbuster(&["preflight", "--data", data, "--set", "pages.language=tlh"]);
    assert!(tried.out.contains("there are no words for \"tlh\""), "{}", tried.out);
}

/// Whoever looks with a browser gets a page that leads on, also from an address that something has been added to.
#[test]
fn a_browser_that_is_lost_finds_a_page_and_a_program_finds_a_refusal() {
    let server = Server::start();
    server.create(&open_sale("drop", 10));
    let browser = |path: &str| {
        let request = Request::get(path).header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        server.ask(&request)
    };
    for path in ["/nope", "/sales/", "/sales/nope", "/favicon.ico", "/nope?lang=de&lang=en"] {
        let page = browser(path);
        assert_eq!((page.status, page.header("content-type")), (404, Some("text/html; charset=utf-8")), "{path}");
        assert!(text(&page).contains("href=\"/"), "{path}: it leads to the sales: {}", text(&page));
        assert!(page.header("content-security-policy").is_some());
    }
    for path in ["/v1/nope", "/v1/sales/nope"] {
        browser(path).is(404, "not_found");
    }
    server.ask(&Request::get("/nope")).is(404, "not_found");
    server.operate(Request::get("/nope").header("accept", "text/html")).is(404, "not_found");
    let first = browser("/sales/drop?lang=de&lang=en&x=%ff&x=1");
    assert_eq!(first.status, 200);
    assert!(text(&first).contains("<html lang=\"de\""), "of two languages the first counts: {}", text(&first));
}
