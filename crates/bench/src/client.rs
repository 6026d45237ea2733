//! The lean client: prebuilt requests over non-blocking connections, answers counted and timed. In a closed loop every connection
//! asks again as soon as it is answered; in an open loop requests leave on a schedule, and time counts from the schedule.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::answer;
use crate::deployment::RequestsFile;
use crate::process::{cpu_seconds, pin};

/// How long answers may take to arrive after the last request.
const STRAGGLERS: Duration = Duration::from_secs(10);
/// A schedule's next request may be nearer than a timer can tell; below this the client looks again at once.
const TIMER: Duration = Duration::from_millis(2);
/// How long a client whose stragglers are awaited may sleep.
const PATIENCE: Duration = Duration::from_millis(50);
/// An answer that comes later is no good.
const LATE: Duration = Duration::from_millis(100);
/// Longer than any answer takes.
const MICROSECONDS_MAX: u64 = 120_000_000;
/// Larger than any answer.
const READ_BYTES: usize = 16 * 1024;

/// What to ask, whom, and for how long.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ClientJob {
    pub(crate) address: SocketAddr,
    /// The server's process, whose CPU is read.
    pub(crate) server: u32,
    pub(crate) requests: RequestsFile,
    /// The first request to send.
    pub(crate) first: usize,
    /// How many there are.
    pub(crate) count: usize,
    /// Whether they are sent again from the first when all are sent.
    pub(crate) again: bool,
    pub(crate) connections: usize,
    pub(crate) warm_up_milliseconds: u64,
    pub(crate) measure_milliseconds: u64,
    /// Requests a second; without it the loop is closed.
    pub(crate) rate: Option<f64>,
    /// The same while it warms up, where that differs.
    pub(crate) warm_up_rate: Option<f64>,
    /// Addresses of this machine that the connections come from.
    pub(crate) sources: u8,
    /// The status that counts.
    pub(crate) status: u16,
    pub(crate) core: Option<usize>,
}

/// What came back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClientReport {
    /// Answers of the status that counts, a second, in the measured time.
    pub(crate) per_second: f64,
    /// Such answers in the whole run.
    pub(crate) counted: u64,
    /// Every other answer in the whole run, by status.
    pub(crate) others: BTreeMap<u16, u64>,
    pub(crate) seconds: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// How late the schedule's requests left.
    pub(crate) lag_p99_ms: f64,
    /// How long after the warm-up the last request was due that got another answer than the one that counts, or got it later than 100 ms.
    pub(crate) troubled_ms: f64,
    /// The part of the measured time that this client had something to do. Its processor time says less: it never sleeps in a closed
    /// loop.
    pub(crate) client_busy: f64,
    /// The part of the measured time that the server had its core; asked in a closed loop it wants all of it, so what is missing
    /// went to others.
    pub(crate) server_busy: f64,
    /// CPU that the server spent on an answer.
    pub(crate) server_microseconds: f64,
    /// All requests were sent before the time was over.
    pub(crate) ran_out: bool,
}

struct Connection {
    stream: TcpStream,
    /// When the request that is being answered was sent, or should have been.
    since: Instant,
    waiting: bool,
    /// The front of an answer that has not arrived whole.
    partial: Vec<u8>,
}

/// Requests still to be sent.
struct Requests {
    bytes: Vec<u8>,
    each: usize,
    next: usize,
    again: bool,
}

impl Requests {
    fn next(&mut self) -> Option<&[u8]> {
        if self.next == self.bytes.len() {
            if !self.again {
                return None;
            }
            self.next = 0;
        }
        let request = &self.bytes[self.next..self.next + self.each];
        self.next += self.each;
        Some(request)
    }

    fn are_over(&self) -> bool {
        !self.again && self.next == self.bytes.len()
    }
}

/// The measured time: before it is the warm-up, after it only stragglers are awaited.
struct Window {
    begins_at: Instant,
    ends_at: Instant,
    begun: Option<Mark>,
    ended: Option<Mark>,
    answers: u64,
}

/// One end of the measured time: when, and what client and server had worked until then.
type Mark = (Instant, Duration, f64);

/// Runs the job.
pub(crate) fn run(job: &ClientJob) -> anyhow::Result<ClientReport> {
    let (bytes, each) = job.requests.read(job.first, job.count)?;
    pin(job.core)?;
    let mut client = Client::connect(job, Requests { bytes, each, next: 0, again: job.again })?;
    client.drive()?;
    client.report()
}

/// A connection, each from the next of the addresses that there are.
fn connect(job: &ClientJob, number: usize) -> std::io::Result<std::net::TcpStream> {
    if job.sources <= 1 {
        return std::net::TcpStream::connect(job.address);
    }
    let socket = Socket::new(Domain::for_address(job.address), Type::STREAM, Some(Protocol::TCP))?;
    let source = (number % usize::from(job.sources)) as u8;
    socket.bind(&SocketAddr::from(([127, 0, 1, source], 0)).into())?;
    socket.connect(&job.address.into())?;
    Ok(socket.into())
}

struct Client<'a> {
    job: &'a ClientJob,
    poll: Poll,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    requests: Requests,
    window: Window,
    start: Instant,
    scheduled: u64,
    latency: Histogram<u64>,
    lag: Histogram<u64>,
    troubled: Duration,
    counted: u64,
    others: BTreeMap<u16, u64>,
    buffer: Vec<u8>,
    /// Time in turns that found a connection ready.
    worked: Duration,
}

impl<'a> Client<'a> {
    fn connect(job: &'a ClientJob, requests: Requests) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(job.connections);
        for number in 0..job.connections {
            let stream = connect(job, number).context("the server takes no connection")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            connections.push(Connection { stream, since: Instant::now(), waiting: false, partial: Vec::new() });
        }
        let start = Instant::now();
        let begins_at = start + Duration::from_millis(job.warm_up_milliseconds);
        let ends_at = begins_at + Duration::from_millis(job.measure_milliseconds);
        Ok(Self {
            job,
            poll,
            idle: (0..connections.len()).rev().collect(),
            connections,
            requests,
            window: Window { begins_at, ends_at, begun: None, ended: None, answers: 0 },
            start,
            scheduled: 0,
            latency: Histogram::new_with_bounds(1, MICROSECONDS_MAX, 3)?,
            lag: Histogram::new_with_bounds(1, MICROSECONDS_MAX, 3)?,
            troubled: Duration::ZERO,
            counted: 0,
            others: BTreeMap::new(),
            buffer: vec![0; READ_BYTES],
            worked: Duration::ZERO,
        })
    }

    fn drive(&mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1_024);
        loop {
            let now = Instant::now();
            self.turn_window(now)?;
            if self.window.ended.is_some() {
                let over = now > self.window.ends_at + STRAGGLERS;
                if over || self.idle.len() == self.connections.len() {
                    return Ok(());
                }
            } else {
                self.send_due(now)?;
            }
            let timeout = self.timeout(now);
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            if events.is_empty() && timeout.is_zero() {
                // Spinning towards the next request must not keep the disk's own threads from this core.
                std::thread::yield_now();
                continue;
            }
            // A look that found something was work itself, unless it slept.
            let since = if timeout.is_zero() { now } else { Instant::now() };
            for event in &events {
                self.receive(event.token().0)?;
            }
            self.worked += since.elapsed();
        }
    }

    fn turn_window(&mut self, now: Instant) -> anyhow::Result<()> {
        let window = &mut self.window;
        let over = now >= window.ends_at || self.requests.are_over();
        let marks = window.begun.is_none() && now >= window.begins_at || window.ended.is_none() && over;
        if !marks {
            return Ok(());
        }
        let mark = (now, self.worked, cpu_seconds(self.job.server)?);
        if window.begun.is_none() {
            window.begun = Some(mark);
        }
        if over {
            window.ended = Some(mark);
        }
        Ok(())
    }

    /// Sends what the schedule says; in a closed loop, whatever an idle connection can.
    fn send_due(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(&number) = self.idle.last() {
            let due = self.due(now);
            if due > now || !self.send(number, due)? {
                return Ok(());
            }
            self.idle.pop();
            if self.job.rate.is_some() && due >= self.window.begins_at {
                self.lag.saturating_record((now - due).as_micros() as u64);
            }
            self.scheduled += 1;
        }
        Ok(())
    }

    /// When the next request is due.
    fn due(&self, now: Instant) -> Instant {
        let Some(rate) = self.job.rate else { return now };
        let warm_up_rate = self.job.warm_up_rate.unwrap_or(rate);
        let warming = warm_up_rate * (self.window.begins_at - self.start).as_secs_f64();
        let after = self.scheduled as f64 - warming;
        if after < 0.0 {
            return self.start + Duration::from_secs_f64(self.scheduled as f64 / warm_up_rate);
        }
        self.window.begins_at + Duration::from_secs_f64(after / rate)
    }

    /// How long to sleep for the next event. While it measures, a client that slept would have the server wake it with nearly every
    /// answer, and that is dearer on this kind of connection than on any network.
    fn timeout(&self, now: Instant) -> Duration {
        if self.window.ended.is_some() {
            return PATIENCE;
        }
        if self.job.rate.is_none() {
            return Duration::ZERO;
        }
        let until = if self.idle.is_empty() { PATIENCE } else { self.due(now).saturating_duration_since(now) };
        if until < TIMER { Duration::ZERO } else { until.min(PATIENCE) - Duration::from_millis(1) }
    }

    /// Sends the next request, if there is one.
    fn send(&mut self, number: usize, since: Instant) -> anyhow::Result<bool> {
        let Some(request) = self.requests.next() else { return Ok(false) };
        let connection = &mut self.connections[number];
        // A connection has one request under way, so its send buffer is empty.
        let written = connection.stream.write(request).context("a request cannot be sent")?;
        if written != request.len() {
            bail!("a request was sent in part");
        }
        (connection.since, connection.waiting) = (since, true);
        Ok(true)
    }

    fn receive(&mut self, number: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[number];
        let read = match connection.stream.read(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            read => read.context("an answer cannot be read")?,
        };
        if read == 0 {
            bail!("the server closed a connection");
        }
        let whole = if connection.partial.is_empty() {
            answer::parse(&self.buffer[..read])
        } else {
            connection.partial.extend_from_slice(&self.buffer[..read]);
            answer::parse(&connection.partial)
        };
        let Some(whole) = whole else {
            if connection.partial.is_empty() {
                connection.partial.extend_from_slice(&self.buffer[..read]);
            }
            return Ok(());
        };
        connection.partial.clear();
        connection.waiting = false;
        let (since, now) = (connection.since, Instant::now());
        self.count(whole.status, since, now);
        let closed = self.job.rate.is_none() && self.window.ended.is_none();
        if !(closed && self.send(number, now)?) {
            self.idle.push(number);
        }
        Ok(())
    }

    fn count(&mut self, status: u16, since: Instant, now: Instant) {
        if since >= self.window.begins_at && (status != self.job.status || now.saturating_duration_since(since) > LATE)
        {
            self.troubled = self.troubled.max(since - self.window.begins_at);
        }
        if status != self.job.status {
            *self.others.entry(status).or_default() += 1;
            return;
        }
        self.counted += 1;
        let in_window = self.window.begun.is_some() && self.window.ended.is_none();
        self.window.answers += u64::from(in_window);
        if in_window || (self.job.rate.is_some() && since >= self.window.begins_at) {
            self.latency.saturating_record(now.saturating_duration_since(since).as_micros() as u64);
        }
    }

    fn report(&self) -> anyhow::Result<ClientReport> {
        let unanswered = self.connections.iter().filter(|connection| connection.waiting).count();
        if unanswered > 0 {
            bail!("{unanswered} requests were never answered");
        }
        let (begun, ended) = self.window.begun.zip(self.window.ended).context("nothing was measured")?;
        let seconds = (ended.0 - begun.0).as_secs_f64();
        if seconds < 0.5 {
            bail!("there were requests for {seconds:.2} seconds only");
        }
        let milliseconds =
            |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Ok(ClientReport {
            per_second: self.window.answers as f64 / seconds,
            counted: self.counted,
            others: self.others.clone(),
            seconds,
            p50_ms: milliseconds(&self.latency, 0.5),
            p99_ms: milliseconds(&self.latency, 0.99),
            max_ms: self.latency.max() as f64 / 1_000.0,
            lag_p99_ms: milliseconds(&self.lag, 0.99),
            troubled_ms: self.troubled.as_secs_f64() * 1_000.0,
            client_busy: (ended.1 - begun.1).as_secs_f64() / seconds,
            server_busy: (ended.2 - begun.2) / seconds,
            server_microseconds: (ended.2 - begun.2) * 1e6 / (self.window.answers.max(1) as f64),
            ran_out: self.requests.are_over(),
        })
    }
}
