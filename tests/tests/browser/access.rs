//! The pages for everybody: by keyboard, by ear, in large letters, without movement, in the dark, from right to left.

use domain::ChainTime;
use system_tests::browser::Page;
use system_tests::{item, open_sale, sale_of};

use crate::browser;
use crate::shop::{PRESS, Shop, until_open, until_state};

#[test]
fn a_purchase_is_made_by_keyboard_alone() {
    let shop = Shop::open(&open_sale("drop", 3));
    let (_context, page) = shop.visit("anna");
    until_open(&page);
    page.press("Tab");
    assert_eq!(page.focused(), "a \"Skip to the content\"");
    page.press("Enter");
    let mut steps = 0;
    while page.focused() != "button \"Reserve\"" {
        page.press("Tab");
        steps += 1;
        assert!(steps < 5, "the button is {steps} steps away, at {}", page.focused());
    }
    page.press("Enter");
    until_state(&page, "yours");
    page.until("the focus on what comes next", "document.activeElement.dataset.do === 'pay'");
    page.press("Enter");
    page.until("the sandbox", "location.pathname.startsWith('/sandbox/')");
    page.press("Tab");
    page.press("Enter");
    until_state(&page, "paid");
}

/// The pages of a sale in several states, with a customer's own on it.
fn each_page(shop: &Shop, customer: &str, page: &Page, look: impl Fn(&Page, &str)) {
    page.open(&shop.entrance(customer));
    page.until("any state", "document.querySelector('[data-state]') !== null");
    look(page, "the sale");
    until_open(page);
    page.click(PRESS);
    until_state(page, "yours");
    look(page, "what is held");
    page.click("[data-do=give-back]");
    look(page, "whether it is given back");
    page.click("[data-do=keep]");
    page.click("[data-show=order]");
    page.until("the order's page", "location.pathname.startsWith('/orders/')");
    until_state(page, "yours");
    look(page, "the order");
    for path in ["/", "/mine", "/sales/none", "/docs", "/docs/errors", "/docs/errors/sold_out"] {
        page.open(&shop.url(path));
        look(page, path);
    }
}

#[test]
fn no_page_has_a_fault_that_axe_finds_in_either_scheme_and_direction() {
    let definition = sale_of("drop", vec![item("boot", 30), item("hat", 0)]);
    let yellow = ["pages.button_colour=#ffe600", "pages.bar_colour=#7a0019", "pages.shop_name=Nordlicht"];
    for (settings, languages) in [(&[][..], ["en", "ar"]), (&yellow[..], ["de", "zh"])] {
        let shop = Shop::open_with(&definition, settings);
        for language in languages {
            for scheme in ["light", "dark"] {
                let page = browser().context().page();
                page.language(language);
                page.scheme(scheme);
                page.reduced_motion();
                each_page(&shop, &format!("{language} {scheme}"), &page, |page, what| {
                    assert_eq!(page.axe(), Vec::<String>::new(), "{what}, {language}, {scheme}");
                    let shown = page.eval("document.documentElement.lang");
                    let is_reference = page.url().contains("/docs");
                    assert_eq!(shown, if is_reference { "en" } else { language }, "{what}");
                });
            }
        }
    }
}

/// The elements that reach beyond a screen 360 wide, but for those that only screen readers find.
const TOO_WIDE: &str = "[...document.querySelectorAll('body *')].filter((element) => {
        const { left, right, width } = element.getBoundingClientRect();
        return width > 1 && (left < 0 || right > 360);
    }).map((element) => element.outerHTML.slice(0, 80))";

#[test]
fn nothing_is_cut_off_on_a_narrow_screen_with_letters_of_twice_the_size() {
    let mut definition = sale_of("drop", vec![item("boot", 30)]);
    definition.title = "Donaudampfschifffahrtsgesellschaftskapitänsmützen und anderes".to_owned();
    let shop = Shop::open_with(&definition, &["pages.shop_name=Mützenmanufaktur am Donaukanal"]);
    for language in ["de", "ar"] {
        let page = browser().context().page();
        page.language(language);
        page.size(360, 640, 2.0, true);
        each_page(&shop, language, &page, |page, what| {
            // Tables of an interface may be wider; they move by themselves.
            if page.url().contains("/docs") {
                return;
            }
            page.eval("document.documentElement.style.fontSize = '200%'");
            let wide = page.eval(TOO_WIDE);
            assert_eq!(wide, serde_json::json!([]), "{what} in {language}");
            page.eval("document.documentElement.style.fontSize = ''");
        });
    }
}

#[test]
fn who_wants_no_movement_sees_none() {
    let mut definition = open_sale("drop", 5);
    definition.spread_milliseconds = 600_000;
    let shop = Shop::open(&definition);
    for reduced in [false, true] {
        let (_context, page) = {
            let context = browser().context();
            let page = context.page();
            if reduced {
                page.reduced_motion();
            }
            page.open(&shop.entrance("anna"));
            (context, page)
        };
        until_open(&page);
        page.click(PRESS);
        until_state(&page, "your_turn");
        let moves = page.eval("getComputedStyle(document.querySelector('[data-state]'), '::after').animationName");
        assert_eq!(moves, if reduced { "none" } else { "pass" });
    }
}

/// Collects what a screen reader is told at once, and lets the page's clock run twenty times as fast from a moment on.
const LISTEN: &str = "
    window.told = [];
    addEventListener('DOMContentLoaded', () => {
        const announcer = document.querySelector('#announcer');
        new MutationObserver(() => told.push(announcer.textContent)).observe(announcer, { childList: true, characterData: true, subtree: true });
    });
    const now = performance.now.bind(performance);
    let from = Infinity;
    performance.now = () => now() + Math.max(0, now() - from) * 19;
    window.hurry = () => { from = now(); };
";

#[test]
fn a_screen_reader_hears_the_last_minute_and_not_every_second() {
    let mut definition = open_sale("drop", 5);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    definition.opens_at = ChainTime(now + 95_000);
    let shop = Shop::open(&definition);
    let page = browser().context().page();
    page.before_scripts(LISTEN);
    page.open(&shop.url("/sales/drop"));
    until_state(&page, "not_yet");
    page.until(
        "the clock to be known",
        "performance.getEntriesByType('resource').filter(({name}) => name.endsWith('/v1/time')).length === 3",
    );
    page.eval("hurry()");
    page.until("the opening", "told.includes('The sale is open')");
    let told = page.eval("told");
    assert_eq!(
        told,
        serde_json::json!([
            "60 seconds until the sale opens",
            "30 seconds until the sale opens",
            "10 seconds until the sale opens",
            "The sale is open"
        ])
    );
    assert_eq!(page.eval("document.querySelector('[data-show=clock]').getAttribute('role')"), "timer");
}
