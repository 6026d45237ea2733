//! The express lane: a purchase that arrives whole is read, decided and answered without the general machinery of HTTP.
//!
//! At the opening nearly every request is such a one. It is read into a buffer that the whole thread shares, so that thousands of
//! connections keep neither buffers nor header maps of their own. What counts as a purchase is narrow on purpose; everything else,
//! anything incomplete, odd or wrong, goes to hyper with the bytes read so far, and its connection stays there. So this file never
//! has to refuse a request for its form, and there is one place that does.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use domain::limits;
use http::HeaderValue;
use limiter::overload::Priority;
use tokio::io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use crate::address::{FORWARDED_FOR, Peer};
use crate::asking::{Heard, Question, Stop};
use crate::connections::{Phase, Watch};
use crate::limits::By;
use crate::problem::Problem;
use crate::purchase::{self, Begun, Head};
use crate::reply::{REQUEST_ID, Reply};
use crate::service::Front;
use crate::{limits as rate_limits, origin, overload};

/// Headers of a request in the lane; browsers send about twenty.
const HEADERS_MAX: usize = 48;

/// What one thread's connections share.
pub(crate) struct Buffers {
    input: Vec<u8>,
    output: Vec<u8>,
    /// The `date` header and the second that it is of.
    date: (u64, String),
}

impl Buffers {
    pub(crate) fn new() -> RefCell<Self> {
        let input = vec![0; limits::HEADER_BYTES_MAX];
        RefCell::new(Self { input, output: Vec::with_capacity(2_048), date: (0, String::new()) })
    }
}

/// Why a connection leaves the lane.
pub(crate) enum Leaves {
    /// It has ended.
    Ended,
    /// These bytes begin a request that is not for the lane.
    General(Bytes),
}

/// Serves one purchase after another, until the connection ends or asks for something else.
pub(crate) async fn serve(stream: &mut TcpStream, front: &Rc<Front>, watch: &Watch, peer: &Peer) -> Leaves {
    loop {
        let length = match read(stream, front).await {
            Ok(0) | Err(_) => return Leaves::Ended,
            Ok(length) => length,
        };
        // Once something has to be asked, other connections need the buffer.
        let (mut kept, mut heard, mut place) = (None::<Vec<u8>>, Heard::default(), None);
        let taken = loop {
            let question = {
                let buffers = front.buffers.borrow();
                let bytes = kept.as_deref().unwrap_or(&buffers.input[..length]);
                let Some(request) = Request::read(bytes) else {
                    return Leaves::General(Bytes::copy_from_slice(bytes));
                };
                watch.enter(Phase::Handling);
                if place.is_none() {
                    let prove = || overload::proof_of_purchase(&front.app, request.sale, &request.head);
                    match front.turn.enter(Priority::Purchases, prove) {
                        Ok(entered) => place = Some(entered),
                        Err(shed) => break Err(shed.bytes.clone()),
                    }
                }
                match take(front, peer, &request, &mut heard) {
                    Ok(taken) => break Ok(taken),
                    Err(question) => {
                        kept = kept.or_else(|| Some(buffers.input[..length].to_vec()));
                        question
                    }
                }
            };
            heard.ask(&front.app, question).await;
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(shed) => {
                watch.enter(Phase::Idle);
                if stream.write_all(&shed).await.is_err() {
                    return Leaves::Ended;
                }
                continue;
            }
        };
        let (reply, request_id) = answer(front, taken).await;
        watch.enter(Phase::Idle);
        if send(stream, front, &reply, &request_id).await.is_err() {
            return Leaves::Ended;
        }
    }
}

/// A purchase that passed the gate, or why it did not; and what its answer needs beside the outcome.
pub(crate) struct Taken {
    request_id: String,
    shop: Option<HeaderValue>,
    begun: Result<Begun, Problem>,
}

/// Received and gated, unless something has to be asked first. What was taken keeps nothing of the request, whose buffer others use next.
pub(crate) fn take(front: &Front, peer: &Peer, request: &Request<'_>, heard: &mut Heard) -> Result<Taken, Question> {
    let app = &front.app;
    let client = app.limits.addresses.behind(peer, request.forwarded_for.into_iter());
    let admitted = origin::of_purchase(app, request.sale, &request.head.caller);
    let begun = rate_limits::of_purchase(app, &client, request.sale, &request.head, heard)
        .inspect(|()| heard.admit(By::Address))
        .and_then(|()| admitted.as_ref().map_err(|problem| problem.clone().into()))
        .and_then(|_| purchase::begin(front, (request.sale, request.item), &request.head, request.body, heard));
    let begun = match begun {
        Err(Stop::Ask(question)) => return Err(question),
        Err(Stop::Refused(problem)) => Err(problem),
        Ok(begun) => Ok(begun),
    };
    let request_id = app.request_id(request.request_id);
    Ok(Taken { request_id, shop: admitted.unwrap_or_default(), begun })
}

/// Decided, chained and answered. Gives the request's id as well.
pub(crate) async fn answer(front: &Front, taken: Taken) -> (Reply, String) {
    let outcome = match taken.begun {
        Ok(begun) => purchase::finish(front, begun).await,
        Err(problem) => Err(problem),
    };
    let mut reply = outcome.unwrap_or_else(|problem| front.refuse(&problem, &taken.request_id));
    reply.headers.extend(taken.shop.into_iter().flat_map(origin::let_in));
    (reply, taken.request_id)
}

/// Reads what has arrived into the thread's buffer; nothing else may run before it is used.
async fn read(stream: &mut TcpStream, front: &Front) -> io::Result<usize> {
    poll_fn(|context| {
        let mut buffers = front.buffers.borrow_mut();
        let mut input = ReadBuf::new(&mut buffers.input);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut input))?;
        Poll::Ready(Ok(input.filled().len()))
    })
    .await
}

/// Sends an answer from the thread's buffer; what the socket does not take at once waits in a buffer of its own.
async fn send(stream: &mut TcpStream, front: &Front, reply: &Reply, request_id: &str) -> io::Result<()> {
    let rest = poll_fn(|context| {
        let buffers = &mut *front.buffers.borrow_mut();
        buffers.output.clear();
        let date = date(&mut buffers.date, front.app.engine.now());
        reply.write(Some((request_id, date)), &mut buffers.output);
        let sent = match Pin::new(&mut *stream).poll_write(context, &buffers.output) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        Poll::Ready(io::Result::Ok(buffers.output[sent..].to_vec()))
    })
    .await?;
    if rest.is_empty() { Ok(()) } else { stream.write_all(&rest).await }
}

/// The time in the form of HTTP, made anew once a second.
fn date((second, text): &mut (u64, String), now_milliseconds: u64) -> &str {
    let now = now_milliseconds / 1_000;
    if *second != now {
        *second = now;
        *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
    }
    text
}

/// A purchase that arrived whole, with nothing behind it.
pub(crate) struct Request<'a> {
    pub(crate) sale: &'a str,
    pub(crate) item: &'a str,
    pub(crate) head: Head<'a>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) forwarded_for: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

impl<'a> Request<'a> {
    /// `None` for whatever is not exactly one plain purchase of HTTP/1.1.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        let httparse::Status::Complete(head_length) = parsed.parse_with_uninit_headers(bytes, &mut headers).ok()?
        else {
            return None;
        };
        if parsed.method != Some("POST") || parsed.version != Some(1) {
            return None;
        }
        let (sale, item) = purchase::target(parsed.path?)?;
        if !is_plain_name(sale) || !is_plain_name(item) {
            return None;
        }
        let (mut head, mut request_id, mut forwarded_for, mut length) = (Head::default(), None, None, None);
        for header in parsed.headers.iter() {
            if header.name.len() == 6 && is(header.name, "cookie") {
                if head.caller.cookie.replace(header.value).is_some() {
                    return None;
                }
                continue;
            }
            let place = match header.name.len() {
                4 if is(header.name, "host") => &mut head.caller.host,
                6 if is(header.name, "prefer") => &mut head.prefer,
                6 if is(header.name, "origin") => &mut head.caller.origin,
                10 if is(header.name, "connection") && header.value.eq_ignore_ascii_case(b"keep-alive") => continue,
                12 if is(header.name, "content-type") => &mut head.content_type,
                12 if is(header.name, REQUEST_ID.as_str()) => &mut request_id,
                13 if is(header.name, "authorization") => &mut head.authorization,
                14 if is(header.name, "content-length") => &mut length,
                14 if is(header.name, "sec-fetch-site") => &mut head.caller.site,
                15 if is(header.name, "doorbuster-pass") => &mut head.pass,
                15 if is(header.name, FORWARDED_FOR.as_str()) => &mut forwarded_for,
                15 if is(header.name, "idempotency-key") => &mut head.key,
                _ if changes_the_connection(header.name) => return None,
                _ => continue,
            };
            // Twice the same header is odd enough for the general way.
            if place.is_some() {
                return None;
            }
            *place = Some(visible(header.value)?);
        }
        head.caller.has_token = head.authorization.is_some();
        let body = &bytes[head_length..];
        let plain = length.unwrap_or("0");
        let whole = plain.bytes().all(|byte| byte.is_ascii_digit()) && plain.parse() == Ok(body.len());
        whole.then_some(Self { sale, item, head, request_id, forwarded_for, body })
    }
}

fn is(name: &str, lower_case: &str) -> bool {
    name.eq_ignore_ascii_case(lower_case)
}

/// What a name is made of. Anything else may be the end of the path, or no path at all.
fn is_plain_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Headers that change how the request or its answer travels.
fn changes_the_connection(name: &str) -> bool {
    ["connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]
        .iter()
        .any(|hop| is(name, hop))
}

/// The value as text where it has no byte beyond visible ASCII, blanks and tabs.
fn visible(value: &[u8]) -> Option<&str> {
    // Without a way out in the middle, so that it compiles to a few wide comparisons.
    let plain = value.iter().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~' | b'\t'));
    if plain { std::str::from_utf8(value).ok() } else { None }
}
