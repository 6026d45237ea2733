//! Single promises of a cluster, each with one person at a time.

use system_tests::cluster::Cluster;
use system_tests::open_sale;

#[test]
fn winner_retry_on_other_gate_is_held() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("other-gate", 1));
    let ((one, notes), (other, _)) = (cluster.gate("gate-1"), cluster.gate("gate-2"));
    let anna = one.customer("anna", "other-gate");
    let won = anna.buy("boot", "key").is(201, "held");
    let retried = other.customer("anna", "other-gate").buy("boot", "key").is(200, "held");
    assert_eq!((retried.text("purchase"), retried.text("status")), (won.text("purchase"), "held".to_owned()));
    assert_eq!(retried.json()["receipt"], won.json()["receipt"]);
    other.customer("ben", "other-gate").buy("boot", "key").is(409, "sold_out");
    anna.cancel(&won.text("order")).is(200, "released");
    one.flush_notes();
    cluster.judge("other-gate", &[&notes]);
}
