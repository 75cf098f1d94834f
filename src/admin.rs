//! The admin listener: `/healthz`, `/lists`, `/config` and `/metrics`, for operators and their tools.
//!
//! Plain threads, off the request path. Heads are read by the project's own HTTP code under its
//! own limits, each connection serves one request, and when there are too many at a time the oldest
//! gives way, so that nobody can keep the others waiting.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use serde_json::json;

use crate::config::Reloads;
use crate::error::{Refusal, reason_phrase};
use crate::explain::{self, Question, Rules};
use crate::http::head::{Limits, Parsed, RequestHead, Scanner};
use crate::lists::ListName;
use crate::lists::lint::{Findings, Kind};
use crate::logging::LogQueue;
use crate::proxy::Gateway;
use crate::store::Publisher;

mod exposition;

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
pub struct View {
    /// The data plane.
    pub gateway: Arc<Gateway>,
    /// The lists' way into it.
    pub publisher: Arc<Publisher>,
    /// What the reloads have come to.
    pub reloads: Arc<Reloads>,
    /// The error log.
    pub error_log: LogQueue,
}

/// Listens on `addr`.
///
/// # Errors
/// The kernel's, with the address.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
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
pub fn serve(listener: TcpListener, view: View) -> io::Result<()> {
    let view = Arc::new(view);
    let (done, slots) = crossbeam_channel::bounded(AT_ONCE);
    for _ in 0..AT_ONCE {
        // There is room for exactly so many.
        let _ = done.send(());
    }
    let thread = std::thread::Builder::new().name("admin".to_owned());
    thread.spawn(move || {
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
    body: String,
}

impl Answer {
    fn text(status: u16, body: impl Into<String>) -> Self {
        let kind = "text/plain; charset=utf-8";
        let body = body.into();
        Self { status, kind, body }
    }
}

fn answer(view: &View, mut stream: &TcpStream) -> io::Result<()> {
    let deadline = Instant::now() + TIME_LIMIT;
    let (mut bytes, mut scanner) = (Vec::new(), Scanner::default());
    let mut head = RequestHead::default();
    let answer = loop {
        match head.parse(&bytes, &mut scanner, &LIMITS) {
            Ok(Parsed::Complete) => {
                break route(view, head.method.of(&bytes), head.target.of(&bytes));
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
    let Answer { status, kind, body } = answer;
    let allow = if status == 405 {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let mut response = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        reason_phrase(status),
        body.len()
    );
    // A head that was refused has not been taken apart.
    if !bytes.starts_with(b"HEAD ") {
        response.push_str(&body);
    }
    write_all(stream, response.as_bytes(), Instant::now() + TIME_LIMIT)?;
    stream.shutdown(Shutdown::Write)?;
    drain(stream, deadline)
}

/// As the stream's own, but the time is limited as a whole and not for each piece.
fn write_all(mut stream: &TcpStream, bytes: &[u8], deadline: Instant) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if is_no_end(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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

fn route(view: &View, method: &[u8], target: &[u8]) -> Answer {
    if !matches!(method, b"GET" | b"HEAD") {
        return refused(Refusal::MethodNotAllowed);
    }
    let path = target.split(|byte| *byte == b'?').next().unwrap_or(target);
    match path {
        b"/healthz" => health(view),
        b"/lists" => Answer {
            status: 200,
            kind: "application/json",
            body: lists(&view.publisher),
        },
        b"/explain" => explain(view, target),
        b"/config" => Answer {
            status: 200,
            kind: "application/json",
            body: config(view),
        },
        b"/metrics" => Answer {
            status: 200,
            kind: "text/plain; version=0.0.4; charset=utf-8",
            body: exposition::render(view),
        },
        _ => Answer::text(
            404,
            "there are /healthz, /lists, /explain, /config and /metrics\n",
        ),
    }
}

/// Who would serve a client: `?ip=ADDRESS`, with `&header=Name:%20value` for each header field.
fn explain(view: &View, target: &[u8]) -> Answer {
    let query = target.splitn(2, |byte| *byte == b'?').nth(1);
    let (mut socket, mut headers) = (None, Vec::new());
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default()) {
        match &*key {
            "ip" => socket = value.parse().ok(),
            "header" => headers.push(value.into_owned()),
            _ => {}
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
        Ok(explanation) => Answer {
            status: 200,
            kind: "application/json",
            body: format!("{explanation:#}\n"),
        },
        Err(error) => Answer::text(400, format!("{error}\n")),
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

fn lists(publisher: &Publisher) -> String {
    let (lists, status) = (publisher.lists(), publisher.status());
    let peers = |list: &crate::lists::PeerList| {
        let peers = list.peers().iter().map(ToString::to_string);
        peers.collect::<Vec<_>>()
    };
    let skipped = |list: ListName| {
        let skipped = lists.skipped(list);
        let first = skipped.first.iter();
        let first = first.map(|it| json!({ "entry": it.entry, "reason": it.reason }));
        json!({ "count": skipped.count, "first": first.collect::<Vec<_>>() })
    };
    let faults = status.faults.iter();
    let faults = faults.map(|(list, fault)| json!({ "list": list.name(), "fault": fault.name() }));
    let page = json!({
        "generation": lists.generation,
        "digest": lists.digest.to_string(),
        "source": status.source,
        "mode": status.mode.name(),
        "missed_events": status.missed_events,
        "error": status.error,
        "age_seconds": status.checked.map(|at| at.elapsed().as_secs_f64()),
        "changed_at": status.changed.map(rfc3339),
        "gray": lists.gray.entries().collect::<Vec<_>>(),
        "pre": peers(&lists.pre),
        "prod": peers(&lists.prod),
        "skipped": {
            "gray": skipped(ListName::Gray),
            "pre": skipped(ListName::Pre),
            "prod": skipped(ListName::Prod),
        },
        "kept": faults.collect::<Vec<_>>(),
        "findings": findings(&publisher.findings(&lists)),
    });
    format!("{page:#}\n")
}

/// How many there are of each kind, and the first of them.
fn findings(findings: &Findings) -> serde_json::Value {
    let counts = Kind::ALL.map(|kind| (kind.name(), findings.count(kind)));
    let first = findings.first.iter().map(|it| {
        json!({
            "finding": it.kind.name(),
            "list": it.list.name(),
            "entry": it.entry,
            "text": it.text,
        })
    });
    json!({
        "count": std::collections::BTreeMap::from(counts),
        "first": first.collect::<Vec<_>>(),
    })
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
        "max_connections": config.gateway.max_connections,
    });
    format!("{page:#}\n")
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
