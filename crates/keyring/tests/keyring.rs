//! A shop that publishes its keys well, badly, late and not at all; and crowds that name keys which nobody knows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use domain::Clock;
use gate::jwks::JWKS_BYTES_MAX;
use keyring::{ASK_AGAIN_MILLISECONDS, Absence, FetchTimes, Keyring, KeyringError, KeyringOptions, SourceError};
use services::keys::{ShopKey, jwks};
use services::receiver::{Answer, Receiver};

/// Stands still until it is told otherwise.
#[derive(Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn wall_milliseconds(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic_milliseconds(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A shop whose answer can be changed, a keyring on it, and the clock of that keyring.
struct World {
    answer: Arc<Mutex<Answer>>,
    shop: Receiver,
    clock: Arc<TestClock>,
}

const STALE_SECONDS_MAX: u64 = 86_400;

impl World {
    fn new(answer: Answer) -> Self {
        let answer = Arc::new(Mutex::new(answer));
        let given = Arc::clone(&answer);
        let shop = Receiver::start(move |_| given.lock().unwrap().clone()).unwrap();
        Self { answer, shop, clock: Arc::default() }
    }

    fn options(&self, refresh: Duration) -> KeyringOptions {
        let whole = Duration::from_millis(300);
        KeyringOptions {
            url: self.shop.url(),
            refresh,
            stale_max: Duration::from_secs(STALE_SECONDS_MAX),
            times: FetchTimes { connect: whole, whole },
            authority: None,
            dangerous_plain_http: true,
        }
    }

    fn keyring(&self, refresh: Duration) -> Keyring {
        Keyring::start(self.options(refresh), Arc::clone(&self.clock) as Arc<dyn Clock>).unwrap()
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn pass(&self, milliseconds: u64) {
        self.clock.0.fetch_add(milliseconds, Ordering::SeqCst);
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::yield_now();
    }
}

fn count(keyring: &Keyring) -> usize {
    keyring.with(gate::KeySet::count)
}

fn published(count: usize) -> Answer {
    let keys: Vec<_> = (0..count).map(|number| ShopKey::ed25519(&number.to_string())).collect();
    Answer::Content(jwks(&keys))
}

const LONG: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(5);

#[test]
fn keys_are_there_when_it_has_started_and_change_when_the_shop_changes_them() {
    let world = World::new(published(2));
    let keyring = world.keyring(SHORT);
    assert_eq!(count(&keyring), 2);
    world.answers(published(3));
    until("the third key", || count(&keyring) == 3);
    world.answers(published(1));
    until("the end of two keys", || count(&keyring) == 1);
}

#[test]
fn it_starts_without_the_shop_and_finds_the_keys_later() {
    for down in [Answer::Status(500), Answer::Silence] {
        let world = World::new(down);
        let began = Instant::now();
        let keyring = world.keyring(SHORT);
        assert!(began.elapsed() < Duration::from_secs(10), "the start waits for one fetch and no longer");
        assert_eq!((count(&keyring), keyring.miss()), (0, Absence::Unsure));
        world.answers(published(1));
        until("the shop's return", || count(&keyring) == 1);
        assert_eq!(keyring.miss(), Absence::Certain);
    }
}

#[test]
fn whatever_the_shop_answers_wrongly_the_keys_that_were_there_stay() {
    let world = World::new(published(2));
    let keyring = world.keyring(SHORT);
    let target = World::new(published(5));
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(JWKS_BYTES_MAX));
    for (name, answer) in [
        ("500", Answer::Status(500)),
        ("404", Answer::Status(404)),
        ("204", Answer::Status(204)),
        ("a hang", Answer::Silence),
        ("an endless body", Answer::Endless),
        ("an endless head", Answer::EndlessHead),
        ("a huge body", Answer::Content(huge)),
        ("garbage", Answer::Content("<html>It works!</html>".to_owned())),
        ("nothing", Answer::Content(String::new())),
        ("no keys", Answer::Content(r#"{"keys":[]}"#.to_owned())),
        ("a redirect", Answer::Redirect(target.shop.url())),
        ("65 keys", published(65)),
    ] {
        world.answers(answer);
        let asked = keyring.fetches();
        until(name, || keyring.fetches() >= asked + 2);
        assert_eq!(count(&keyring), 2, "{name}");
    }
    assert!(target.shop.calls().is_empty(), "a redirect was followed");
    drop(world.shop);
    let asked = keyring.fetches();
    until("nobody listens", || keyring.fetches() >= asked + 2);
    assert_eq!(count(&keyring), 2);
}

#[test]
fn stale_keys_are_believed_until_their_limit_and_not_longer() {
    let world = World::new(published(2));
    let keyring = world.keyring(LONG);
    world.answers(Answer::Status(500));
    world.pass(STALE_SECONDS_MAX * 1_000);
    assert_eq!(count(&keyring), 2);
    world.pass(1);
    assert_eq!((count(&keyring), keyring.miss()), (0, Absence::Unsure));
    until("the failed fetch", || keyring.fetches() == 2);
    world.answers(published(1));
    world.pass(ASK_AGAIN_MILLISECONDS);
    keyring.miss();
    until("the shop's return", || count(&keyring) == 1);
}

#[test]
fn a_limit_that_is_over_within_ten_seconds_leaves_nothing_certain() {
    let world = World::new(published(1));
    let options = KeyringOptions { stale_max: Duration::from_secs(1), ..world.options(LONG) };
    let keyring = Keyring::start(options, Arc::clone(&world.clock) as Arc<dyn Clock>).unwrap();
    world.pass(1_000);
    assert_eq!((count(&keyring), keyring.miss()), (1, Absence::Certain));
    world.pass(1);
    assert_eq!((count(&keyring), keyring.miss()), (0, Absence::Unsure));
}

#[test]
fn a_crowd_with_unknown_keys_asks_the_shop_once_in_ten_seconds() {
    let world = World::new(published(1));
    let keyring = world.keyring(LONG);
    let crowd = |expected| {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1_000).for_each(|_| assert_eq!(keyring.miss(), expected)));
            }
        });
    };
    crowd(Absence::Certain);
    assert_eq!(keyring.fetches(), 1, "the keys have just been fetched");
    world.answers(Answer::Silence);
    world.pass(ASK_AGAIN_MILLISECONDS);
    crowd(Absence::Unsure);
    until("the one fetch", || world.shop.calls().len() == 2);
    world.pass(ASK_AGAIN_MILLISECONDS - 1);
    crowd(Absence::Unsure);
    world.answers(published(2));
    world.pass(1);
    // Whether the fetch that hangs has ended or not: what was asked for meanwhile is this one, and no further.
    assert_eq!(keyring.miss(), Absence::Unsure);
    until("the next fetch", || count(&keyring) == 2);
    crowd(Absence::Certain);
    assert_eq!((keyring.fetches(), world.shop.calls().len()), (3, 3));
}

#[test]
fn an_address_is_https_or_loopback_where_that_was_asked_for() {
    let world = World::new(published(1));
    for (url, dangerous, plain) in [
        ("http://127.0.0.1:4000/keys", false, true),
        ("http://localhost:4000/keys", true, true),
        ("http://10.0.0.1/keys", true, true),
        ("http://shop.example/keys", true, true),
        ("http://127.0.0.1.shop.example/keys", true, true),
        ("", true, false),
        ("keys", true, false),
        ("ftp://shop.example/keys", true, false),
        ("file:///etc/passwd", true, false),
        ("https://user@shop.example/keys", true, false),
        ("https://shop.example/keys#here", true, false),
    ] {
        let options = KeyringOptions { url: url.to_owned(), dangerous_plain_http: dangerous, ..world.options(LONG) };
        let refused = Keyring::start(options, Arc::clone(&world.clock) as Arc<dyn Clock>).err();
        let Some(KeyringError::Source(refused)) = refused else { panic!("{url}: {refused:?}") };
        let expected = if plain { SourceError::Plain(url.to_owned()) } else { SourceError::Url(url.to_owned()) };
        assert_eq!(refused, expected, "{url}");
    }
}
