//! Customers buy on the pages: hand-over, press, pay, give back, and every state that they can see on the way.

use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use domain::ChainTime;
use serde_json::json;
use system_tests::browser::Page;
use system_tests::{ISSUER, Request, item, open_sale, sale_of, until};

use crate::shop::{PAY, PRESS, Shop, until_open, until_state};

/// Milliseconds since the Unix epoch.
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

#[test]
fn a_customer_comes_from_the_shop_buys_pays_and_sees_it() {
    let shop = Shop::open(&open_sale("drop", 3));
    let (context, page) = shop.visit("anna");
    until_open(&page);
    page.until("the token to have left the address", "location.hash === ''");
    page.until("the cookie", "document.cookie === ''");
    until("the session", || page.cookies().len() == 1);
    let cookie = &page.cookies()[0];
    assert_eq!(cookie["name"], "__Host-doorbuster");
    assert_eq!(
        (&cookie["httpOnly"], &cookie["secure"], &cookie["sameSite"]),
        (&true.into(), &true.into(), &"Strict".into())
    );

    page.click(PRESS);
    until_state(&page, "yours");
    assert!(page.text("[data-show=state]").starts_with("Yours until"), "{}", page.text("[data-show=state]"));
    page.until(
        "a clock below ten minutes",
        "/^09:[0-5][0-9]$/.test(document.querySelector('[data-show=clock]').innerText)",
    );
    assert_eq!(shop.taken(), [1, 0]);
    page.click(PAY);
    page.until("the sandbox", "location.pathname.startsWith('/sandbox/')");
    page.click("button.main");
    page.until("the order's page", "location.pathname.startsWith('/orders/or_')");
    until_state(&page, "paid");
    assert_eq!(page.text("[data-show=item]"), "The boot of the tests");
    assert_eq!(page.text("[data-show=price]"), "€49.00");
    page.until("the receipt", "document.querySelector('[data-show=receipt]').href.startsWith('blob:')");
    assert_eq!(shop.taken(), [0, 1]);

    let second = context.page();
    second.open(&shop.url("/mine"));
    second.until("the order in the list", "document.querySelectorAll('[data-orders] li').length === 1");
    second.click("[data-orders] a");
    until_state(&second, "paid");
    second.click("#sign-out");
    second
        .until("nobody's order", "document.querySelector('[data-show=state]').innerText === 'Please sign in to buy.'");
    assert_eq!(second.cookies().len(), 0);
}

#[test]
fn what_is_given_back_can_be_bought_again() {
    let shop = Shop::open(&open_sale("drop", 3));
    let (_context, page) = shop.visit("anna");
    for round in 0..2 {
        until_open(&page);
        page.click(PRESS);
        until_state(&page, "yours");
        page.click("[data-do=give-back]");
        // The finger that pressed does not press yes.
        assert_eq!(page.focused(), "button \"Keep it\"");
        if round == 0 {
            page.click("[data-do=keep]");
            page.until("no question any more", "document.querySelector('[data-show=sure]').hidden");
            assert_eq!(shop.taken(), [1, 0]);
            page.click("[data-do=give-back]");
        }
        page.click("[data-do=sure]");
        until_state(&page, "ended");
        assert_eq!(page.text("[data-show=state]"), "You have given it back.");
        assert_eq!(shop.taken(), [0, 0]);
    }
}

/// A name, and what it does to a page whose button can be pressed.
type Way = (&'static str, fn(&Page));

#[test]
fn one_press_is_one_purchase_however_it_is_pressed() {
    let shop = Shop::open(&open_sale("drop", 50));
    let ways: [Way; 5] = [
        ("click", |page| page.click(PRESS)),
        ("double click", |page| page.double_click(PRESS)),
        ("finger twice", |page| {
            page.tap(PRESS);
            page.eval("document.querySelector('[data-do=press]').click()");
        }),
        ("keyboard", |page| {
            page.eval("document.querySelector('[data-do=press]').focus()");
            page.press("Enter");
            page.press("Space");
        }),
        ("reload", |page| {
            page.until(
                "the session",
                "performance.getEntriesByType('resource').some(({name}) => name.endsWith('/mine'))",
            );
            page.click(PRESS);
            page.reload();
        }),
    ];
    for (number, (way, press)) in (1..).zip(ways) {
        let (_context, page) = shop.visit(way);
        until_open(&page);
        press(&page);
        until_state(&page, "yours");
        assert_eq!(shop.taken(), [number, 0], "{way}");
    }
}

#[test]
fn two_tabs_a_back_button_and_a_killed_tab_are_one_customer() {
    let shop = Shop::open(&open_sale("drop", 50));
    let (context, first) = shop.visit("anna");
    until_open(&first);
    let second = context.page();
    second.open(&shop.url("/sales/drop"));
    until_open(&second);
    // At the same time, as far as a person can: both pages hear of it in one go.
    first.eval("document.querySelector('[data-do=press]').click()");
    second.eval("document.querySelector('[data-do=press]').click()");
    until_state(&first, "yours");
    until_state(&second, "yours");
    assert_eq!(shop.taken(), [1, 0]);

    first.click(PAY);
    first.until("the sandbox", "location.pathname.startsWith('/sandbox/')");
    first.back();
    until_state(&first, "yours");
    assert_eq!(shop.taken(), [1, 0]);

    second.crash();
    second.reload();
    until_state(&second, "yours");
    // Another device, where nothing is known of the first.
    let (_other, third) = shop.visit("anna");
    until_state(&third, "yours");
    assert_eq!(shop.taken(), [1, 0]);
    // The shop hears that it was paid, and so does every page.
    let order = third.eval("document.querySelector('[data-show=order]').href.match(/or_[^?]+/)[0]");
    shop.server.confirm(order.as_str().unwrap()).is(200, "confirmed");
    for page in [&first, &second, &third] {
        until_state(page, "paid");
    }
}

#[test]
fn every_state_of_the_sale_is_told_as_it_is() {
    let mut definition = open_sale("drop", 1);
    definition.items[0].limit_per_customer = 1;
    let shop = Shop::open(&definition);
    let (_anna, anna) = shop.visit("anna");
    let (_ben, ben) = shop.visit("ben");
    until_open(&anna);
    until_open(&ben);
    shop.server.turn("drop", "pause");
    until_state(&ben, "paused");
    shop.server.turn("drop", "resume");
    until_open(&ben);
    until_open(&anna);
    anna.click(PRESS);
    until_state(&anna, "yours");
    // Whether it is pressed or looked at: nothing is free, and something may come back.
    until_state(&ben, "may_return");
    assert!(ben.text("[data-show=state]").contains("may come back"));
    ben.until("a button that does nothing", "document.querySelector('[data-do=press]').disabled");
    anna.click("[data-do=give-back]");
    anna.click("[data-do=sure]");
    until_open(&ben);
    ben.click(PRESS);
    until_state(&ben, "yours");
    ben.click(PAY);
    ben.until("the sandbox", "location.pathname.startsWith('/sandbox/')");
    ben.click("button.main");
    until_state(&ben, "paid");
    ben.open(&shop.url("/sales/drop"));
    until_state(&ben, "paid");
    // Who gave it back still reads so; for everybody else it is gone.
    until_state(&anna, "ended");
    let (_carl, carl) = shop.visit("carl");
    until_state(&carl, "gone");
    shop.server.turn("drop", "close");
    until_state(&carl, "closed");
}

#[test]
fn a_customer_with_as_many_as_allowed_is_told_so_and_others_are_not_kept_waiting() {
    let mut definition = sale_of("drop", vec![item("boot", 5), item("hat", 5)]);
    definition.limit_per_customer = 1;
    let shop = Shop::open(&definition);
    let (_context, page) = shop.visit("anna");
    until_open(&page);
    page.click("[data-item=hat] [data-do=press]");
    page.until("the hat", "document.querySelector('[data-item=hat]').dataset.state === 'yours'");
    until_state(&page, "limit");
}

#[test]
fn the_button_opens_on_the_servers_second_and_waits_for_the_customers_slot() {
    for hours in [-1, 0, 1] {
        let mut definition = open_sale("drop", 5);
        definition.opens_at = ChainTime(now() + 6_000);
        definition.spread_milliseconds = 3_000;
        let opening = Instant::now() + Duration::from_secs(6);
        let shop = Shop::open(&definition);
        let context = crate::browser().context();
        let page = context.page();
        page.shift_clock(hours);
        page.open(&shop.entrance("anna"));
        until_state(&page, "not_yet");
        page.until("a clock", "/^00:0[0-6]$/.test(document.querySelector('[data-show=clock]').innerText)");
        page.until("the pass", "performance.getEntriesByType('resource').some(({name}) => name.endsWith('/mine'))");
        assert!(page.eval("document.querySelector('[data-do=press]').disabled").as_bool().unwrap());
        until_open(&page);
        let late = Instant::now().saturating_duration_since(opening);
        assert!(Instant::now() >= opening, "the button opened early, with the clock moved by {hours} h");
        assert!(
            late < Duration::from_millis(1_500),
            "the button opened {late:?} late, with the clock moved by {hours} h"
        );
        page.click(PRESS);
        until_state(&page, "yours");
        assert_eq!((shop.refused("before_slot"), shop.refused("not_open")), (0, 0), "the page never asks early");
    }
}

#[test]
fn who_wants_more_than_is_left_is_told_and_buys_what_is_left() {
    let shop = Shop::open(&open_sale("drop", 2));
    let (_context, page) = shop.visit("anna");
    until_open(&page);
    shop.server.customer("ben", "drop").buy("boot", "key").is(201, "held");
    page.eval("document.querySelector('[data-item=boot] select').value = '2'");
    page.click(PRESS);
    until_state(&page, "fewer");
    page.eval("document.querySelector('[data-item=boot] select').value = '1'");
    page.click(PRESS);
    until_state(&page, "yours");
    assert_eq!(shop.taken(), [2, 0]);
}

#[test]
fn whoever_is_handed_over_is_who_buys_and_a_bad_token_is_nobody() {
    let shop = Shop::open(&open_sale("drop", 5));
    let (context, page) = shop.visit("anna");
    until_open(&page);
    page.until("the session", "performance.getEntriesByType('resource').some(({name}) => name.endsWith('/mine'))");
    // To a page that is open already, another customer, and then one whose token is not believed.
    page.open(&shop.entrance("ben"));
    page.until("the token to have left the address", "location.hash === ''");
    page.until("the session", "performance.getEntriesByType('resource').some(({name}) => name.endsWith('/mine'))");
    until_open(&page);
    page.click(PRESS);
    until_state(&page, "yours");
    let beside = context.page();
    beside.open(&shop.url("/sales/drop#token=not-a-token"));
    until_state(&beside, "signed_out");
    assert_eq!(beside.cookies().len(), 0);
    // The tab beside it no longer shows what is somebody else's.
    until_state(&page, "signed_out");
    let ben = shop.server.customer("ben", "drop");
    let mine = ben.asks(system_tests::Request::get("/v1/sales/drop/mine")).json();
    assert_eq!(mine["purchases"].as_array().unwrap().len(), 1, "ben has bought, and nobody else");
    assert_eq!(shop.taken(), [1, 0]);
}

#[test]
fn a_page_that_gets_no_pass_comes_again_when_it_was_told_to() {
    let shop = Shop::open_with(&open_sale("drop", 3), &["overload.passes_per_second_max=1"]);
    let asked = |status: u16| {
        format!(
            "performance.getEntriesByType('resource').some(({{ name, responseStatus }}) => \
             name.endsWith('/passes') && responseStatus === {status})"
        )
    };
    let (_context, page) = std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
        let mut stranger = shop.server.stranger("ben", "drop");
        // Somebody is quicker each time, until the page has been refused.
        scope.spawn(move || {
            while stopped.try_recv() != Err(TryRecvError::Disconnected) {
                stranger.take_pass();
            }
        });
        let (context, page) = shop.visit("anna");
        page.until("a refusal", &asked(503));
        drop(stop);
        (context, page)
    });
    // Nobody presses meanwhile.
    page.until("a pass", &asked(201));
    page.click(PRESS);
    until_state(&page, "yours");
}

#[test]
fn whoever_is_blocked_is_told_so_until_it_is_over() {
    let shop = Shop::open(&open_sale("drop", 3));
    let (_context, page) = shop.visit("anna");
    until_open(&page);
    let block = |subject: &str, seconds: Option<u64>| {
        let block = json!({ "issuer": ISSUER, "subject": subject, "reason": "resells", "expires_in_seconds": seconds });
        shop.server.operate(Request::post("/admin/v1/blocks").json(&block)).is(201, "");
    };
    block("anna", Some(5));
    page.click(PRESS);
    until_state(&page, "blocked");
    assert_eq!(page.text("[data-show=state]"), "You are blocked here. What is yours stays yours.");
    page.until("a clock", "/^00:0[0-5]$/.test(document.querySelector('[data-show=clock]').innerText)");
    assert_eq!(shop.taken(), [0, 0]);
    until_open(&page);
    page.click(PRESS);
    until_state(&page, "yours");
    // Who comes blocked hears it before they press, and what they have is what they see.
    block("ben", None);
    let (_context, page) = shop.visit("ben");
    until_state(&page, "blocked");
    assert_eq!(page.eval("document.querySelector('[data-show=clock]').hidden"), true, "nobody knows until when");
    block("anna", None);
    let (_context, page) = shop.visit("anna");
    until_state(&page, "yours");
}
