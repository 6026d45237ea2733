//! The pages in front of a cluster: two tabs at two gates, and one customer in both.

use system_tests::browser::Browser;
use system_tests::cluster::Cluster;
use system_tests::{open_sale, token_of, until};

/// A cookie belongs to a host, whatever its port: so both gates stand for one shop here, as they do behind an edge.
#[test]
fn a_customer_buys_at_one_gate_and_sees_it_at_the_other() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("pages", 3));
    let ((one, notes), (other, _)) = (cluster.gate("gate-1"), cluster.gate("gate-2"));
    let browser = Browser::start();
    let context = browser.context();
    let (first, second) = (context.page(), context.page());
    let url = |address, path: &str| format!("http://{address}{path}");
    first.open(&url(one.public(), &format!("/sales/pages#token={}", token_of("anna"))));
    first.until("the button", "!document.querySelector('[data-do=press]').disabled");
    first.click("[data-do=press]");
    let state = |state: &str| format!("document.querySelector('[data-state]').dataset.state === '{state}'");
    first.until("the purchase", &state("yours"));
    second.open(&url(other.public(), "/sales/pages"));
    second.eval("localStorage.setItem('doorbuster:who', '\"anna\"')");
    second.reload();
    second.until("the purchase at the other gate", &state("yours"));
    let order = first.eval("document.querySelector('[data-show=order]').href.match(/or_[^?]+/)[0]");
    let order = order.as_str().unwrap().to_owned();
    until("the confirmation", || other.try_confirm(&order).is_ok_and(|reply| reply.status == 200));
    for page in [&first, &second] {
        page.until("that it is paid", &state("paid"));
        assert_eq!(page.violations(), Vec::<String>::new());
    }
    drop((first, second));
    one.flush_notes();
    cluster.judge("pages", &[&notes]);
}
