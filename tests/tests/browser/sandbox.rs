//! The sandbox's payment page, as people use it.

use system_tests::paying::{pay, sandbox_settings};
use system_tests::{Server, open_sale, until};

use crate::browser;

#[test]
fn a_payment_is_made_by_keyboard_alone() {
    let server = Server::start_with(&sandbox_settings().each_ref().map(String::as_str));
    server.create(&open_sale("drop", 3));
    let anna = server.customer("anna", "drop");
    let order = anna.buy("boot", "key").is(201, "held").text("order");
    let begun = pay(&anna, &order).is(201, "");
    let context = browser().context();
    let page = context.page();
    let url = begun.text("pay_url");
    page.open(&url);
    assert_eq!(page.text("h1"), "49.00 EUR");
    assert_eq!(page.axe(), Vec::<String>::new());
    page.press("Tab");
    assert_eq!(page.focused(), "button \"Pay\"");
    page.press("Enter");
    page.until("the way back to the shop", &format!("location.href != {url:?}"));
    until("the payment", || anna.order(&order).code() == "confirmed");
    page.open(&url);
    assert_eq!(page.text("[role=status]"), "Paid.");
    assert_eq!(page.axe(), Vec::<String>::new());
}
