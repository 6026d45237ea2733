//! Human checks on the pages: each kind by keyboard alone, for those who see, for those who hear, and for those who do neither.

use std::sync::LazyLock;

use domain::ChainTime;
use serde_json::json;
use system_tests::browser::Page;
use system_tests::human::Ear;
use system_tests::{Request, open_sale, token_of, until};

use crate::browser;
use crate::shop::{Shop, until_open, until_state};

static EAR: LazyLock<Ear> = LazyLock::new(Ear::new);

const QUICK: &[&str] = &["human_check.proof_rounds=50", "human_check.letters_floor_milliseconds=0"];

fn shop(check: &str) -> Shop {
    let shop = Shop::open_with(&open_sale("drop", 5), QUICK);
    choose(&shop, check);
    shop
}

fn choose(shop: &Shop, check: &str) {
    let request = Request::new("PUT", "/admin/v1/sales/drop/human-check").json(&json!({ "human_check": check }));
    shop.server.operate(request).is(200, "");
}

/// Goes on by the tabulator key until the focus is there.
#[track_caller]
fn tab_to(page: &Page, name: &str) {
    let mut seen = Vec::new();
    while page.focused() != name {
        page.press("Tab");
        seen.push(page.focused());
        assert!(seen.len() < 20, "{name} is not among {seen:?}");
    }
}

fn until_asked(page: &Page) {
    page.until(
        "a picture",
        "document.querySelector('#check img')?.naturalWidth > 0 && !check.querySelector('button').disabled",
    );
}

/// Presses what speaks the letters, and hears what the browser has loaded then.
fn listen(shop: &Shop, page: &Page) -> String {
    page.clear_requests();
    tab_to(page, "button \"Listen to them (English)\"");
    page.press("Enter");
    let sound = || {
        let asked = page.requests().into_iter().rev();
        asked.into_iter().find(|asked| asked.url.ends_with("/audio") || asked.url.ends_with(".wav"))
    };
    until("the sound", || sound().is_some_and(|sound| sound.status == 200 || sound.status == 206));
    let path = sound().unwrap().url.replace(&shop.url(""), "");
    let reply = Request::get(&path).bearer(&token_of("anna")).send(shop.server.public()).is(200, "");
    page.until("the focus on the field", "document.activeElement.id === 'check-letters'");
    EAR.listen(&reply.body)
}

/// Nothing that axe finds, nothing against the policy.
#[track_caller]
fn is_fine(page: &Page) {
    assert_eq!(page.axe(), Vec::<String>::new());
    assert_eq!(page.violations(), Vec::<String>::new());
}

#[track_caller]
fn buys(page: &Page) {
    until_open(page);
    tab_to(page, "button \"Reserve\"");
    page.press("Enter");
    until_state(page, "yours");
    assert_eq!(page.violations(), Vec::<String>::new());
}

#[test]
fn a_proof_of_work_is_done_by_the_device_and_nobody_notices() {
    let shop = shop("proof_of_work");
    let (_context, page) = shop.visit("anna");
    buys(&page);
    assert_eq!(page.eval("document.querySelector('#check')"), json!(null));
    assert_eq!(shop.refused("challenge_failed"), 0);
}

#[test]
fn letters_are_heard_and_typed_by_keyboard_alone() {
    let shop = shop("answer");
    let (_context, page) = shop.visit("anna");
    until_asked(&page);
    is_fine(&page);
    tab_to(&page, "input#check-letters \"Letters in the picture\"");
    page.write("wrong");
    page.press("Enter");
    page.until("what was wrong", "document.querySelector('#check-problem').textContent.includes('not right')");
    until_asked(&page);
    is_fine(&page);
    assert_eq!(page.eval("[document.activeElement.id, document.activeElement.value]"), json!(["check-letters", ""]));
    let letters = listen(&shop, &page);
    page.write(&letters.to_lowercase());
    page.press("Enter");
    page.until("the end of the check", "!document.querySelector('#check')");
    assert_eq!(page.focused(), "button \"Reserve\"", "whoever typed goes on there");
    buys(&page);
    assert_eq!((shop.refused("challenge_failed"), shop.taken()), (1, [1, 0]));
}

#[test]
fn a_static_picture_is_checked_by_the_page_before_anything_is_sent() {
    let shop = shop("static");
    let (_context, page) = shop.visit("anna");
    until_asked(&page);
    is_fine(&page);
    tab_to(&page, "input#check-letters \"Letters in the picture\"");
    page.clear_requests();
    page.write("CCCCC");
    page.press("Enter");
    page.until("what was wrong", "document.querySelector('#check-problem').textContent.includes('not right')");
    assert!(page.requests().iter().all(|asked| !asked.url.ends_with("/passes")), "nothing was sent");
    let letters = listen(&shop, &page);
    page.eval("document.querySelector('#check-letters').value = '', 0");
    page.write(&letters);
    page.press("Enter");
    page.until("the end of the check", "!document.querySelector('#check')");
    buys(&page);
    assert_eq!(shop.refused("challenge_failed"), 0);
}

#[test]
fn whoever_neither_sees_nor_hears_lets_the_device_do_it() {
    let shop = shop("answer");
    let (_context, page) = shop.visit("anna");
    until_asked(&page);
    tab_to(&page, "button \"Another picture\"");
    let before = page.eval("document.querySelector('#check img').src");
    page.press("Enter");
    page.until("another picture", &format!("document.querySelector('#check img').src !== {before}"));
    until_asked(&page);
    tab_to(&page, "button \"Let my device do it instead\"");
    page.press("Enter");
    page.until("the end of the check", "!document.querySelector('#check')");
    buys(&page);
}

#[test]
fn the_check_comes_before_the_opening_and_a_press_leads_to_it() {
    let mut definition = open_sale("drop", 5);
    definition.opens_at = ChainTime(definition.opens_at.0 + 3_600_000);
    definition.closes_at = ChainTime(definition.closes_at.0 + 3_600_000);
    let early = Shop::open_with(&definition, QUICK);
    choose(&early, "answer");
    let (_context, page) = early.visit("anna");
    until_asked(&page);
    until_state(&page, "not_yet");
    assert_eq!(page.eval("document.activeElement.id"), "", "it does not take the focus from whoever did not press");

    let shop = shop("none");
    let (_context, page) = shop.visit("anna");
    until_open(&page);
    until("the pass", || page.requests().iter().any(|asked| asked.url.ends_with("/mine") && asked.status == 200));
    // While the page is open the operator has chosen a check; the pass of the first visit is still good.
    choose(&shop, "answer");
    buys(&page);
    let (_context, page) = shop.visit("bert");
    until_asked(&page);
    tab_to(&page, "button \"Reserve\"");
    page.press("Enter");
    until_state(&page, "check_letters");
    assert_eq!(page.eval("document.activeElement.id"), "check-letters");
    is_fine(&page);
}

#[test]
fn the_check_is_without_a_fault_in_every_language_and_scheme_and_on_a_narrow_screen() {
    let shop = shop("answer");
    for (language, scheme) in [("en", "light"), ("de", "dark"), ("zh", "light"), ("ar", "dark")] {
        let page = browser().context().page();
        page.language(language);
        page.scheme(scheme);
        page.size(360, 640, 1.0, true);
        page.open(&shop.entrance(language));
        until_asked(&page);
        is_fine(&page);
        page.eval("document.documentElement.style.fontSize = '200%', 0");
        let wide = "[...document.querySelectorAll('#check, #check *')].filter((element) => {
            const { left, right } = element.getBoundingClientRect();
            return left < 0 || right > 360;
        }).map((element) => element.outerHTML.slice(0, 80))";
        assert_eq!(page.eval(wide), json!([]), "{language}");
    }
}
