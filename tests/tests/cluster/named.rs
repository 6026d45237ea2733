//! Single promises of a cluster, each with one person at a time.

use std::sync::Arc;

use rustix::process::Signal;
use serde_json::json;
use system_tests::cluster::{Cluster, master_of};
use system_tests::human::solve;
use system_tests::{
    Customer, ISSUER, Reach, Reply, Request, SMALL_PICTURE, eventually, now_milliseconds, open_sale, token_of, until,
};

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

/// The replica that is promoted knows nothing of a grant that was acknowledged: the chain does, and so does Redis before it decides.
#[test]
fn limit_survives_failover_with_new_key() {
    let mut cluster = Cluster::lock();
    let mut definition = open_sale("limit", 10);
    definition.limit_per_customer = 1;
    definition.items[0].limit_per_customer = 1;
    cluster.create(&definition);
    let (gate, notes) = cluster.gate("gate-1");
    let anna = gate.customer("anna", "limit");
    let master = master_of(&cluster, "limit");
    cluster.cut_replica_off(master);
    let won = anna.buy("boot", "key-1").is(201, "held");
    cluster.servers.redis.processes[master].kill().unwrap();
    let refused = eventually("an answer after the failover", || {
        let reply = anna.buy("boot", "key-2");
        // Until somebody decides again, nobody is told anything else.
        (!["paused", "interrupted", "pending"].contains(&reply.code().as_str())).then_some(reply)
    });
    refused.is(409, "limit_item_reached");
    let again = anna.buy("boot", "key-1").is(200, "held");
    assert_eq!(again.text("purchase"), won.text("purchase"));
    assert!(master_of(&cluster, "limit") != master, "a replica was promoted");
    anna.cancel(&won.text("order")).is(200, "released");
    gate.flush_notes();
    cluster.judge("limit", &[&notes]);
}

/// The confirmation was acknowledged and is lost in Redis, and the hold's deadline passes: the unit is sold all the same.
#[test]
fn confirm_lost_in_failover_never_resells() {
    let mut cluster = Cluster::lock();
    let mut definition = open_sale("confirm", 1);
    definition.hold_seconds = 4;
    cluster.create(&definition);
    let (gate, notes) = cluster.gate("gate-2");
    let (anna, ben) = (gate.customer("anna", "confirm"), gate.customer("ben", "confirm"));
    let won = anna.buy("boot", "key").is(201, "held");
    let order = won.text("order");
    let master = master_of(&cluster, "confirm");
    cluster.cut_replica_off(master);
    gate.confirm(&order).is(200, "confirmed");
    cluster.servers.redis.processes[master].kill().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(6);
    eventually("a time after the deadline", || (std::time::Instant::now() > deadline).then_some(()));
    let refused = eventually("an answer after the failover", || {
        let reply = ben.buy("boot", "key");
        (!["paused", "interrupted", "pending"].contains(&reply.code().as_str())).then_some(reply)
    });
    refused.is(409, "sold_out");
    anna.order(&order).is(200, "confirmed");
    gate.flush_notes();
    cluster.judge("confirm", &[&notes]);
}

/// A process that decided in Redis's place stands still for long, is replaced, and goes on as if nothing had been.
#[test]
fn zombie_owner_answers_nobody() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("zombie", 100));
    let (gate, notes) = cluster.gate("gate-1");
    let anna = gate.customer("anna", "zombie");
    anna.buy("boot", "before").is(201, "held");
    let owner = cluster.relay_of("zombie");
    gate.turn("zombie", "takeover").is(200, "");
    until("a takeover", || cluster.sale_at("gate-1", "zombie").is_some_and(|sale| sale["rung"] == "takeover"));
    let by_owner = anna.buy("boot", "by-owner").is(201, "held");
    cluster.signal_node(owner, Signal::STOP);
    // The other relay finds nobody at work, and Redis well.
    let by_other = eventually("somebody else who decides", || {
        let reply = anna.buy("boot", "while-it-stands-still");
        (reply.status == 201 || reply.status == 200).then_some(reply)
    });
    let epoch = |reply: &system_tests::Reply| reply.json()["receipt"]["head"]["epoch"].as_u64().unwrap();
    assert!(epoch(&by_other) > epoch(&by_owner), "it was replaced");
    cluster.signal_node(owner, Signal::CONT);
    until("the end of the replaced one", || cluster.log(owner).contains("does not decide in Redis's place"));
    let after = anna.buy("boot", "after").is(201, "held");
    assert!(epoch(&after) >= epoch(&by_other));
    anna.buy("boot", "by-owner").is(200, "held");
    gate.turn("zombie", "automatic").is(200, "");
    for purchase in
        anna.asks(system_tests::Request::get("/v1/sales/zombie/mine")).json()["purchases"].as_array().unwrap()
    {
        anna.cancel(purchase["order"].as_str().unwrap()).is(200, "released");
    }
    gate.flush_notes();
    cluster.judge("zombie", &[&notes]);
}

/// A relay is killed while it decides in Redis's place, and nobody buys afterwards: the next one notices all the same. Until then a process
/// that is new, which knows no older epoch than the chain's, still reads from the chain what is there.
#[test]
fn a_takeover_that_nobody_ended_is_noticed() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("unended", 5));
    let (gate, notes) = cluster.gate("gate-1");
    let anna = gate.customer("anna", "unended");
    let held = anna.buy("boot", "key").is(201, "held").text("order");
    let owner = cluster.relay_of("unended");
    gate.turn("unended", "takeover").is(200, "");
    until("a takeover", || cluster.sale_at("gate-1", "unended").is_some_and(|sale| sale["rung"] == "takeover"));
    cluster.kill_node(owner);
    gate.turn("unended", "automatic").is(200, "");
    let other = if owner == "relay-1" { "relay-2" } else { "relay-1" };
    let is_rebuilt = |line: &str| line.contains("rebuilt from the chain") && line.contains("unended");
    until("a rebuild by the other relay", || cluster.log(other).lines().any(is_rebuilt));
    cluster.start_node(owner);
    cluster.until_decided("unended");
    anna.cancel(&held).is(200, "released");
    gate.flush_notes();
    cluster.judge("unended", &[&notes]);
}

/// Redis has something else than its chain says, whoever did that: it is noticed, and the chain counts.
#[test]
fn redis_that_contradicts_the_chain_is_rebuilt() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("tampered", 2));
    let (gate, notes) = cluster.gate("gate-1");
    let anna = gate.customer("anna", "tampered");
    let orders = ["one", "two"].map(|key| anna.buy("boot", key).is(201, "held").text("order"));
    anna.buy("boot", "three").is(409, "sold_out");
    let redis = &cluster.servers.redis;
    let mut connection = redis.connect(redis.addresses[master_of(&cluster, "tampered")]).unwrap();
    let key = "doorbuster:{main/tampered}:items";
    let item: Vec<u8> = redis::cmd("HGET").arg(key).arg(0).query(&mut connection).unwrap();
    // Ten units more than there are: the fourth of the packed numbers is the total.
    let mut more = item.clone();
    more[24..32].copy_from_slice(&12_u64.to_le_bytes());
    redis::cmd("HSET").arg(key).arg(0).arg(&more).query::<u64>(&mut connection).unwrap();
    until("the item as the chain has it", || {
        let now: Vec<u8> = redis::cmd("HGET").arg(key).arg(0).query(&mut connection).unwrap_or_default();
        now == item
    });
    let said = ["relay-1", "relay-2"].map(|name| cluster.log(name));
    assert!(said.iter().any(|log| log.contains("INV-1")), "somebody says so");
    orders.iter().for_each(|order| drop(anna.cancel(order).is(200, "released")));
    gate.flush_notes();
    cluster.judge("tampered", &[&notes]);
}

/// A stream without room takes nothing, so nothing is promised; with room again everybody learns what became of them.
#[test]
fn stream_full_is_paused_never_taken() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("full", 10));
    let (gate, notes) = cluster.gate("gate-1");
    let (anna, ben) = (gate.customer("anna", "full"), gate.customer("ben", "full"));
    anna.buy("boot", "before").is(201, "held");
    let limit = StreamLimit::of(&cluster);
    limit.set(limit.bytes());
    let undecided =
        anna.attempt("boot", "without-room", 1).changed(|request| request.header("prefer", "wait=1")).send();
    assert_eq!(undecided.status, 202, "{}", undecided.code());
    eventually("a pause", || (ben.buy("boot", "stranger").code() == "paused").then_some(()));
    assert_eq!(gate.ask(&system_tests::Request::get("/v1/sales/full")).json()["paused"], true);
    let location = undecided.text("location");
    assert_eq!(anna.asks(system_tests::Request::get(&location)).status, 202, "still undecided");
    limit.set(-1);
    eventually("the end of the pause", || {
        (anna.asks(system_tests::Request::get(&location)).code() == "held").then_some(())
    });
    anna.buy("boot", "without-room").is(200, "held");
    let won = eventually("a purchase", || {
        let reply = ben.buy("boot", "stranger");
        (reply.status < 300).then_some(reply)
    });
    ben.cancel(&won.text("order")).is(200, "released");
    for purchase in anna.asks(system_tests::Request::get("/v1/sales/full/mine")).json()["purchases"].as_array().unwrap()
    {
        anna.cancel(purchase["order"].as_str().unwrap()).is(200, "released");
    }
    gate.flush_notes();
    cluster.judge("full", &[&notes]);
}

/// How many bytes the stream of all chains may have; no limit again when this is dropped.
struct StreamLimit {
    address: String,
    admin: (String, String),
}

impl StreamLimit {
    fn of(cluster: &Cluster) -> Self {
        let nats = &cluster.servers.nats;
        let admin = (nats.admin.user.clone(), nats.admin.password.clone());
        Self { address: nats.addresses[0].to_string(), admin }
    }

    /// How many it has.
    fn bytes(&self) -> i64 {
        self.with(None)
    }

    fn set(&self, bytes_max: i64) {
        self.with(Some(bytes_max));
    }

    fn with(&self, bytes_max: Option<i64>) -> i64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (user, password) = self.admin.clone();
            let login = async_nats::ConnectOptions::with_user_and_password(user, password);
            let context = async_nats::jetstream::new(login.connect(&self.address).await.unwrap());
            let mut stream = context.get_stream("doorbuster_main").await.unwrap();
            let info = stream.info().await.unwrap().clone();
            if let Some(max_bytes) = bytes_max {
                context
                    .update_stream(async_nats::jetstream::stream::Config { max_bytes, ..info.config })
                    .await
                    .unwrap();
            }
            info.state.bytes.cast_signed()
        })
    }
}

impl Drop for StreamLimit {
    fn drop(&mut self) {
        self.set(-1);
    }
}

/// Every process reads the admin tokens anew: one that is made at a gate serves everywhere, and one that is revoked nowhere.
#[test]
fn a_token_is_believed_and_refused_by_every_process() {
    let mut cluster = Cluster::lock();
    let ((one, _), (other, _)) = (cluster.gate("gate-1"), cluster.gate("gate-2"));
    let till = json!({ "label": "till", "role": "cashier" });
    let made = one.operate(Request::post("/admin/v1/tokens").json(&till)).is(201, "");
    let (token, id) = (made.text("token"), made.text("id"));
    let told = |gate: &Reach| Request::get("/admin/v1/sales").bearer(&token).send(gate.admin()).status;
    assert_eq!(told(&one), 200, "at once where it was made");
    until("the other gate believes it", || told(&other) == 200);
    let pause = Request::post("/admin/v1/sales/nothing/pause");
    pause.bearer(&token).send(other.admin()).is(403, "role_insufficient");
    other.operate(Request::new("DELETE", &format!("/admin/v1/tokens/{id}"))).is(200, "");
    assert_eq!(told(&other), 401, "at once where it was revoked");
    until("the first gate refuses it", || told(&one) == 401);
}

/// A pass is opened by every gate, whichever made it and however lately the key was changed.
#[test]
fn passes_from_before_and_after_a_rotation_buy_at_both_gates() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("rotated", 100));
    let gates = [cluster.gate("gate-1").0, cluster.gate("gate-2").0];
    let (mut passes, mut count) = (Vec::new(), 0);
    let mut take = |gate: &Arc<Reach>| {
        count += 1;
        gate.customer(&format!("rotated-{count}"), "rotated")
    };
    for gate in &gates {
        passes.extend([(); 2].map(|()| take(gate)));
    }
    let before = passes[0].pass.clone();
    let key = gates[0].operate(Request::post("/admin/v1/pass-keys/rotate")).is(200, "").json()["key"].clone();
    // One at each gate at once, while the other may not know the key.
    for (gate, other) in [(0, 1), (1, 0)] {
        let anna = take(&gates[gate]);
        bought_at(&gates[other], &anna).is(201, "held");
    }
    // Numbers stand in front, so that a pass shows which key made it.
    let number = |pass: &str| data_encoding::BASE64URL_NOPAD.decode(&pass.as_bytes()[3..7]).unwrap()[1];
    for gate in &gates {
        until("a pass of the new key", || {
            let anna = take(gate);
            let is_new = u64::from(number(&anna.pass)) == key.as_u64().unwrap();
            passes.push(anna);
            is_new
        });
    }
    assert_ne!(u64::from(number(&before)), key.as_u64().unwrap());
    let (earlier, later) = passes.split_at(4);
    for (at, anna) in earlier.iter().chain([&later[later.len() - 1]]).enumerate() {
        bought_at(&gates[at % 2], anna).is(201, "held");
    }
    bought_at(&gates[1], &take(&gates[0])).is(201, "held");
    bought_at(&gates[0], &take(&gates[1])).is(201, "held");
}

/// Buys one boot at that gate with a pass that may come from another.
fn bought_at(gate: &Reach, customer: &Customer) -> Reply {
    gate.ask(customer.attempt("boot", "a", 1).request())
}

/// The vault has the block list, and every process notices.
#[test]
fn a_customer_who_is_blocked_at_one_gate_is_blocked_at_all() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("blocked", 1));
    let ((one, _), (other, _)) = (cluster.gate("gate-1"), cluster.gate("gate-2"));
    let mut anna = one.customer("anna-who-resells", "blocked");
    let body = json!({ "issuer": ISSUER, "subject": "anna-who-resells", "reason": "resells" });
    let id = other.operate(Request::post("/admin/v1/blocks").json(&body)).is(201, "").text("id");
    let asks = Request::post("/v1/sales/blocked/passes").bearer(&anna.token);
    other.ask(&asks).is(403, "blocked");
    until("the other gate knows it", || one.ask(&asks).status == 403);
    one.operate(Request::new("DELETE", &format!("/admin/v1/blocks/{id}"))).is(200, "");
    until("the first gate knows that it is over", || other.ask(&asks).status == 201);
    anna.take_pass().is(201, "");
}

/// The vault has it, and every process notices: what is set at one gate is shown by all.
#[test]
fn a_picture_and_an_embedder_are_known_to_every_process() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("showcase", 1));
    let ((one, _), (other, _)) = (cluster.gate("gate-1"), cluster.gate("gate-2"));
    let path = "/admin/v1/sales/showcase";
    let picture = Request::new("PUT", &format!("{path}/items/boot/picture")).body(SMALL_PICTURE);
    let shown = one.operate(picture).is(200, "").json()["picture"].clone();
    let settings = json!({ "origins": ["https://shop.example"], "button": {}, "descriptions": {} });
    one.operate(Request::new("PUT", &format!("{path}/showcase")).json(&settings)).is(200, "");
    let told = |gate: &Reach| gate.operate(Request::get(&format!("{path}/showcase"))).json();
    assert_eq!(told(&one), settings, "at once where it was set");
    until("the other gate knows it", || told(&other) == settings);
    let item = other.ask(&Request::get("/v1/sales/showcase")).json()["items"][0].clone();
    assert_eq!(item["picture"], shown);
    let file = shown["sources"][0]["webp"].as_str().unwrap();
    let bodies = [&one, &other].map(|gate| gate.ask(&Request::get(file)));
    assert_eq!((bodies[0].status, &bodies[0].body), (200, &bodies[1].body));
    other.operate(Request::new("DELETE", &format!("{path}/items/boot/picture"))).is(200, "");
    other.ask(&Request::get(file)).is(404, "not_found");
    until("the first gate shows it no longer", || one.ask(&Request::get(file)).status == 404);
}

/// A challenge of one gate is believed by every other, and what is asked is the same at all of them.
#[test]
fn a_human_check_is_known_to_every_process_and_a_challenge_is_everybodys() {
    let mut cluster = Cluster::lock();
    cluster.create(&open_sale("checked", 3));
    let ((one, _), (other, _)) = (cluster.gate("gate-1"), cluster.gate("gate-2"));
    let check = json!({ "human_check": "proof_of_work" });
    one.operate(Request::new("PUT", "/admin/v1/sales/checked/human-check").json(&check)).is(200, "");
    let shown = |gate: &Reach| gate.ask(&Request::get("/v1/sales/checked")).json()["human_check"].clone();
    assert_eq!(shown(&one), "proof_of_work");
    until("the other gate knows it", || shown(&other) == "proof_of_work");
    let token = token_of("anna");
    let challenge = Request::post("/v1/sales/checked/challenges").bearer(&token);
    let challenge = one.ask(&challenge).is(201, "").json();
    let not_before = now_milliseconds() + challenge["wait_ms"].as_u64().unwrap();
    let answer = json!({ "challenge": challenge["challenge"], "answer": solve(&challenge) });
    until("it is no program's answer", || now_milliseconds() > not_before);
    let pass = Request::post("/v1/sales/checked/passes").bearer(&token);
    other.ask(&pass).is(403, "challenge_required");
    other.ask(&pass.clone().json(&answer)).is(201, "");
    one.ask(&pass).is(201, "");
}
