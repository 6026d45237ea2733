//! Customers whose tokens the shop signs with keys that it publishes: keys that come and go, a shop that is down, and pass keys that rotate.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use services::keys::{ShopKey, jwks};
use services::receiver::{Answer, Receiver};
use system_tests::{AUDIENCE, Customer, ISSUER, Request, Server, doorbuster, open_sale, until};

/// A shop that publishes what it is told to.
struct Shop {
    answer: Arc<Mutex<Answer>>,
    receiver: Receiver,
}

impl Shop {
    fn new(answer: Answer) -> Self {
        let answer = Arc::new(Mutex::new(answer));
        let given = Arc::clone(&answer);
        let receiver = Receiver::start(move |_| given.lock().unwrap().clone()).unwrap();
        Self { answer, receiver }
    }

    fn publishing(keys: &[&ShopKey]) -> Self {
        Self::new(Answer::Content(jwks(keys.iter().copied())))
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn publishes(&self, keys: &[&ShopKey]) {
        self.answers(Answer::Content(jwks(keys.iter().copied())));
    }

    /// How often it was asked.
    fn asked(&self) -> usize {
        self.receiver.calls().len()
    }

    fn server(&self, refresh_seconds: u64, more: &[&str]) -> Server {
        let url = format!("identity.jwks_url={}", self.receiver.url());
        let refresh = format!("identity.jwks_refresh_seconds={refresh_seconds}");
        let mut settings = vec![url.as_str(), &refresh, "identity.dangerous_plain_http=true"];
        settings.extend(more);
        let server = Server::start_with(&settings);
        server.create(&open_sale("drop", 1_000));
        server
    }
}

fn claims(subject: &str) -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": 4_000_000_000_u64 })
}

/// Somebody with a token of that key, and no pass yet.
fn somebody(server: &Server, key: &ShopKey, name: &str) -> Customer {
    let mut customer = server.stranger(name, "drop");
    customer.token = key.token(&claims(name));
    customer
}

#[test]
fn customers_of_every_algorithm_take_a_pass_and_buy() {
    let keys = [ShopKey::rs256("r"), ShopKey::es256("e"), ShopKey::ed25519("d")];
    let shop = Shop::publishing(&keys.each_ref());
    let server = shop.server(300, &[]);
    for key in &keys {
        let mut anna = somebody(&server, key, key.algorithm());
        anna.take_pass().is(201, "");
        anna.buy("boot", "a").is(201, "held");
    }
    server.customer("by-secret", "drop").buy("boot", "a").is(201, "held");
    let forged = ShopKey::es256("e").token(&claims("anna"));
    Request::get("/v1/orders").bearer(&forged).send(server.public()).is(401, "token_invalid");
    let confused = keys[1].token_with(r#"{"alg":"HS256","kid":"e"}"#, &claims("anna"));
    Request::get("/v1/orders").bearer(&confused).send(server.public()).is(401, "token_invalid");
    let path = "/v1/sales/drop/passes";
    let crit = keys[1].token_with(r#"{"alg":"ES256","kid":"e","crit":["exp"]}"#, &claims("anna"));
    Request::post(path).bearer(&crit).send(server.public()).is(401, "token_invalid");
    let places = shop.receiver.url();
    let jku = keys[1].token_with(&json!({"alg": "ES256", "kid": "e", "jku": places}).to_string(), &claims("anna"));
    Request::post(path).bearer(&jku).send(server.public()).is(401, "token_invalid");
    assert_eq!(shop.asked(), 1, "one fetch at the start was enough for all of them");
}

/// Mid-sale: the new key is believed and the old one is not, and who has a pass buys on with the token that it was taken with.
#[test]
fn a_removed_key_ends_its_tokens_and_no_pass() {
    let [old, new] = ["old", "new"].map(ShopKey::es256);
    let shop = Shop::publishing(&[&old]);
    let server = shop.server(1, &[]);
    let mut anna = somebody(&server, &old, "anna");
    anna.take_pass().is(201, "");
    anna.buy("boot", "a").is(201, "held");
    shop.publishes(&[&old, &new]);
    let mut ben = somebody(&server, &new, "ben");
    until("the new key", || ben.take_pass().status == 201);
    ben.buy("boot", "a").is(201, "held");
    shop.publishes(&[&new]);
    let mut late = somebody(&server, &old, "late");
    until("the end of the old key", || late.take_pass().status == 401);
    late.take_pass().is(401, "token_invalid");
    anna.buy("boot", "a").is(200, "held");
    let mut carl = somebody(&server, &new, "carl");
    carl.take_pass().is(201, "");
    anna.buy("boot", "b").is(201, "held");
    // With a renewed token the same pass serves.
    anna.token = new.token(&claims("anna"));
    anna.buy("boot", "a").is(200, "held");
}

#[test]
fn the_server_starts_without_the_shop_and_says_so_and_believes_when_the_keys_come() {
    let key = ShopKey::rs256("r");
    let shop = Shop::new(Answer::Status(500));
    let server = shop.server(1, &[]);
    assert!(server.log().contains("the shop's keys cannot be fetched"), "{}", server.log());
    let mut anna = somebody(&server, &key, "anna");
    let told = anna.take_pass().is(503, "identity_unavailable");
    assert_eq!(told.header("retry-after"), Some("2"));
    server.customer("by-secret", "drop").buy("boot", "a").is(201, "held");
    shop.publishes(&[&key]);
    until("the keys", || anna.take_pass().status == 201);
    anna.buy("boot", "a").is(201, "held");
}

#[test]
fn a_shop_that_goes_down_or_talks_nonsense_takes_no_customer_away() {
    let key = ShopKey::ed25519("d");
    let shop = Shop::publishing(&[&key]);
    let server = shop.server(1, &[]);
    for (name, answer) in [
        ("fails", Answer::Status(500)),
        ("nonsense", Answer::Content("<html>".to_owned())),
        ("moved", Answer::Redirect("http://127.0.0.1:1/".to_owned())),
        ("endless", Answer::Endless),
    ] {
        shop.answers(answer);
        let asked = shop.asked();
        until(name, || shop.asked() > asked + 1);
        let mut anna = somebody(&server, &key, name);
        anna.take_pass().is(201, "");
        anna.buy("boot", "a").is(201, "held");
    }
}

#[test]
fn stale_keys_end_at_their_limit() {
    let key = ShopKey::es256("e");
    let shop = Shop::publishing(&[&key]);
    let server = shop.server(1, &["identity.jwks_stale_seconds_max=2"]);
    let mut anna = somebody(&server, &key, "anna");
    anna.take_pass().is(201, "");
    shop.answers(Answer::Status(500));
    let mut ben = somebody(&server, &key, "ben");
    until("the limit", || ben.take_pass().status == 503);
    ben.take_pass().is(503, "identity_unavailable");
    anna.buy("boot", "a").is(201, "held");
}

/// 1,000 tokens at once, each with a name of its own for its key.
#[test]
fn a_crowd_of_unknown_keys_asks_the_shop_once_or_twice() {
    let key = ShopKey::es256("known");
    let shop = Shop::publishing(&[&key]);
    let server = shop.server(3_600, &[]);
    let stranger = ShopKey::es256("stranger");
    std::thread::scope(|scope| {
        for thread in 0..20 {
            let (server, stranger) = (&server, &stranger);
            scope.spawn(move || {
                for number in 0..50 {
                    let header = json!({"alg": "ES256", "kid": format!("{thread}-{number}")}).to_string();
                    let token = stranger.token_with(&header, &claims("mallory"));
                    let told = Request::post("/v1/sales/drop/passes").bearer(&token).send(server.public());
                    assert!(
                        matches!(told.code().as_str(), "token_invalid" | "identity_unavailable"),
                        "{}",
                        told.code()
                    );
                }
            });
        }
    });
    assert!(shop.asked() <= 3, "the start's fetch and {} more", shop.asked() - 1);
    somebody(&server, &key, "anna").take_pass().is(201, "");
}

#[test]
fn keys_from_a_file_need_no_shop() {
    let key = ShopKey::ed25519("d");
    let path = std::env::current_exe().unwrap().with_extension(format!("jwks-{}", std::process::id()));
    std::fs::write(&path, jwks([&key])).unwrap();
    let setting = format!("identity.jwks_file={}", path.display());
    let server = Server::start_with(&[&setting]);
    server.create(&open_sale("drop", 10));
    let mut anna = somebody(&server, &key, "anna");
    anna.take_pass().is(201, "");
    anna.buy("boot", "a").is(201, "held");
    let unknown = ShopKey::ed25519("other").token(&claims("anna"));
    Request::get("/v1/orders").bearer(&unknown).send(server.public()).is(401, "token_invalid");
    drop(server);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn settings_that_would_believe_the_wrong_shop_are_refused() {
    let mut server = Server::start();
    server.terminate();
    for (setting, said) in [
        ("identity.jwks_url=http://shop.example/keys", "not encrypted"),
        ("identity.jwks_url=http://127.0.0.1:1/keys", "not encrypted"),
        ("identity.jwks_url=keys", "is not where keys can be"),
        ("identity.jwks_file=/nowhere/keys.json", "identity.jwks_file"),
        ("identity.jwks_refresh_seconds=0", "identity.jwks_refresh_seconds"),
        ("identity.jwks_stale_seconds_max=1", "identity.jwks_stale_seconds_max"),
        ("identity.required_claims=vip", "identity.required_claims"),
    ] {
        let ended = server.refused(&[setting]);
        assert!(ended.error.contains(said), "{setting}: {}", ended.error);
    }
}

/// Whoever is not meant to buy is told so, keeps what they have, and learns nothing new by a pass of a better day.
#[test]
fn who_lacks_a_required_claim_takes_no_pass_and_buys_nothing() {
    let key = ShopKey::es256("e");
    let shop = Shop::publishing(&[&key]);
    let server = shop.server(300, &["identity.required_claims=vip=true,scope=drop"]);
    let with = |name: &str, vip: bool| {
        let mut claims = claims(name);
        (claims["vip"], claims["scope"]) = (vip.into(), "openid drop".into());
        key.token(&claims)
    };
    let mut ben = server.stranger("ben", "drop");
    ben.token = with("ben", false);
    ben.take_pass().is(403, "not_eligible");
    let mine = ben.asks(Request::get("/v1/sales/drop/mine")).is(200, "").json();
    assert_eq!((&mine["pass"], &mine["purchases"]), (&json!(null), &json!([])));
    let mut anna = server.stranger("anna", "drop");
    anna.token = with("anna", true);
    anna.take_pass().is(201, "");
    let order = anna.buy("boot", "a").is(201, "held").text("order");
    anna.token = with("anna", false);
    anna.buy("boot", "b").is(403, "not_eligible");
    anna.order(&order).is(200, "held");
    anna.cancel(&order).is(200, "released");
}

/// Mid-sale, on a running process: passes of both keys buy, and an owner alone may do it.
#[test]
fn passes_from_before_and_after_a_rotation_both_buy() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 10));
    let before = server.customer("before", "drop");
    let data = server.data().to_str().unwrap().to_owned();
    let rotated = doorbuster(&["pass-key", "rotate", "--json", "--data", &data]);
    let told: Value = serde_json::from_str(&rotated.out).unwrap();
    assert_eq!(told, json!({ "key": 1 }), "{}", rotated.error);
    let after = server.customer("after", "drop");
    let number = |pass: &str| data_encoding::BASE64URL_NOPAD.decode(&pass.as_bytes()[3..7]).unwrap()[1];
    assert_eq!((number(&before.pass), number(&after.pass)), (0, 1));
    for customer in [&before, &after] {
        customer.buy("boot", "a").is(201, "held");
    }
    server.terminate();
    server.start_again();
    for customer in [&before, &after] {
        customer.buy("boot", "a").is(200, "held");
    }
    assert_eq!(number(&server.customer("later", "drop").pass), 1);
}
