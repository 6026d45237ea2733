//! A data folder with a sale, and customers who have everything in hand but their purchase.
//!
//! Customers, tokens and passes are made offline with the engine's own vault and keys before any server starts, so that a
//! measurement holds purchases and nothing else.

use std::fs::File;
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use anyhow::Context as _;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use data_encoding::BASE64URL_NOPAD;
use domain::clock::SystemClock;
use domain::money::Currency;
use domain::sale::ItemDefinition;
use domain::{ChainTime, Clock, SaleDefinition};
use engine::{Engine, EngineOptions, Sale};
use gate::sign::sign_hs256;
use gate::{CustomerSaleKey, IdentityConfig, KeySet, Pass, token_hash};
use ledger::{NewCustomer, Pace};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The shop's name of the sale in every deployment of the bench.
pub(crate) const SALE: &str = "bench";
const ITEM: &str = "boot";
pub(crate) const ISSUER: &str = "https://shop.example";
pub(crate) const AUDIENCE: &str = "doorbuster";
pub(crate) const SECRET: &[u8] = b"the secret of a shop that does not exist";
/// Longer than any run that does not want to see holds end.
const HOLD_SECONDS: u64 = 3_600;
const DAY_MILLISECONDS: u64 = 24 * 60 * 60 * 1_000;
/// Customers in one transaction of the vault.
const CUSTOMERS_AT_ONCE: usize = 10_000;

/// What a sale of the bench may differ in.
pub(crate) struct Shape {
    pub(crate) stock: u32,
    pub(crate) hold_seconds: u64,
    /// Whether everybody's token was renewed since they took their pass, so that it has to be verified with every purchase: a signature
    /// under the shop's published key.
    pub(crate) has_renewed_tokens: bool,
}

impl Shape {
    /// So many units, held for [`HOLD_SECONDS`], for people with the tokens that they took their passes with.
    pub(crate) fn of(stock: u32) -> Self {
        Self { stock, hold_seconds: HOLD_SECONDS, has_renewed_tokens: false }
    }
}

/// Requests of equal length, one behind the other in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RequestsFile {
    path: PathBuf,
    request_bytes: usize,
    pub(crate) count: usize,
}

impl RequestsFile {
    /// The bytes of `count` requests from `first` on, and the length of each.
    pub(crate) fn read(&self, first: usize, count: usize) -> anyhow::Result<(Vec<u8>, usize)> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start((first * self.request_bytes) as u64))?;
        let mut bytes = vec![0; count.min(self.count - first) * self.request_bytes];
        file.read_exact(&mut bytes)?;
        Ok((bytes, self.request_bytes))
    }

    /// One request.
    pub(crate) fn one(&self, number: usize) -> anyhow::Result<Vec<u8>> {
        Ok(self.read(number, 1)?.0)
    }
}

/// The options of an engine in the bench: those of `serve`, with the bench's shop.
pub(crate) fn engine_options(books_pace: Pace) -> EngineOptions {
    EngineOptions {
        cluster: None,
        identity: IdentityConfig {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            secrets: vec![SECRET.to_vec()],
            fixed_keys: published_keys(),
            keys_are_published: false,
            required_claims: Vec::new(),
            leeway_seconds: 0,
            guest_tokens: false,
        },
        keyring: None,
        books_pace,
        clock: Arc::new(SystemClock::new()),
        on_fatal: Arc::new(|reason| {
            // The process ends in any case; the parent sees its exit.
            drop(writeln!(std::io::stderr(), "{reason}"));
            std::process::exit(70);
        }),
    }
}

/// Creates the data folder with an open sale, enters the customers into its vault, and writes one purchase request for each.
pub(crate) fn prepare(folder: &Path, shape: &Shape, customers: usize) -> anyhow::Result<RequestsFile> {
    let engine = Engine::start(folder, engine_options(Pace::Unlimited))?;
    let requests = prepare_in(&engine, SALE, folder.with_extension("requests"), shape, customers)?;
    engine.stop();
    Ok(requests)
}

/// The same in an engine that runs, for a sale of that name; the requests go to `path`.
pub(crate) fn prepare_in(
    engine: &Engine,
    name: &str,
    path: PathBuf,
    shape: &Shape,
    customers: usize,
) -> anyhow::Result<RequestsFile> {
    let sale = engine.create_sale(&SaleDefinition { sale: name.to_owned(), ..definition(shape, engine.now()) })?;
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    let mut request_bytes = 0;
    let numbers: Vec<usize> = (0..customers).collect();
    // Two halves of the work beside each other: entering customers into the vault, and signing.
    let (sender, receiver) = sync_channel::<Vec<(usize, CustomerSaleKey)>>(4);
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let sale = &sale;
        let (file, request_bytes) = (&mut file, &mut request_bytes);
        let signing = scope.spawn(move || -> anyhow::Result<()> {
            let now = engine.now();
            let signer = shape.has_renewed_tokens.then(shops_key);
            for (number, key) in receiver.iter().flatten() {
                let request = request(engine, sale, number, &key, now, signer.as_ref());
                *request_bytes = request.len();
                file.write_all(request.as_bytes())?;
            }
            Ok(file.flush()?)
        });
        for numbers in numbers.chunks(CUSTOMERS_AT_ONCE) {
            // Only fails when the other half has, and then its error counts.
            if sender.send(enter(engine, sale, numbers)?).is_err() {
                break;
            }
        }
        drop(sender);
        signing.join().map_err(|_| anyhow::anyhow!("signing passes panicked"))?
    })?;
    File::open(&path)?.sync_all().context("the prepared requests cannot be synced")?;
    Ok(RequestsFile { path, request_bytes, count: customers })
}

pub(crate) fn definition(shape: &Shape, now: u64) -> SaleDefinition {
    SaleDefinition {
        sale: SALE.to_owned(),
        title: "Bench".to_owned(),
        currency: Currency(*b"EUR"),
        passes_open_at: ChainTime(now),
        opens_at: ChainTime(now),
        closes_at: ChainTime(now + DAY_MILLISECONDS),
        spread_milliseconds: 0,
        hold_seconds: shape.hold_seconds,
        grace_seconds: 0,
        pass_seconds: DAY_MILLISECONDS / 1_000,
        grants_per_pass_max: 5,
        grants_per_customer_max: 10,
        limit_per_customer: 1,
        resale_delay_milliseconds: 1_000,
        unpaid_releases_max: 1_000,
        hold_extension_seconds: 900,
        coupons: Vec::new(),
        settle_after_seconds: 3_600,
        external_id: None,
        test: false,
        items: vec![ItemDefinition {
            item: ITEM.to_owned(),
            title: "Boot".to_owned(),
            stock: shape.stock,
            price: 4_900,
            limit_per_customer: 1,
            sku: None,
            external_id: None,
            points: 0,
        }],
    }
}

fn subject(number: usize) -> String {
    format!("shopper-{number:09}")
}

/// The customers' keys, as the vault gives them when a pass is taken.
fn enter(engine: &Engine, sale: &Sale, numbers: &[usize]) -> anyhow::Result<Vec<(usize, CustomerSaleKey)>> {
    let customers: Vec<_> = numbers
        .iter()
        .map(|number| NewCustomer {
            sale: sale.ordinal,
            pseudonym: sale.pseudonym(ISSUER, &subject(*number)),
            issuer: ISSUER.to_owned(),
            subject: subject(*number),
        })
        .collect();
    let keys = engine.vault.with(|vault| vault.ensure_customers(&customers))?;
    Ok(numbers.iter().zip(keys).map(|(number, key)| (*number, sale.customer_sale_key(&key))).collect())
}

fn request(
    engine: &Engine,
    sale: &Sale,
    number: usize,
    key: &CustomerSaleKey,
    now: u64,
    renewed_by: Option<&Ed25519KeyPair>,
) -> String {
    let subject = subject(number);
    let expires_at_seconds = (now + DAY_MILLISECONDS) / 1_000;
    let token = sign_hs256(SECRET, ISSUER, AUDIENCE, &subject, expires_at_seconds);
    let customer = sale.pseudonym(ISSUER, &subject);
    let pass = Pass {
        sale: sale.ordinal,
        customer,
        number: number as u64,
        slot_offset: sale.slot_offset(customer),
        expires_at: ChainTime(now + DAY_MILLISECONDS),
        token_hash: token_hash(&token),
        identity_hash: engine.identity_key.identity_hash(sale.id, ISSUER, &subject),
        token_expires_at_milliseconds: Some(expires_at_seconds * 1_000),
    };
    let pass = engine.passes.now().seal(&pass, key);
    let token = renewed_by.map_or(token, |key| sign_eddsa(key, &subject, expires_at_seconds));
    format!(
        "POST /v1/sales/{}/items/{ITEM}/purchases HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer {token}\r\n\
         Doorbuster-Pass: {pass}\r\nIdempotency-Key: 5f0c2a4e-0000-4000-8000-{number:012}\r\n\
         Content-Type: application/json\r\nContent-Length: 14\r\n\r\n{{\"quantity\":1}}",
        sale.name()
    )
}

/// The key of a shop that publishes keys; the same in every process of the bench.
fn shops_key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("any 32 bytes are a seed")
}

fn published_keys() -> KeySet {
    let x = BASE64URL_NOPAD.encode(shops_key().public_key().as_ref());
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "bench", "x": x}]});
    KeySet::read(set.to_string().as_bytes()).expect("the key is one of those that are believed").keys
}

fn sign_eddsa(key: &Ed25519KeyPair, subject: &str, expires_at_seconds: u64) -> String {
    let header = json!({"alg": "EdDSA", "kid": "bench", "typ": "JWT"});
    let claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": expires_at_seconds});
    let [header, claims] = [header, claims].map(|part| BASE64URL_NOPAD.encode(part.to_string().as_bytes()));
    let text = format!("{header}.{claims}");
    let signature = BASE64URL_NOPAD.encode(key.sign(text.as_bytes()).as_ref());
    format!("{text}.{signature}")
}

/// Milliseconds since the Unix epoch, and since an arbitrary start.
pub(crate) fn clocks(clock: &SystemClock) -> (u64, u64) {
    (clock.wall_milliseconds(), clock.monotonic_milliseconds())
}
