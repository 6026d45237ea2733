//! What the demo puts up: the data folder, the server process, the sample sale, the crowd process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crowd::http::request_blocking;
use crowd::{Checkout, CrowdOptions};
use crowd::{CrowdReport, Progress};
use domain::{ChainTime, CouponDefinition, Currency, ItemDefinition, SaleDefinition};
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::DemoArgs;
use super::cluster;
use crate::config::IdentitySettings;
use crate::data_client::{Endpoints, Operator};

pub(super) const ITEM: &str = "boot";
const HOLD_SECONDS: u64 = 5;
const GRACE_SECONDS: u64 = 1;
/// Short, so that some money comes too late.
const HOLD_EXTENSION_SECONDS: u64 = 2;
/// Winners take up to this long to make up their minds; nearly all of the hold, so that the payments do not come with the rush.
const DECIDE_MILLISECONDS_MAX: u64 = 4_000;
const COUPON: &str = "WINTER20";
/// A code that people have heard of and that the sale does not have.
const RUMOUR: &str = "WINTER50";
/// After the arrivals: long enough for abandoned holds to expire and be sold again.
const LINGER_SECONDS: u64 = 9;
const START_TIME_MAX: Duration = Duration::from_secs(20);
const ISSUER: &str = "https://shop.example";
const AUDIENCE: &str = "doorbuster-demo";

/// A child process that does not outlive the demo.
pub(super) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Asks it to end and waits until it has.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        self.0.wait()?;
        Ok(())
    }

    pub(super) fn wait(&mut self) -> anyhow::Result<()> {
        self.0.wait()?;
        Ok(())
    }
}

/// Who keeps books, and where.
pub(super) struct Bookkeeper {
    pub(super) data: PathBuf,
    pub(super) operator: Operator,
}

pub(super) struct Stage {
    /// Where the notes go.
    pub(super) data: PathBuf,
    /// The server, if it is ours: a cluster was there before.
    pub(super) server: Option<Process>,
    pub(super) operator: Operator,
    pub(super) bookkeepers: Vec<Bookkeeper>,
    pub(super) sale: String,
    pub(super) public: Vec<SocketAddr>,
    pub(super) admin: Vec<SocketAddr>,
    pub(super) identity: IdentitySettings,
    /// Whether a page takes money: the sandbox's, none is moved.
    pub(super) has_sandbox: bool,
}

pub(super) fn set_up(args: &DemoArgs) -> anyhow::Result<Stage> {
    if let Some(nodes) = &args.cluster {
        return cluster::find(nodes);
    }
    let data = match &args.data {
        Some(data) => data.clone(),
        None => std::env::temp_dir().join(format!("doorbuster-demo-{}", std::process::id())),
    };
    Endpoints::forget(&data);
    let mut secret = [0; 32];
    let random = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty());
    random.context("the system has no randomness")?;
    let secret = data_encoding::HEXLOWER.encode(&secret);
    let mut server = start_server(&data, &secret, args.bots.is_some())?;
    let operator = wait_until_ready(&data, &mut server)?;
    let public = operator.endpoints.public.context("the server listens to no customers")?;
    Ok(Stage {
        public: vec![public],
        admin: vec![operator.endpoints.admin],
        bookkeepers: vec![Bookkeeper { data: data.clone(), operator: operator.clone() }],
        data,
        server: Some(server),
        operator,
        sale: String::new(),
        identity: IdentitySettings {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            hs256_secrets: vec![secret],
            dangerous_guest_tokens: true,
            ..IdentitySettings::default()
        },
        has_sandbox: true,
    })
}

/// `behind_proxy`: the crowd stands for a proxy, which tells whom it speaks for.
fn start_server(data: &Path, secret: &str, behind_proxy: bool) -> anyhow::Result<Process> {
    let (public, admin) = (port_near(8080)?, port_near(8081)?);
    let proxies = if behind_proxy { "public.trusted_proxies=127.0.0.1" } else { "public.trusted_proxies=" };
    let child = Command::new(std::env::current_exe()?)
        .arg("serve")
        .args(["--set", proxies])
        .arg("--with-parent")
        .arg("--data")
        .arg(data)
        .args(["--set", &format!("public.address=127.0.0.1:{public}")])
        .args(["--set", &format!("admin.address=127.0.0.1:{admin}")])
        .args(["--set", "identity.dangerous_guest_tokens=true"])
        .args(["--set", "payment.provider=sandbox"])
        .args(["--set", "payment.dangerous_sandbox_provider=true"])
        .args(["--set", "pages.shop_name=Nordlicht"])
        .env("DOORBUSTER_IDENTITY__ISSUER", ISSUER)
        .env("DOORBUSTER_IDENTITY__AUDIENCE", AUDIENCE)
        .env("DOORBUSTER_IDENTITY__HS256_SECRETS", secret)
        // That people pay in the sandbox is no news to whoever runs a demo.
        .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn,doorbuster::till=error".to_owned()))
        .stdin(Stdio::null())
        .spawn()
        .context("the server process did not start")?;
    Ok(Process(child))
}

/// The wanted port where it is free, else another that is.
fn port_near(wanted: u16) -> std::io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", wanted)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
    Ok(listener.local_addr()?.port())
}

fn wait_until_ready(data: &Path, server: &mut Process) -> anyhow::Result<Operator> {
    let until = Instant::now() + START_TIME_MAX;
    loop {
        if let Some(status) = server.0.try_wait()? {
            bail!("the server ended at once ({status}); what it said stands above");
        }
        if let Some(endpoints) = Endpoints::read(data) {
            let ready = request_blocking(endpoints.admin, Method::GET, "/readyz", &[], None, Duration::from_secs(1));
            if ready.is_ok_and(|reply| (200..300).contains(&reply.status)) {
                return Operator::of(data);
            }
        }
        if Instant::now() > until {
            bail!("the server was not ready within {} s", START_TIME_MAX.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Stage {
    /// Where customers reach the sale.
    pub(super) fn public(&self) -> SocketAddr {
        self.public[0]
    }

    /// The crowd's options; the sale opens once everyone has had the time to take a pass.
    pub(super) fn crowd_options(&self, args: &DemoArgs) -> CrowdOptions {
        CrowdOptions {
            public: self.public.clone(),
            admin: self.admin.clone(),
            admin_token: self.operator.token.clone(),
            items: vec![ITEM.to_owned()],
            shoppers: args.shoppers,
            // With bots nobody is done before everybody's slot has come.
            seconds: if args.bots.is_some() { args.spread().max(1) } else { args.seconds },
            linger_seconds: LINGER_SECONDS,
            seed: args.seed,
            notes: self.data.join("notes.jsonl"),
            token_secret: self.identity.hs256_secrets.first().cloned().unwrap_or_default().into_bytes(),
            issuer: self.identity.issuer.clone(),
            audience: self.identity.audience.clone(),
            // The sandbox is for a process that is alone; a cluster's shop takes the money itself.
            checkout: if self.server.is_some() { Checkout::Provider } else { Checkout::Reported },
            decide_milliseconds_max: DECIDE_MILLISECONDS_MAX,
            coupons: vec![COUPON.to_owned(), RUMOUR.to_owned()],
            coupon_share: 0.1,
            refund_share: 0.05,
            bots: args.bots(),
            ..CrowdOptions::default()
        }
    }

    /// Which demo it is that runs in this deployment, from 1.
    pub(super) fn number(&self) -> anyhow::Result<usize> {
        let sales = self.operator.ask(Method::GET, "/admin/v1/sales", None)?;
        let is_crowds = |sale: &&Value| sale["sale"].as_str().is_some_and(|name| name.starts_with("demo-"));
        Ok(sales.as_array().into_iter().flatten().filter(is_crowds).count() + 1)
    }

    /// The crowd's sale; it opens `later` than the crowd needs.
    pub(super) fn create_sale(
        &mut self,
        args: &DemoArgs,
        options: &mut CrowdOptions,
        number: usize,
        later: Duration,
    ) -> anyhow::Result<()> {
        self.sale = format!("demo-{number}");
        options.sale.clone_from(&self.sale);
        let now = ChainTime(crowd_clock());
        let uses_max = (args.stock() / 50).max(1);
        let coupon = CouponDefinition { code: Some(COUPON.to_owned()), hash: None, percent: 20, uses_max };
        let opens_at = now.plus((options.passes_take() + later).as_millis() as u64 + 1_000);
        let definition = SaleDefinition {
            sale: self.sale.clone(),
            title: "Winter boots, while they last".to_owned(),
            currency: Currency(*b"EUR"),
            passes_open_at: now,
            opens_at,
            closes_at: opens_at.plus(24 * 3_600_000),
            spread_milliseconds: args.spread() * 1_000,
            hold_seconds: HOLD_SECONDS,
            grace_seconds: GRACE_SECONDS,
            pass_seconds: 3_600,
            grants_per_pass_max: 5,
            grants_per_customer_max: 10,
            limit_per_customer: 1,
            resale_delay_milliseconds: 1_000,
            // Against hold-and-drop: who lets a hold go has had their turn. Without bots the crowd may, so that more comes back.
            unpaid_releases_max: if args.bots.is_some() { 1 } else { 1_000 },
            hold_extension_seconds: HOLD_EXTENSION_SECONDS,
            coupons: vec![coupon],
            settle_after_seconds: 3_600,
            external_id: None,
            test: true,
            items: vec![ItemDefinition {
                item: ITEM.to_owned(),
                title: "Winter boot".to_owned(),
                stock: args.stock(),
                price: 8_900,
                limit_per_customer: 1,
                sku: None,
                external_id: None,
                points: 89,
            }],
        };
        self.operator.ask(Method::POST, "/admin/v1/sales", Some(&serde_json::to_value(definition)?))?;
        self.wait_until_known(&self.sale)
    }

    /// Gates of a cluster hear of a sale a moment after it was created at one of them.
    pub(super) fn wait_until_known(&self, sale: &str) -> anyhow::Result<()> {
        let (path, until) = (format!("/v1/sales/{sale}"), Instant::now() + START_TIME_MAX);
        for gate in &self.public {
            while !request_blocking(*gate, Method::GET, &path, &[], None, Duration::from_secs(1))
                .is_ok_and(|reply| reply.status == 200)
            {
                if Instant::now() > until {
                    bail!("the gate at {gate} does not know the sale after {} s", START_TIME_MAX.as_secs());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

pub(super) fn crowd_clock() -> u64 {
    use domain::Clock as _;
    domain::clock::SystemClock::new().wall_milliseconds()
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Progress(Progress),
    Report(Box<CrowdReport>),
}

/// Runs the crowd's process to its end.
pub(super) fn run_crowd(options: &CrowdOptions, mut show: impl FnMut(&Progress)) -> anyhow::Result<CrowdReport> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("crowd")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("the crowd's process did not start")?;
    let mut stdin = child.stdin.take().context("the crowd has no stdin")?;
    stdin.write_all(&serde_json::to_vec(options)?)?;
    drop(stdin);
    let stdout = child.stdout.take().context("the crowd has no stdout")?;
    let _ended_with_us = Process(child);
    for line in BufReader::new(stdout).lines() {
        match serde_json::from_str(&line?).context("the crowd said something unexpected")? {
            Line::Progress(progress) => show(&progress),
            Line::Report(report) => return Ok(*report),
        }
    }
    bail!("the crowd's process ended without a report; what it said stands above")
}
