//! The real server as a process: started, killed, started again, stopped, and judged at the end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crowd::NotesWriter;
use domain::SaleDefinition;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::binary::{self, Ended};
use crate::customer::Customer;
use crate::folder::Folder;
use crate::promises::{audit_is_clean, verify_sale};
use crate::waiting::{eventually, until};
use crate::wire::{Reply, Request};
use crate::{AUDIENCE, ISSUER, SECRET};

/// Receipts that are kept per sale, to be proven at the end.
const RECEIPTS_MAX: usize = 8;

/// Where the server is and what its clients have noted; it outlives every restart.
pub struct Reach {
    addresses: Mutex<(SocketAddr, SocketAddr)>,
    admin_token: Mutex<String>,
    notes: Mutex<NotesWriter>,
    keys: Mutex<BTreeMap<String, String>>,
    receipts: Mutex<BTreeMap<String, Vec<Value>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reach {
    /// A server that was started elsewhere; the notes of its clients go to `notes`.
    pub fn of(public: SocketAddr, admin: SocketAddr, admin_token: &str, notes: &Path) -> Arc<Self> {
        Arc::new(Self {
            addresses: Mutex::new((public, admin)),
            admin_token: Mutex::new(admin_token.to_owned()),
            notes: Mutex::new(NotesWriter::create(notes, true).expect("notes can be written")),
            keys: Mutex::default(),
            receipts: Mutex::default(),
        })
    }

    /// A customer with a pass.
    pub fn customer(self: &Arc<Self>, name: &str, sale: &str) -> Customer {
        let mut customer = Customer::new(Arc::clone(self), name, sale);
        customer.take_pass().is(201, "");
        customer
    }

    /// Hands all notes to the system.
    pub fn flush_notes(&self) {
        self.note(NotesWriter::flush);
    }

    /// The public listener.
    pub fn public(&self) -> SocketAddr {
        lock(&self.addresses).0
    }

    /// The operator's listener.
    pub fn admin(&self) -> SocketAddr {
        lock(&self.addresses).1
    }

    /// The operator's token.
    pub fn admin_token(&self) -> String {
        lock(&self.admin_token).clone()
    }

    /// A request to the public listener, by nobody.
    pub fn ask(&self, request: &Request) -> Reply {
        request.send(self.public())
    }

    /// A request by the operator; an error means that the outcome is unknown.
    pub fn try_operate(&self, request: Request) -> io::Result<Reply> {
        request.bearer(&self.admin_token()).try_send(self.admin())
    }

    /// A request by the operator.
    pub fn operate(&self, request: Request) -> Reply {
        request.bearer(&self.admin_token()).send(self.admin())
    }

    /// Creates a sale.
    pub fn create(&self, definition: &SaleDefinition) -> Value {
        let body = serde_json::to_value(definition).expect("a definition is JSON");
        let reply = self.operate(Request::post("/admin/v1/sales").json(&body));
        assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
        lock(&self.keys).insert(definition.sale.clone(), reply.text("signing_key"));
        reply.json()
    }

    /// Pauses, resumes, closes or settles a sale.
    pub fn turn(&self, sale: &str, action: &str) -> Reply {
        self.operate(Request::post(&format!("/admin/v1/sales/{sale}/{action}")))
    }

    /// A sale as the operator sees it.
    pub fn sale(&self, name: &str) -> Value {
        let sales = self.operate(Request::get("/admin/v1/sales")).json();
        let found = sales.as_array().into_iter().flatten().find(|sale| sale["sale"] == name);
        found.unwrap_or_else(|| panic!("{name} is not in {sales}")).clone()
    }

    /// How many units of the sale's first item are free, held, sold and withdrawn.
    pub fn counts(&self, sale: &str) -> [u64; 4] {
        let counts = &self.sale(sale)["counts"][0];
        ["free", "held", "sold", "withdrawn"].map(|name| counts[name].as_u64().unwrap_or_default())
    }

    /// A gauge of the metrics that has no label.
    pub fn gauge(&self, name: &str) -> u64 {
        let text = String::from_utf8(self.operate(Request::get("/metrics")).body).expect("metrics are text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().expect("a gauge is a number")
    }

    /// Waits until every service of the books has read the whole chain.
    pub fn drained(&self, sale: &str) {
        until("the books to catch up", || {
            let services = self.sale(sale)["services"].as_object().cloned().unwrap_or_default();
            !services.is_empty() && services.values().all(|lag| *lag == 0)
        });
    }

    /// Every order of a sale that the books have, over all pages.
    pub fn orders(&self, sale: &str) -> Vec<Value> {
        let mut orders = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.operate(Request::get(&format!("/admin/v1/sales/{sale}/orders{cursor}")));
            assert_eq!(page.status, 200);
            let page = page.json();
            orders.extend(page["orders"].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("?cursor={next}"),
                None => return orders,
            }
        }
    }

    /// The shop was paid. Notes it when it is acknowledged; an error means that the outcome is unknown.
    pub fn try_confirm(&self, order: &str) -> io::Result<Reply> {
        let reply = self.try_operate(Request::post(&format!("/admin/v1/orders/{order}/confirm")))?;
        if reply.status == 200 {
            self.note(|notes| notes.confirmed(&reply.text("purchase")));
        }
        Ok(reply)
    }

    /// The shop was paid.
    pub fn confirm(&self, order: &str) -> Reply {
        self.try_confirm(order).expect("the operator's listener answers")
    }

    pub(crate) fn note<T>(&self, write: impl FnOnce(&mut NotesWriter) -> io::Result<T>) -> T {
        write(&mut lock(&self.notes)).expect("notes can be written")
    }

    pub(crate) fn keep_receipt(&self, sale: &str, reply: &Reply) {
        let mut receipts = lock(&self.receipts);
        let of_sale = receipts.entry(sale.to_owned()).or_default();
        if of_sale.len() < RECEIPTS_MAX {
            of_sale.push(reply.json());
        }
    }
}

/// A server of the test, alive or not, with its folder.
pub struct Server {
    child: Option<Child>,
    reach: Arc<Reach>,
    data: PathBuf,
    folder: Folder,
    settings: Vec<String>,
}

impl Deref for Server {
    type Target = Reach;

    fn deref(&self) -> &Reach {
        &self.reach
    }
}

impl Server {
    /// Starts a server in a new folder.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server in a new folder with settings like `books.records_per_second_max=1`.
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = Folder::new();
        let data = folder.join("data");
        Self::start_in(folder, data, settings)
    }

    /// Starts a server on a data folder elsewhere; `folder` is for its log and the notes.
    pub fn start_in(folder: Folder, data: PathBuf, settings: &[&str]) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let reach = Reach::of(nowhere, nowhere, "", &folder.join("notes.jsonl"));
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut server = Self { child: None, reach, data, folder, settings };
        server.start_again();
        server
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The clients' notes, all of them handed to the system.
    pub fn notes(&self) -> PathBuf {
        self.note(NotesWriter::flush);
        self.folder.join("notes.jsonl")
    }

    /// The process's number.
    pub fn process(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Where it is and what was noted, for other threads.
    pub fn reach(&self) -> Arc<Reach> {
        Arc::clone(&self.reach)
    }

    /// A customer with a pass.
    pub fn customer(&self, name: &str, sale: &str) -> Customer {
        let mut customer = self.stranger(name, sale);
        customer.take_pass().is(201, "");
        customer
    }

    /// A customer without a pass.
    pub fn stranger(&self, name: &str, sale: &str) -> Customer {
        Customer::new(self.reach(), name, sale)
    }

    /// What the server has said since the beginning of the test.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    /// Starts the server again on the same folder and waits until it serves.
    pub fn start_again(&mut self) {
        self.start_again_with(&[]);
    }

    /// The same with more settings, this once.
    pub fn start_again_with(&mut self, settings: &[&str]) {
        assert!(self.child.is_none(), "the server runs already");
        let endpoints = self.data.join("endpoints.json");
        // A first start has none.
        let _ = fs::remove_file(&endpoints);
        let settings: Vec<_> = self.settings.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        let log = File::options().create(true).append(true).open(self.folder.join("server.log"));
        let log = log.expect("the log can be written");
        let child = command(&self.data, &settings).stderr(log).spawn().expect("the binary starts");
        let child = self.child.insert(child);
        let addresses = eventually("the server's addresses", || {
            let ended = child.try_wait().expect("a child can be waited for");
            assert_eq!(
                ended,
                None,
                "the server ended at once: {}",
                fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
            );
            let json: Value = serde_json::from_slice(&fs::read(&endpoints).ok()?).ok()?;
            let address = |name: &str| json[name].as_str()?.parse().ok();
            Some((address("public")?, address("admin")?))
        });
        *lock(&self.reach.addresses) = addresses;
        let token = fs::read_to_string(self.data.join("admin-token")).expect("the first start wrote a token");
        token.trim().clone_into(&mut lock(&self.reach.admin_token));
        until("the server's health", || {
            Request::get("/healthz").try_send(self.public()).is_ok_and(|reply| reply.status == 200)
        });
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// SIGTERM, and the orderly end that has to follow.
    pub fn terminate(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("a child can be told");
        let status = eventually("the server's end", || child.try_wait().expect("a child can be waited for"));
        assert!(status.success(), "the server ended with {status}: {}", self.log());
    }

    /// Whether the process has ended by itself; if so, how.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("a child can be waited for")?;
        self.child = None;
        Some(status)
    }

    /// Tries to serve the folder with more settings, where that must be refused.
    pub fn refused(&self, settings: &[&str]) -> Ended {
        let settings: Vec<_> = self.settings.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        serve_to_the_end(&self.data, &settings)
    }

    /// Stops the server if it runs, and checks every promise.
    fn judge(&mut self) {
        if self.child.is_some() {
            self.terminate();
        }
        if lock(&self.keys).is_empty() {
            return;
        }
        let notes = self.notes();
        audit_is_clean(&self.data, Some(&notes));
        let receipts = lock(&self.reach.receipts);
        for (sale, key) in lock(&self.keys).iter() {
            let files = receipts.get(sale).into_iter().flatten().enumerate().map(|(index, receipt)| {
                let file = self.folder.join(&format!("{sale}-{index}.json"));
                fs::write(&file, receipt.to_string()).expect("the folder is writable");
                file
            });
            verify_sale(&self.data, sale, key, &files.collect::<Vec<_>>(), self.folder.path());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.judge();
        }
        if let Some(mut child) = self.child.take() {
            // The test has failed already; the process just has to go.
            let _ = child.kill();
            let _ = child.wait();
        }
        eprintln!("---- what the server said ----\n{}", self.log());
    }
}

/// Serves a folder that has to be refused, and gives the words of the refusal.
///
/// # Panics
/// When the server is still there after the time that everything has.
pub(crate) fn serve_to_the_end(data: &Path, settings: &[&str]) -> Ended {
    ended(command(data, settings))
}

/// Runs a server that has to be refused to its end.
pub(crate) fn ended(mut command: Command) -> Ended {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    eventually("the refusal", || child.try_wait().expect("a child can be waited for"));
    Ended::of(child.wait_with_output().expect("a child can be read"))
}

/// Of every server.
const SETTINGS: [&str; 2] = ["public.address=127.0.0.1:0", "admin.address=127.0.0.1:0"];

/// Of every server and every node. A customer of a test asks as often as a program can, so only the tests of limits have limits by
/// customer.
pub(crate) const WITHOUT_LIMITS: [&str; 3] = [
    "limits.customer_passes_per_second=0",
    "limits.customer_purchases_per_second=0",
    "limits.customer_status_per_second=0",
];

fn command(data: &Path, settings: &[&str]) -> Command {
    let mut command = binary::command();
    command.args(["serve", "--with-parent", "--data"]).arg(data);
    for setting in SETTINGS.iter().chain(&WITHOUT_LIMITS).chain(settings) {
        command.args(["--set", setting]);
    }
    for argument in crate::cluster::arguments_for(data) {
        command.arg(argument);
    }
    let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
    command.stdin(Stdio::null()).stdout(Stdio::null()).env("RUST_LOG", level);
    command.env("DOORBUSTER_IDENTITY__ISSUER", ISSUER).env("DOORBUSTER_IDENTITY__AUDIENCE", AUDIENCE);
    command.env("DOORBUSTER_IDENTITY__HS256_SECRETS", SECRET);
    command
}
