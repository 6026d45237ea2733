//! Any bytes as a request, a header, a body: the express lane reads what hyper reads or nothing, a purchase is what its JSON says, nobody
//! is somebody else by a header, and what cannot be read is refused. See `fuzzing`.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use domain::{ChainTime, SaleDefinition, limits};
use engine::ShowcaseSettings;
use fuzzing::check;
use gate::PrivateText;
use http::request::Parts;
use http::{Method, Response, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use limiter::of_bits;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::address::{Addresses, FORWARDED_FOR};
use crate::purchase::{self, Head};
use crate::reply::REQUEST_ID;
use crate::wire::{PurchaseBody, StockBody};
use crate::{admin, blocks, body, erase, express, payments, session, tokens, webhooks};

const PURCHASE: &[u8] = b"POST /v1/sales/drop/items/boot/purchases HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer a.b.c\r\n\
    Doorbuster-Pass: dp_abc\r\nIdempotency-Key: key-1\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"quantity\":1}";
const BY_BROWSER: &[u8] = b"POST /v1/sales/drop/items/boot/purchases HTTP/1.1\r\nhost: a:1\r\norigin: http://a:1\r\nsec-fetch-site: same-origin\r\n\
    cookie: __Host-doorbuster=a.b.c; other=\xc3\xa9\r\nprefer: wait=1\r\nx-request-id: 7\r\nconnection: keep-alive\r\n\
    x-forwarded-for: 198.51.100.1, 10.0.0.1\r\ncontent-length: 0\r\n\r\n";
/// Its path ends before the name of an item, for whoever knows addresses.
const WITH_QUERY: &[u8] = b"POST /v1/sales/drop?/items/boot/purchases HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
/// No byte of a path.
const ODD_NAME: &[u8] = b"POST /v1/sales/`rop/items/boot/purchases HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
const BY_OTHERS: &[u8] = b"GET /v1/sales/drop?lang=de HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\
    Upgrade: h2c\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

/// The requests that hyper finds in the bytes, with as much of their bodies as has come, and whether it went on after the first.
fn by_hyper(runtime: &tokio::runtime::Runtime, bytes: &[u8]) -> Vec<(Parts, Bytes)> {
    let found = RefCell::new(Vec::new());
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let service = service_fn(|request: http::Request<Incoming>| async {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await else {
                return Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()));
            };
            found.borrow_mut().push((parts, body.to_bytes()));
            Ok(Response::new(Empty::new()))
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        let serving = builder.max_buf_size(limits::HEADER_BYTES_MAX).half_close(true);
        let serving = serving.serve_connection(TokioIo::new(server), service);
        let asking = async {
            client.write_all(bytes).await?;
            client.shutdown().await?;
            client.read_to_end(&mut Vec::new()).await
        };
        // What is no HTTP is an error here, and no request.
        drop(tokio::join!(serving, asking));
    });
    found.into_inner()
}

/// All of a purchase's head that counts for anything.
fn told<'a>(head: &Head<'a>) -> [Option<&'a [u8]>; 9] {
    let caller = &head.caller;
    assert_eq!(caller.has_token, head.authorization.is_some());
    let texts = [head.authorization, head.pass, head.key, head.content_type, head.prefer];
    let [a, b, c, d, e] = texts.map(|text| text.map(str::as_bytes));
    [
        a,
        b,
        c,
        d,
        e,
        caller.origin.map(str::as_bytes),
        caller.host.map(str::as_bytes),
        caller.site.map(str::as_bytes),
        caller.cookie,
    ]
}

#[test]
fn any_bytes_in_the_lane_are_one_purchase_for_hyper_too_or_are_left_to_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(express::Request::read(PURCHASE).is_some() && express::Request::read(BY_BROWSER).is_some());
    check("lane", &[PURCHASE, BY_BROWSER, BY_OTHERS, WITH_QUERY, ODD_NAME], |bytes| {
        let Some(request) = express::Request::read(bytes) else { return };
        let found = by_hyper(&runtime, bytes);
        let [(parts, body)] = &found[..] else { panic!("hyper finds {} requests", found.len()) };
        assert_eq!((&parts.method, parts.version), (&Method::POST, Version::HTTP_11));
        assert_eq!(purchase::target(parts.uri.path()), Some((request.sale, request.item)));
        let general = Head::of(&parts.headers);
        assert_eq!(told(&request.head), told(&general));
        let id = parts.headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        assert_eq!(request.request_id, id);
        let lines: Vec<_> = parts.headers.get_all(FORWARDED_FOR).iter().map(|line| line.to_str().unwrap()).collect();
        assert_eq!(request.forwarded_for.into_iter().collect::<Vec<_>>(), lines);
        assert_eq!(request.body, body);
    });
}

#[test]
fn any_bytes_as_a_purchase_are_refused_or_are_what_their_json_says() {
    let seeds: [&[u8]; 5] = [
        b"key-1\nrespond-async, wait=3\n{\"quantity\":2,\"coupon\":\"HALF\",\"attributes\":{\"size\":\"42\",\"n\":1e3}}",
        b"k\nhold-token\n",
        b"k\n\n{}",
        b"k\nwait=60\n{\"quantity\":100,\"coupon\":null}",
        b"k\n\n {\"attributes\" : {\"a\":[[[{\"b\":\"\\u0000\\ud83d\\ude00\"}]]]} } ",
    ];
    check("purchase", &seeds, |bytes| {
        let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
        let mut text = || parts.next().map(|part| std::str::from_utf8(part).unwrap_or_default());
        let head = Head { key: text(), prefer: text(), content_type: Some("application/json"), ..Head::default() };
        let body = parts.next().unwrap_or_default();
        let Ok(asked) = purchase::read(&head, body) else { return };
        assert!((1..=limits::QUANTITY_MAX).contains(&asked.quantity));
        assert!((1..=limits::IDEMPOTENCY_KEY_BYTES_MAX).contains(&asked.key.len()) && Some(asked.key) == head.key);
        let attributes = asked.attributes.as_deref().map(serde_json::value::RawValue::get);
        assert!(attributes.is_none_or(|attributes| attributes.len() <= limits::ATTRIBUTES_BYTES_MAX));
        let private = PrivateText { key: asked.key, attributes };
        assert_eq!(PrivateText::parse(&private.to_bytes()), Some(private), "what is kept for the shop comes back");
        // Numbers beyond all bounds and deep nests are the shop's to read, not ours.
        let Ok(said) = serde_json::from_slice::<Value>(body) else { return };
        assert_eq!(said["quantity"].as_u64().unwrap_or(1), u64::from(asked.quantity));
        assert_eq!(said["coupon"].as_str(), asked.coupon.as_deref());
        assert_eq!(said.get("attributes").filter(|said| !said.is_null()), attributes.map(json).as_ref());
    });
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn any_bytes_in_front_of_what_a_proxy_wrote_make_nobody_somebody_else() {
    let trusted = ["10.0.0.0/8", "2001:db8:1::/48"].map(|prefix| prefix.parse().unwrap()).into();
    let addresses = Addresses::new(trusted, limiter::Hasher::new(&[1; 16]));
    let peer = |address: &str| addresses.peer(SocketAddr::new(address.parse().unwrap(), 1));
    let (proxy, stranger) = (peer("10.0.0.1"), peer("203.0.113.7"));
    let seeds: [&[u8]; 4] = [
        b"1.1.1.1, 198.51.100.1\n10.0.0.2",
        b"[2001:db8::7]:4711, 198.51.100.1:80,10.0.0.3",
        b"unknown, [::ffff:10.0.0.9], ::1",
        b"for=1.1.1.1;by=2.2.2.2",
    ];
    check("forwarded", &seeds, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let lines: Vec<&str> = text.split('\n').collect();
        let seen = |peer, lines: &[&str]| of_bits(addresses.behind(peer, lines.iter().copied()).address);
        let ip = |address: &str| address.parse::<IpAddr>().unwrap();
        assert_eq!(seen(&stranger, &lines), ip("203.0.113.7"));
        let client = seen(&proxy, &lines);
        assert!(client == ip("10.0.0.1") || text.contains(['.', ':']), "{client} stands nowhere");
        let written_behind = |behind: &str| {
            seen(&proxy, &[text, behind].map(|text| text.replace('\n', ",")).each_ref().map(|text| &**text))
        };
        assert_eq!(written_behind("198.51.100.9"), ip("198.51.100.9"));
        assert_eq!(written_behind("2001:db8::9"), ip("2001:db8::9"));
        let one_more = written_behind("10.0.0.77");
        assert!(one_more == client || (client, one_more) == (ip("10.0.0.1"), ip("10.0.0.77")), "{client} {one_more}");
    });
}

#[test]
fn any_bytes_as_cookies_hold_one_token_or_none() {
    let seeds: [&[u8]; 3] = [
        b"__Host-doorbuster=a.b.c",
        b"other=1; __Host-doorbuster=a.b-c_d; more=\xc3\xa9",
        b"a=b;;=;__Host-doorbuster=",
    ];
    check("cookies", &seeds, |bytes| {
        let Some(token) = session::token_in(bytes) else { return };
        assert!(!token.is_empty() && token.is_ascii() && !token.contains(';'));
        assert_eq!(session::token_in(format!("__Host-doorbuster={token}").as_bytes()), Some(token));
        let twice = [bytes, b"; __Host-doorbuster=", token.as_bytes()].concat();
        assert_eq!(session::token_in(&twice), None, "two tokens are none");
    });
}

/// Whether the body is read as one; then it was an object without a member that the type does not know.
fn reads<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let read: T = body::json(Some("application/json"), bytes).ok()?;
    assert!(bytes.is_empty() || bytes.trim_ascii_start().starts_with(b"{"), "{}", bytes.escape_ascii());
    Some(read)
}

#[test]
fn any_bytes_as_a_body_of_the_operator_are_refused_or_read_as_one() {
    let seeds: [&[u8]; 9] = [
        br#"{"sale":"winter-drop","title":"Winter drop","currency":"EUR","opens_at":"2026-11-27T20:00:00Z","closes_at":"2026-11-27T22:00:00.5Z",
            "limit_per_customer":2,"spread_milliseconds":5000,"external_id":"x","test":true,"coupons":[{"code":"WINTER20","percent":20,"uses_max":9}],
            "items":[{"item":"boot-42","title":"Boot","sku":"WB-42","stock":500,"price":8900,"limit_per_customer":1,"points":3}]}"#,
        b"{\"change\":-3}",
        b"{\"address\":\"203.0.113.0/24\",\"reason\":\"bots\",\"expires_in_seconds\":60}",
        b"{\"issuer\":\"https://shop\",\"subject\":\"anna\",\"reason\":\"bots\"}",
        b"{\"label\":\"till\",\"role\":\"cashier\"}",
        b"{\"url\":\"https://shop.example/hook\",\"sales\":[\"drop\"],\"events\":[\"order.held\"]}",
        b"{\"since\":\"2026-11-26T10:00:00Z\"}",
        b"{\"reference\":\"42\",\"return_url\":\"https://shop.example/\"}",
        b"{\"origins\":[\"https://shop.example\"],\"button\":{}}",
    ];
    check("operator", &seeds, |bytes| {
        if let Some(definition) = reads::<SaleDefinition>(bytes) {
            let printed = serde_json::to_vec(&definition).unwrap();
            assert_eq!(
                reads::<SaleDefinition>(&printed),
                Some(definition.clone()),
                "a definition is kept as it was read"
            );
            if definition.validate().is_ok() {
                let ChainTime(opens_at) = definition.opens_at;
                assert!(opens_at < definition.closes_at.0 && domain::sale::name_is_valid(&definition.sale));
            }
        }
        drop((reads::<PurchaseBody>(bytes), reads::<StockBody>(bytes), reads::<blocks::BlockBody>(bytes)));
        drop((reads::<tokens::TokenBody>(bytes), reads::<erase::EraseBody>(bytes), reads::<admin::ConfirmBody>(bytes)));
        drop((reads::<webhooks::WebhookBody>(bytes), reads::<webhooks::ReplayBody>(bytes)));
        drop((reads::<payments::PayBody>(bytes), reads::<ShowcaseSettings>(bytes)));
    });
}
