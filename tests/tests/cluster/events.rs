//! What a cluster tells the shop: the same at every worker, and nothing at a gate.

use serde_json::{Value, json};
use system_tests::cluster::Cluster;
use system_tests::{Reply, Request, eventually, open_sale};

fn ask(cluster: &Cluster, node: &str, path: &str) -> Reply {
    Request::get(path).bearer(&cluster.token()).send(cluster.node(node).admin)
}

fn page(cluster: &Cluster, node: &str, after: &str, limit: usize) -> Value {
    let page = ask(cluster, node, &format!("/admin/v1/feed?sale=feed&after={after}&limit={limit}"));
    assert_eq!(page.status, 200, "{}", String::from_utf8_lossy(&page.body));
    page.json()
}

#[test]
fn a_cursor_of_one_worker_is_good_at_the_other() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("feed", 9));
    let (gate, notes) = cluster.gate("gate-1");
    let anna = gate.customer("anna", "feed");
    let orders = ["a", "b", "c"].map(|key| anna.buy("boot", key).is(201, "held").text("order"));
    gate.confirm(&orders[0]).is(200, "confirmed");
    let all = ["worker-1", "worker-2"].map(|worker| {
        eventually("the books of a worker", || {
            let page = page(&cluster, worker, "", 100);
            let confirmed = page["events"].as_array()?.iter().any(|event| event["type"] == "confirmed");
            confirmed.then_some(page)
        })
    });
    assert_eq!(all[0]["events"], all[1]["events"], "both tell the same, under the same ids");
    let first = page(&cluster, "worker-1", "", 2);
    let rest = page(&cluster, "worker-2", first["next_cursor"].as_str().unwrap(), 100);
    let both: Vec<_> = [&first, &rest].iter().flat_map(|page| page["events"].as_array().unwrap().clone()).collect();
    assert_eq!(json!(both), all[0]["events"]);
    for path in ["/admin/v1/feed", "/admin/v1/webhooks"] {
        ask(&cluster, "gate-1", path).is(404, "not_found");
    }
    for order in &orders[1..] {
        anna.cancel(order).is(200, "released");
    }
    gate.flush_notes();
    cluster.judge("feed", &[&notes]);
}
