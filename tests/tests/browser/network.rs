//! A network that dies under the page's hands. One press stays one purchase, and the customer hears the truth in the end.

use system_tests::browser::Stage;
use system_tests::open_sale;

use crate::browser;
use crate::shop::{PAY, PRESS, Shop, until_open, until_state};

/// Whatever the pages ask for on the way to a paid order.
const STEPS: [&str; 7] =
    ["/v1/time", "/v1/session", "/mine", "/passes", "/purchases", "/stream-tickets", "/v1/sales/drop"];

#[test]
fn one_press_is_one_purchase_whichever_request_or_answer_is_lost() {
    let shop = Shop::open(&open_sale("drop", 100));
    let mut bought = 0;
    for step in STEPS {
        for stage in [Stage::Request, Stage::Response] {
            let context = browser().context();
            let page = context.page();
            // A session is needed before anything can be lost after it; what is lost of it is tried by itself below.
            page.open(&shop.entrance(&format!("{step} {stage:?}")));
            until_open(&page);
            page.until(
                "the session",
                "performance.getEntriesByType('resource').some(({name}) => name.endsWith('/mine'))",
            );
            page.fail_next(step, 2, stage);
            page.reload();
            until_open(&page);
            page.click(PRESS);
            until_state(&page, "yours");
            bought += 1;
            assert_eq!(shop.taken(), [bought, 0], "{step} lost at {stage:?}");
        }
    }
}

#[test]
fn a_hand_over_whose_answer_is_lost_is_made_again() {
    let shop = Shop::open(&open_sale("drop", 5));
    for (stage, number) in [(Stage::Request, 1), (Stage::Response, 2)] {
        let context = browser().context();
        let page = context.page();
        page.fail_next("/v1/session", 1, stage);
        page.open(&shop.entrance(&format!("{stage:?}")));
        until_open(&page);
        page.click(PRESS);
        until_state(&page, "yours");
        assert_eq!(shop.taken(), [number, 0]);
    }
}

#[test]
fn whoever_presses_without_a_network_buys_when_it_is_back() {
    let shop = Shop::open(&open_sale("drop", 5));
    let (_context, page) = shop.visit("anna");
    until_open(&page);
    page.until("the pass", "performance.getEntriesByType('resource').some(({name}) => name.endsWith('/mine'))");
    page.offline(true);
    until_state(&page, "offline");
    page.click(PRESS);
    page.until(
        "the truth about the press",
        "document.querySelector('[data-do=press]').disabled && document.querySelector('[data-show=state]').innerText.startsWith('No connection.')",
    );
    assert_eq!(shop.taken(), [0, 0]);
    page.offline(false);
    until_state(&page, "yours");
    assert_eq!(shop.taken(), [1, 0]);
}

#[test]
fn a_tab_that_is_killed_before_it_hears_goes_on_with_the_same_key() {
    let shop = Shop::open(&open_sale("drop", 5));
    let (context, page) = shop.visit("anna");
    until_open(&page);
    page.fail_next("/purchases", 50, Stage::Response);
    page.click(PRESS);
    until_state(&page, "offline");
    assert_eq!(shop.taken(), [1, 0], "the server has decided, the customer has not heard");
    let beside = context.page();
    beside.open(&shop.url("/sales/drop"));
    until_state(&beside, "deciding");
    page.close();
    until_state(&beside, "yours");
    let later = context.page();
    later.open(&shop.url("/sales/drop"));
    until_state(&later, "yours");
    assert_eq!(shop.taken(), [1, 0]);
}

#[test]
fn a_server_that_is_killed_and_comes_back_has_the_same_purchase() {
    let mut shop = Shop::open(&open_sale("drop", 5));
    let (_context, page) = shop.visit("anna");
    until_open(&page);
    page.fail_next("/purchases", 1, Stage::Response);
    page.click(PRESS);
    until_state(&page, "offline");
    shop.server.kill();
    shop.server.start_again();
    until_state(&page, "yours");
    assert_eq!(shop.taken(), [1, 0]);
}

#[test]
fn paying_and_giving_back_can_be_pressed_again_after_a_loss() {
    let shop = Shop::open(&open_sale("drop", 5));
    let (_context, page) = shop.visit("anna");
    until_open(&page);
    page.click(PRESS);
    until_state(&page, "yours");
    for stage in [Stage::Request, Stage::Response] {
        page.fail_next("/payments", 1, stage);
        page.click(PAY);
        page.until(
            "a problem that is told",
            "document.querySelector('[data-show=problem]').innerText.startsWith('Paying did not work')",
        );
    }
    page.click(PAY);
    page.until("the sandbox", "location.pathname.startsWith('/sandbox/')");
    page.back();
    until_state(&page, "yours");
    page.fail_next("/cancel", 1, Stage::Response);
    page.click("[data-do=give-back]");
    page.click("[data-do=sure]");
    // The stream tells what the answer could not.
    until_state(&page, "ended");
    assert_eq!(shop.taken(), [0, 0]);
}
