//! The admin listener: `/healthz`, `/lists`, `/config` and `/metrics`, for operators and their tools;
//! and `POST /lists/accept?digest=…`, which lets a held change in.
//!
//! It serves only requests for an address, for `localhost` or for a name of its own (`admin/host.rs`).
//!
//! Plain threads, off the request path. Heads are read by the project's own HTTP code under its
//! own limits, each connection serves one request, and when there are too many at a time the oldest
//! gives way, so that nobody can keep the others waiting.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use serde_json::{Value, json};

use crate::admin::{host, lists, metrics};
use crate::config::Reloads;
use crate::error::{AdminRefusal, Finding, Refusal, reason_phrase};
use crate::fleet::heartbeat::Heartbeat;
use crate::http::h1::head::{Parsed, RequestHead, Scanner};
use crate::http::limits::Limits;
use crate::lists::Lists;
use crate::lists::findings::Findings;
use crate::lists::notes::Kind;
use crate::logs::throttle::Throttle;
use crate::logs::writer::LogQueue;
use crate::process::supervised;
use crate::proxy::Gateway;
use crate::proxy::doubts::Doubted;
use crate::route::explain::{self, Question, Rules};
use crate::store::gate::guard::{Held, Named};
use crate::store::{By, Publisher, Status, StoreFinding, copy};

/// Who may change something here sends this field with [`COMMAND_ACCEPT`]. A web page in a browser
/// on this machine can reach the listener, too, but may not send such a field to another origin.
pub(crate) const COMMAND_FIELD: &str = "X-Graygate-Command";

/// The value of [`COMMAND_FIELD`] that goes with `/lists/accept`.
pub(crate) const COMMAND_ACCEPT: &str = "accept";

/// Where a held change is accepted; `?digest=` names it.
pub(crate) const ACCEPT_PATH: &str = "/lists/accept";

/// The methods that a page knows.
const READING: &str = "GET, HEAD";

/// Limits of a request head. A listener of its own, so they need not be tuned.
const LIMITS: Limits = Limits {
    line: 4 * 1024,
    head: 8 * 1024,
    fields: 64,
};

/// Time for a whole request, and again for its answer.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Requests served at the same time.
const AT_ONCE: usize = 16;

/// Where so many are served, the oldest gives way to a new one, but not before this time: a client
/// that gets on needs far less.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the admin listener looks at.
pub(crate) struct View {
    /// The data plane.
    pub(crate) gateway: Arc<Gateway>,
    /// The lists' way into it.
    pub(crate) publisher: Arc<Publisher>,
    /// By which other machines know this gateway, if there is one.
    pub(crate) heartbeat: Option<Arc<Heartbeat>>,
    /// What the reloads have come to.
    pub(crate) reloads: Arc<Reloads>,
    /// The error log.
    pub(crate) error_log: LogQueue,
    /// What was refused here.
    pub(crate) refused: Refused,
}

/// Counts what was refused, and tells of it.
#[derive(Default)]
pub(crate) struct Refused {
    counts: [AtomicU64; AdminRefusal::ALL.len()],
    throttle: Mutex<Throttle>,
}

impl Refused {
    fn note(&self, why: AdminRefusal, host: &[u8], target: &[u8], from: Option<SocketAddr>) {
        self.counts[why.index()].fetch_add(1, Ordering::Relaxed);
        let throttle = self.throttle.lock();
        let turn = throttle
            .unwrap_or_else(PoisonError::into_inner)
            .turn(Instant::now());
        let Some(untold) = turn else { return };
        let shown = |bytes: &[u8]| {
            let part = &bytes[..bytes.len().min(SHOWN)];
            part.escape_ascii().to_string()
        };
        let (reason, host, target) = (why.name(), shown(host), shown(target));
        let from = from.map_or("-".to_owned(), |it| it.to_string());
        log::warn!(
            "admin-refused reason={reason} host=\"{host}\" target=\"{target}\" from={from} untold={untold}"
        );
    }

    /// How many requests were refused for this.
    pub(super) fn count(&self, why: AdminRefusal) -> u64 {
        self.counts[why.index()].load(Ordering::Relaxed)
    }
}

/// So much of a name or target is told, in bytes.
const SHOWN: usize = 100;

/// Listens on `addr`.
///
/// # Errors
/// The kernel's, with the address.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {addr} ([admin] listen): {error}"),
        )
    })
}

/// Serves `listener` for the life of the process.
///
/// # Errors
/// When its thread cannot be started.
pub(crate) fn serve(listener: TcpListener, view: View) -> io::Result<()> {
    let view = Arc::new(view);
    let (done, slots) = crossbeam_channel::bounded(AT_ONCE);
    for _ in 0..AT_ONCE {
        // There is room for exactly so many.
        let _ = done.send(());
    }
    supervised::spawn("admin", move || {
        let mut served = VecDeque::new();
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => Arc::new(stream),
                Err(error) => {
                    log::error!("admin-accept-failed error={:?}", error.to_string());
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            take_slot(&slots, &mut served);
            served.push_back(Served {
                since: Instant::now(),
                stream: Arc::downgrade(&stream),
            });
            let (view, slot) = (Arc::clone(&view), Slot(done.clone()));
            let serve = move || {
                // The slot is given back last.
                let (_slot, stream) = (slot, stream);
                // Whoever asked has gone.
                let _ = answer(&view, &stream);
            };
            let thread = std::thread::Builder::new().name("admin-request".to_owned());
            if let Err(error) = thread.spawn(serve) {
                log::error!("admin-thread-failed error={:?}", error.to_string());
            }
        }
    })?;
    Ok(())
}

/// A connection for which there may be a thread.
struct Served {
    since: Instant,
    stream: Weak<TcpStream>,
}

/// Waits for the right to serve one more request; ends the oldest connection if none comes free.
fn take_slot(slots: &Receiver<()>, served: &mut VecDeque<Served>) {
    served.retain(|it| it.stream.strong_count() > 0);
    let oldest = served.front();
    let patience = oldest.map_or(PATIENCE, |it| PATIENCE.saturating_sub(it.since.elapsed()));
    if slots.recv_timeout(patience).is_ok() {
        return;
    }
    if let Some(stream) = served.pop_front().and_then(|it| it.stream.upgrade()) {
        // Its thread, which reads or writes, finds the connection closed.
        let _ = stream.shutdown(Shutdown::Both);
    }
    // Never an error: the caller holds a sender.
    let _ = slots.recv();
}

/// The right to serve one request; given back however that ends.
struct Slot(Sender<()>);

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// What is answered.
struct Answer {
    status: u16,
    kind: &'static str,
    /// With 405: the methods that are allowed.
    allow: &'static str,
    body: Body,
}

enum Body {
    Text(String),
    /// One that may be long, and is written piece by piece.
    Lists(Box<lists::Page>),
}

impl Body {
    fn len(&mut self) -> io::Result<u64> {
        match self {
            Self::Text(text) => Ok(text.len() as u64),
            Self::Lists(page) => page.len(),
        }
    }

    fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Text(text) => out.write_all(text.as_bytes()),
            Self::Lists(page) => page.write(out),
        }
    }
}

impl Answer {
    fn text(status: u16, body: impl Into<String>) -> Self {
        let kind = "text/plain; charset=utf-8";
        Self::page(status, kind, body.into())
    }

    fn json(body: String) -> Self {
        Self::page(200, "application/json", body)
    }

    fn page(status: u16, kind: &'static str, body: String) -> Self {
        let allow = READING;
        Self {
            status,
            kind,
            allow,
            body: Body::Text(body),
        }
    }

    fn method_not_allowed(allow: &'static str) -> Self {
        let answer = refused(Refusal::MethodNotAllowed);
        Self { allow, ..answer }
    }
}

fn answer(view: &View, mut stream: &TcpStream) -> io::Result<()> {
    let deadline = Instant::now() + TIME_LIMIT;
    let (mut bytes, mut scanner) = (Vec::new(), Scanner::default());
    let mut head = RequestHead::default();
    let answer = loop {
        match head.parse(&bytes, &mut scanner, &LIMITS) {
            Ok(Parsed::Complete) => {
                let from = stream.peer_addr().ok();
                break route(view, &head, &bytes, from);
            }
            Ok(Parsed::Incomplete) => {}
            Err(refusal) => break refused(refusal),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break refused(Refusal::HeadTimeout);
        }
        stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if is_no_end(&error) => {}
            Err(error) => return Err(error),
        }
    };
    let Answer {
        status,
        kind,
        allow,
        mut body,
    } = answer;
    let allow = match status {
        405 => format!("Allow: {allow}\r\n"),
        _ => String::new(),
    };
    let length = body.len()?;
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        reason_phrase(status),
    );
    let kept = match &body {
        Body::Lists(page) => Some(page.kept()),
        Body::Text(_) => None,
    };
    let timed = Timed {
        stream,
        deadline: Instant::now() + TIME_LIMIT,
        kept,
    };
    let mut out = BufWriter::with_capacity(BUFFER, timed);
    out.write_all(head.as_bytes())?;
    // A head that was refused has not been taken apart.
    if !bytes.starts_with(b"HEAD ") {
        body.write(&mut out)?;
    }
    out.flush()?;
    drop(out);
    stream.shutdown(Shutdown::Write)?;
    drain(stream, deadline)
}

/// Room for what is about to be written, in bytes.
const BUFFER: usize = 16 * 1024;

/// Writes as the stream does, but the time is limited as a whole and not for each piece.
struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
    /// Let go in time, however long the stream takes nothing.
    kept: Option<lists::Kept>,
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let now = Instant::now();
            let left = self.deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let kept_until = self.kept.as_ref().and_then(|it| it.let_go(now));
            let pause = kept_until.map_or(left, |until| left.min(until - now));
            self.stream.set_write_timeout(Some(pause))?;
            match self.stream.write(bytes) {
                Err(error) if is_no_end(&error) => {}
                outcome => return outcome,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether to try again, within the deadline. A signal, a SIGHUP for instance, may have come in this
/// thread; with a time limit, the kernel does not take up a call again then.
fn is_no_end(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock)
}

/// Takes what else was sent, since closing on unread bytes would reset the connection before the
/// answer is read.
fn drain(mut stream: &TcpStream, deadline: Instant) -> io::Result<()> {
    let mut piece = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if is_no_end(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn refused(refusal: Refusal) -> Answer {
    Answer::text(refusal.status(), format!("{}\n", refusal.name()))
}

fn route(view: &View, head: &RequestHead, bytes: &[u8], from: Option<SocketAddr>) -> Answer {
    let target = head.target.of(bytes);
    let host = value(head, bytes, "Host");
    let refuse = |why: AdminRefusal, text: String| {
        let host = host.unwrap_or_default();
        view.refused.note(why, host, target, from);
        Answer::text(403, text)
    };
    let names = &view.gateway.config.load().admin_hosts;
    // Without a Host it is no browser that asks.
    if host.is_some_and(|it| !host::is_own(it, names)) {
        let why = AdminRefusal::ForeignHost;
        return refuse(why, format!("{}: {}\n", why.name(), why.text()));
    }
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    let path = parts.next().unwrap_or(target);
    let method = head.method.of(bytes);
    if path == ACCEPT_PATH.as_bytes() {
        return match method {
            b"POST" if !is_command(head, bytes) => {
                let what = format!("{COMMAND_FIELD}: {COMMAND_ACCEPT}");
                let text = format!("it takes the field {what}, and no Origin\n");
                refuse(AdminRefusal::NoCommand, text)
            }
            b"POST" => accept(view, parts.next().unwrap_or_default()),
            _ => Answer::method_not_allowed("POST"),
        };
    }
    if !matches!(method, b"GET" | b"HEAD") {
        return Answer::method_not_allowed(READING);
    }
    match path {
        b"/healthz" => health(view),
        b"/lists" => match lists::Part::of(parts.next().unwrap_or_default()) {
            Ok(part) => {
                let body = Body::Lists(Box::new(lists::Page::new(view, part)));
                let answer = Answer::json(String::new());
                Answer { body, ..answer }
            }
            Err(what) => Answer::text(400, format!("{what}\n")),
        },
        b"/explain" => explain(view, parts.next().unwrap_or_default()),
        b"/config" => Answer::json(config(view)),
        b"/metrics" => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            Answer::page(200, kind, metrics::render(view))
        }
        _ => Answer::text(
            404,
            "there are /healthz, /lists, /explain, /config and /metrics\n",
        ),
    }
}

/// Who would serve a client: `?ip=ADDRESS`, with `&header=Name:%20value` for each header field.
fn explain(view: &View, query: &[u8]) -> Answer {
    let (mut socket, mut headers) = (None, Vec::new());
    for (key, value) in form_urlencoded::parse(query) {
        match &*key {
            "ip" => socket = value.parse().ok(),
            "header" => headers.push(value.into_owned()),
            name => {
                let example = "/explain?ip=192.0.2.1&header=Name:%20value";
                return Answer::text(400, format!("{}\n", unknown(name, example)));
            }
        }
    }
    let Some(socket) = socket else {
        return Answer::text(400, "an address is wanted: /explain?ip=192.0.2.1\n");
    };
    let config = view.gateway.config.load();
    let rules = Rules {
        trusted_proxies: &config.gateway.trusted_proxies,
        fallback: config.upstream.fallback,
    };
    let question = Question {
        socket,
        headers: &headers,
    };
    match explain::explain(&question, &rules, &view.publisher.lists()) {
        Ok(explanation) => Answer::json(format!("{explanation:#}\n")),
        Err(error) => Answer::text(400, format!("{error}\n")),
    }
}

/// What is said of a part of a query that the page does not know; `example` has all that it knows.
pub(super) fn unknown(name: &str, example: &str) -> String {
    let shown: String = name.chars().take(SHOWN).collect();
    format!("{shown:?} is unknown in the query; as an example: {example}")
}

/// The first value of a field.
fn value<'a>(head: &RequestHead, bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut fields = head.fields.iter();
    let field = fields.find(|it| it.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()));
    field.map(|it| it.value.of(bytes))
}

/// Whether this is no request that a web page can send: a browser adds the origin of the page to
/// whatever that may send.
fn is_command(head: &RequestHead, bytes: &[u8]) -> bool {
    let from_page = value(head, bytes, "Origin").is_some();
    !from_page && value(head, bytes, COMMAND_FIELD) == Some(COMMAND_ACCEPT.as_bytes())
}

/// Lets the held change in that the query names.
fn accept(view: &View, query: &[u8]) -> Answer {
    let digest = query.strip_prefix(b"digest=");
    let digest = digest.and_then(|it| std::str::from_utf8(it).ok());
    let Some(digest) = digest.filter(|it| is_digest(it)) else {
        return Answer::text(400, "it takes ?digest= with 16 hexadecimal digits\n");
    };
    match view.publisher.accept(digest, By::Command) {
        Ok(accepted) => {
            let (list, generation) = (accepted.list.name(), accepted.generation);
            let text = format!("accepted list={list} digest={digest} generation={generation}\n");
            Answer::text(200, text)
        }
        Err(held) => Answer::text(409, format!("{}\n", no_such_change(digest, &held))),
    }
}

/// Whether `text` has the form of a digest, as it is displayed.
fn is_digest(text: &str) -> bool {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 16 && text.bytes().all(digit)
}

fn no_such_change(digest: &str, held: &[Held]) -> String {
    let shown = |it: &Held| {
        let (list, reason) = (it.list.name(), it.reason.name());
        format!("{} (list={list} reason={reason})", it.digest)
    };
    let held: Vec<String> = held.iter().map(shown).collect();
    match held.as_slice() {
        [] => format!("{digest} is not held; nothing is"),
        held => format!(
            "{digest} is not held, or does not stand at present; held: {}",
            held.join(", ")
        ),
    }
}

/// Whether requests can be served: 200, or 503 with the reason.
fn health(view: &View) -> Answer {
    let lists = view.publisher.lists();
    let reason = if view.gateway.is_draining() {
        "draining: the gateway is shutting down".to_owned()
    } else if !lists.are_read() {
        let error = view.publisher.status().error;
        let why = error.unwrap_or_else(|| "not yet".to_owned());
        format!(
            "{}: no lists have been read: {why}",
            Refusal::NoLists.name()
        )
    } else if lists.prod.is_empty() {
        format!("{}: prod is empty", Refusal::NoPeers.name())
    } else {
        return Answer::text(200, format!("ok generation={}\n", lists.generation));
    };
    Answer::text(503, format!("{reason}\n"))
}

/// How many there are of each kind, and the first of them.
pub(super) fn findings(
    findings: &Findings,
    of_store: &[StoreFinding],
    doubted: Option<&Doubted>,
) -> serde_json::Value {
    let of_lists = Kind::ALL.map(|kind| (kind.name(), findings.count(kind)));
    let counts = Finding::ALL.iter().map(|kind| {
        let of_kind = of_store.iter().filter(|it| it.finding == *kind);
        let is_of_proxy = *kind == Finding::ProxyNotBelieved && doubted.is_some();
        (kind.name(), of_kind.count() + usize::from(is_of_proxy))
    });
    let counts = counts.filter(|(_, count)| *count > 0).chain(of_lists);
    // What concerns all lists comes first.
    let store = of_store.iter().map(|it| {
        json!({
            "finding": it.finding.name(),
            "list": Value::Null,
            "entry": it.server,
            "text": it.told(),
        })
    });
    let proxies = doubted.map(|it| {
        json!({
            "finding": Finding::ProxyNotBelieved.name(),
            "list": Value::Null,
            "entry": it.proxy.to_string(),
            "text": it.told(Instant::now()),
        })
    });
    let lists = findings.first.iter().map(|it| {
        json!({
            "finding": it.kind.name(),
            "list": it.list.name(),
            "entry": it.entry,
            "text": it.text,
        })
    });
    json!({
        "count": counts.collect::<BTreeMap<_, _>>(),
        "first": store.chain(proxies).chain(lists).collect::<Vec<_>>(),
    })
}

pub(super) fn held(held: &Held) -> Value {
    let named = |it: &Named| json!({ "count": it.count, "first": it.first });
    json!({
        "list": held.list.name(),
        "reason": held.reason.name(),
        "digest": held.digest.to_string(),
        "since": rfc3339(held.since),
        "entries": held.entries,
        "gone": named(&held.gone),
        "new": named(&held.new),
    })
}

pub(super) fn heartbeat(heartbeat: &Heartbeat) -> Value {
    let tally = heartbeat.tally();
    json!({
        "node": heartbeat.node(),
        "written": tally.written,
        "refused": tally.refused,
        "failed": tally.failed,
        "error": tally.error,
    })
}

pub(super) fn copy(copy: &copy::View, in_force: bool) -> Value {
    json!({
        "path": copy.path.to_string_lossy(),
        "written": copy.written.map(rfc3339),
        "age_seconds": age_of(copy),
        "in_force": in_force,
        "error": copy.error,
        "failures": copy.failures,
        "store": copy.store,
        "other": copy.other.as_ref().map(|(store, path)| json!({
            "store": store,
            "path": path.to_string_lossy(),
        })),
    })
}

/// How old the copy is; 0 when it is from the future, since a clock was set.
pub(super) fn age_of(copy: &copy::View) -> Option<f64> {
    let age = |written| SystemTime::now().duration_since(written);
    let age = copy.written.map(|it| age(it).unwrap_or_default());
    age.map(|it| it.as_secs_f64())
}

/// True while nothing has been read since the start.
pub(super) fn copy_is_in_force(lists: &Lists, status: &Status) -> bool {
    lists.are_read() && status.checked.is_none()
}

/// The ini file, and what has come of reading it again. Values are not shown: some are secret.
fn config(view: &View) -> String {
    let config = view.gateway.config.load();
    let reloads = view.reloads.tally();
    let page = json!({
        "file": config.path.to_string_lossy(),
        "pid": std::process::id(),
        "reloads": {
            "ok": reloads.ok,
            "failed": reloads.failed,
            "under_way": reloads.under_way,
        },
        "error": reloads.error,
        "ignored": reloads.ignored,
        "masked": config.masked,
        "max_connections": config.gateway.max_connections,
    });
    format!("{page:#}\n")
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Published;

    #[test]
    fn a_client_that_takes_nothing_does_not_keep_lists_that_were_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let in_force = Arc::new(Published::new(Lists::unread()));
        let until = Instant::now() + Duration::from_millis(50);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut timed = Timed {
                    stream: &stream,
                    deadline: Instant::now() + Duration::from_secs(3600),
                    kept: Some(lists::Kept::new(&in_force, in_force.load(), until)),
                };
                in_force.store(Lists::unread());
                while timed.write(&[0; 4096]).is_ok() {}
            });
            while Instant::now() < until || in_force.kept() > 1 {
                assert!(until.elapsed() < Duration::from_secs(10), "still kept");
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(!writer.is_finished());
            // With what it has not read: the writer meets a reset.
            drop(client);
        });
    }
}
