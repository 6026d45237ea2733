//! Every route once, with what every answer carries.

use system_tests::{Server, open_sale};

#[test]
fn a_purchase_is_held() {
    let server = Server::start();
    server.create(&open_sale("drop", 3));
    let anna = server.customer("anna", "drop");
    anna.buy("boot", "key").is(201, "held");
}
