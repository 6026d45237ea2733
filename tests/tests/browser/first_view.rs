//! What the first view costs on the wire, and what a page is without its script.

use system_tests::browser::{Exchange, Page};
use system_tests::{Request, item, sale_of, until};

use crate::browser;
use crate::shop::{Shop, until_open};

/// Bytes of the first view with all headers of the answers, and requests, until the button can be pressed.
const BYTES_MAX: u64 = 14 * 1024;
const REQUESTS_MAX: usize = 3;
/// Bytes of a picture on a telephone 360 pixels wide.
const PICTURE_BYTES_MAX: u64 = 40 * 1024;
const PICTURE: &[u8] = include_bytes!("../../../crates/doorbuster/src/demo/boot.jpg");

/// Notes which requests have been made when the button can be pressed: those of scripts, which are asked for, and those of the document.
const WATCH: &str = "
    window.asked = 0;
    const original = window.fetch;
    window.fetch = (...parts) => { window.asked += 1; return original(...parts); };
    addEventListener('DOMContentLoaded', () => {
        const button = document.querySelector('[data-do=press]');
        const look = () => {
            if (!button.disabled && window.usable === undefined) window.usable = window.asked;
        };
        new MutationObserver(look).observe(button, { attributes: true });
        look();
    });
";

fn first_view(page: &Page) -> (u64, usize, Vec<Exchange>) {
    until_open(page);
    let asked = page.eval("window.usable").as_u64().unwrap() as usize;
    until("the files", || {
        page.requests().iter().filter(|exchange| is_file(exchange)).all(|exchange| exchange.wire_bytes > 0)
    });
    let files: Vec<_> = page.requests().into_iter().filter(is_file).collect();
    (files.iter().map(|exchange| exchange.wire_bytes).sum(), files.len() + asked, files)
}

fn is_file(exchange: &Exchange) -> bool {
    ["Document", "Stylesheet", "Script"].contains(&exchange.kind.as_str())
}

#[test]
fn the_first_view_is_light_and_the_button_works_after_three_requests() {
    let definition = sale_of("drop", vec![item("boot", 30), item("hat", 30)]);
    let guests = ["identity.dangerous_guest_tokens=true", "pages.button_colour=#ffe600", "pages.bar_colour=#7a0019"];
    let shop = Shop::open_with(&definition, &guests);
    for name in ["boot", "hat"] {
        let path = format!("/admin/v1/sales/drop/items/{name}/picture");
        shop.server.operate(Request::new("PUT", &path).body(PICTURE)).is(200, "");
    }
    for language in ["en", "de", "zh", "ar"] {
        for entrance in [shop.entrance("anna"), shop.url("/sales/drop")] {
            let page = browser().context().page();
            page.language(language);
            page.size(360, 640, 2.0, true);
            page.before_scripts(WATCH);
            page.open(&entrance);
            let (bytes, requests, files) = first_view(&page);
            assert!(bytes <= BYTES_MAX, "{bytes} bytes in {language}: {files:?}");
            assert!(requests <= REQUESTS_MAX, "{requests} requests in {language}: {files:?}");
            eprintln!("first view in {language}: {bytes} bytes, {requests} requests");
        }
    }
}

#[test]
fn a_telephone_loads_small_pictures_when_they_come_into_sight() {
    let items = (0..12).map(|number| item(&format!("boot-{number}"), 3)).collect();
    let shop = Shop::open(&sale_of("drop", items));
    for number in 0..12 {
        let path = format!("/admin/v1/sales/drop/items/boot-{number}/picture");
        shop.server.operate(Request::new("PUT", &path).body(PICTURE)).is(200, "");
    }
    for scale in [1.0, 2.0, 3.0] {
        let page = browser().context().page();
        page.size(360, 640, scale, true);
        page.open(&shop.url("/sales/drop"));
        let pictures =
            || page.requests().into_iter().filter(|asked| asked.url.contains("/pictures/")).collect::<Vec<_>>();
        until("a picture", || pictures().first().is_some_and(|picture| picture.wire_bytes > 0));
        for picture in pictures() {
            assert!(picture.wire_bytes <= PICTURE_BYTES_MAX, "{picture:?} at {scale}");
            assert!(picture.url.ends_with(".webp"), "{picture:?}");
        }
        let lazy = page.eval("[...document.images].filter((image) => !image.complete).length");
        assert!(lazy.as_u64() > Some(0), "all twelve pictures were loaded at once");
    }
}

#[test]
fn a_page_comes_back_from_memory_and_asks_anew() {
    let shop = Shop::open(&sale_of("drop", vec![item("boot", 1)]));
    let (_context, page) = shop.visit("anna");
    until_open(&page);
    page.open(&shop.url("/"));
    let ben = shop.server.customer("ben", "drop");
    ben.buy("boot", "key").is(201, "held");
    page.back();
    crate::shop::until_state(&page, "may_return");
}
