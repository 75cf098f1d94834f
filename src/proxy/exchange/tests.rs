//! The exchange, without the session and the socket of a client: what is asked and what comes of it are
//! values. The peers are real ones, on sockets.

mod memory;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::*;
use crate::config::LogTarget;
use crate::http::h1::encode;
use crate::http::h1::head::{Parsed, Scanner};
use crate::lists::{ByList, Lists};
use crate::logs::writer::Log;
use crate::metrics::Metrics;
use crate::proxy::doubts::Doubts;
use crate::proxy::gateway::Gateway;
use crate::proxy::http1::Http1;
use crate::snapshot::Published;
use crate::upstream::in_force::InForce;
use memory::Event::{End, Head, Interim, Piece};
use memory::{Event, Events, InMemory, Sends, let_others_run};

/// What must happen has happened by then.
const DEADLINE: Duration = Duration::from_secs(20);

const INI: &str = "
[gateway]
listen = 127.0.0.1:0
[lists]
file = lists
";

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What a test has a client do while its exchange goes on.
type Meanwhile = Box<dyn FnOnce(&Sends, &Events) + Send>;

/// What is asked, and by whom.
struct Asked {
    /// As the client's and as the peer's, in one.
    head: &'static str,
    /// What the client sends behind it, from the start.
    body: &'static str,
    meanwhile: Option<Meanwhile>,
    /// What a piece of the response meets with at the client.
    piece_fails: Option<ErrorKind>,
    /// The client gets HTTP/1, on a transport that is no socket.
    http1: bool,
}

fn asked(head: &'static str) -> Asked {
    Asked {
        head,
        body: "",
        meanwhile: None,
        piece_fails: None,
        http1: false,
    }
}

/// What has come of it.
#[derive(Debug)]
struct Came {
    outcome: String,
    events: Vec<Event>,
    /// What came to the client as it is, through a tunnel or as HTTP/1.
    written: Vec<Event>,
    attempts: u32,
    /// Bytes of the client's body, as the access log has them.
    received: u64,
}

/// Servers that all follow one script, which is told how many connections there were before.
struct Peers {
    addrs: Vec<String>,
}

impl Peers {
    fn start(count: usize, script: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let (script, connections) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
        let addrs = (0..count).map(|_| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let (script, connections) = (Arc::clone(&script), Arc::clone(&connections));
            // It ends with the process.
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    stream.set_read_timeout(Some(DEADLINE)).unwrap();
                    script(connections.fetch_add(1, Ordering::SeqCst), &mut stream);
                }
            });
            addr.to_string()
        });
        Self {
            addrs: addrs.collect(),
        }
    }

    /// One that says this, and ends the connection.
    fn saying(answer: &'static str) -> Self {
        Self::start(1, move |_, stream| {
            read_head(stream);
            stream.write_all(answer.as_bytes()).unwrap();
        })
    }

    /// Has `prod` serve a request.
    #[track_caller]
    fn serve(self, asked: Asked) -> Came {
        net::start(1).unwrap();
        let config = Config::parse(Path::new("/test.ini"), INI, None).unwrap();
        let access_log = Log::open("access", &LogTarget::Off, |_| unreachable!()).unwrap();
        let entries = ByList {
            prod: self.addrs,
            ..ByList::default()
        };
        let in_force = Arc::new(InForce::new(1));
        in_force.set_services(&config.services);
        in_force.store(Lists::parse(1, entries, 80));
        let gateway = Arc::new(Gateway {
            config: Arc::new(Published::new(config)),
            lists: in_force,
            metrics: Metrics::new(1),
            access_log: access_log.queue(),
            listening: ArcSwap::default(),
            doubts: Doubts::default(),
            draining: AtomicBool::new(false),
            elsewhere: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            heir: crate::proxy::moved::Heir::default(),
            accepting: AtomicUsize::new(0),
            connections: vec![AtomicUsize::new(0)],
        });
        let (done, came) = mpsc::channel();
        net::spawn(0, move || done.send(serve_here(&gateway, asked)).unwrap()).unwrap();
        came.recv_timeout(DEADLINE).unwrap()
    }
}

/// Serves one request on the calling worker, as a session would.
fn serve_here(gateway: &Arc<Gateway>, asked: Asked) -> Came {
    let worker = Rc::new(Worker::new(Arc::clone(gateway)));
    let config = worker.config.snapshot();
    let mut workspace = Workspace::default();
    let bytes = asked.head.as_bytes();
    let (head, limits) = (&mut workspace.request, &config.gateway.limits);
    let parsed = head.parse(bytes, &mut Scanner::default(), limits);
    assert_eq!(parsed, Ok(Parsed::Complete));
    let options = &mut workspace.request_options;
    let plan = Plan::of(head, bytes, options, &config.gateway, false);
    let plan = plan.ok().unwrap();
    workspace.to_peer.extend_from_slice(bytes);
    if plan.upgrade {
        encode::protocols_asked(&mut workspace.asked, &workspace.request.fields, bytes);
    }
    let mut tally = Tally::new(Instant::now(), [127, 0, 0, 1].into());
    tally.pool = Some(PoolName::Prod);

    let (sends, mut downstream) = (Sends::default(), InMemory::new(asked.piece_fails));
    if !asked.body.is_empty() {
        sends.send(asked.body);
    }
    let meanwhile = asked.meanwhile.map(|act| {
        let (sends, events) = (sends.clone(), downstream.events.clone());
        net::spawn_beside(move || act(&sends, &events)).unwrap()
    });
    let (mut pending, request) = (Vec::new(), (&worker, &*config, &plan));
    let outcome = match asked.http1 {
        true => {
            let mut http1 = Http1::new(&sends, plan.version, &mut pending);
            run(request, &mut http1, &sends, &mut workspace, &mut tally)
        }
        false => run(request, &mut downstream, &sends, &mut workspace, &mut tally),
    };
    let outcome = match outcome {
        Outcome::KeepAlive => "keep-alive".to_owned(),
        Outcome::Close(close) => format!("close {}", close.name()),
        Outcome::Abort(close) => format!("abort {}", close.name()),
        Outcome::Refused(refusal) => format!("refused {}", refusal.name()),
        Outcome::Failed(failure) => format!("failed {}", failure.name()),
    };
    if let Some(meanwhile) = meanwhile {
        meanwhile.join().unwrap();
    }
    Came {
        outcome,
        events: downstream.events.all(),
        written: sends.written(),
        attempts: tally.attempts,
        received: tally.received,
    }
}

fn run<D: Downstream>(
    (worker, config, plan): (&Rc<Worker>, &Config, &Plan),
    downstream: &mut D,
    transport: &D::Transport,
    workspace: &mut Workspace,
    tally: &mut Tally,
) -> Outcome {
    let listen = config.gateway.listen[0];
    let client = Requester {
        downstream,
        transport,
        buffer: &mut Buffer::new(),
        body: &mut RequestBody::new(plan.framing, config),
        connection: 0,
        listening: &Listening::new(listen, listen.addr),
        pinned: &mut None,
    };
    let serving = worker.serving.snapshot();
    let candidates = worker.chooser.candidates(&serving, 0, Instant::now());
    let pools = Rc::clone(candidates.pools());
    let asking = (pools.rules(), candidates);
    Exchange::new(worker, config, asking, plan, client, workspace, tally).run(PoolName::Prod)
}

/// Reads what ends with this.
fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0].into());
    }
    text
}

fn read_head(stream: &mut TcpStream) -> String {
    read_to(stream, "\r\n\r\n")
}

fn head(status: u16, fields: &[&str]) -> Event {
    Head(status, fields.iter().map(ToString::to_string).collect())
}

fn piece(content: &str) -> Event {
    Piece(content.to_owned())
}

fn end() -> Event {
    End(Vec::new())
}

#[test]
fn an_answer_is_a_head_its_pieces_and_an_end_however_its_peer_frames_it() {
    // What the peer says, what the client gets.
    let table: [(&str, &str, &[Event]); 6] = [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "keep-alive",
            &[head(200, &["Content-Length: 5"]), piece("hello"), end()],
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n",
            "keep-alive",
            &[
                head(200, &[]),
                piece("hello"),
                End(vec!["X-Sum: 1".to_owned()]),
            ],
        ),
        (
            "HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nhello",
            "keep-alive",
            &[head(200, &["X-A: b"]), piece("hello"), end()],
        ),
        (
            "HTTP/1.1 204 No Content\r\n\r\n",
            "keep-alive",
            &[head(204, &[]), end()],
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n",
            "keep-alive",
            &[Interim(103), head(304, &[]), end()],
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
            "close response-cut",
            &[head(200, &["Content-Length: 5"]), piece("hel")],
        ),
    ];
    for (answer, outcome, events) in table {
        let came = Peers::saying(answer).serve(asked(GET));
        assert_eq!(came.outcome, outcome, "{answer}");
        assert_eq!(came.events, events, "{answer}");
        assert_eq!(came.attempts, 1, "{answer}");
    }
}

/// As it would be on a connection that is encrypted: nothing is spliced.
#[test]
fn http1_is_written_to_any_stream_of_bytes() {
    let long = "x".repeat(200_000);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n{long}");
    let chunked = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
    for answer in [answer, chunked.to_owned()] {
        let said = answer.clone();
        let peers = Peers::start(1, move |_, stream| {
            read_head(stream);
            stream.write_all(said.as_bytes()).unwrap();
        });
        let came = peers.serve(Asked {
            http1: true,
            ..asked(GET)
        });
        assert_eq!(came.outcome, "keep-alive");
        assert_eq!(came.written, [piece(&answer)]);
    }
}

#[test]
fn the_answer_to_a_head_has_no_piece() {
    let peers = Peers::saying("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    let came = peers.serve(asked("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(came.outcome, "keep-alive");
    assert_eq!(came.events, [head(200, &["Content-Length: 5"]), end()]);
}

#[test]
fn where_a_peer_says_nothing_the_next_one_is_asked() {
    let peers = Peers::start(2, |before, stream| {
        read_head(stream);
        if before > 0 {
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .unwrap();
        }
    });
    let came = peers.serve(asked(GET));
    assert_eq!(came.outcome, "keep-alive");
    assert_eq!(came.events, [head(204, &[]), end()]);
    assert_eq!(came.attempts, 2);
}

#[test]
fn where_none_answers_nothing_is_passed_on() {
    let peers = Peers::start(2, |_, stream| drop(read_head(stream)));
    let came = peers.serve(asked(GET));
    assert_eq!(came.outcome, "failed closed-early");
    assert_eq!(came.events, []);
}

#[test]
fn an_answer_that_is_bad_before_anything_of_it_was_passed_on_is_none() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let peers = Peers::start(1, move |_, stream| {
        read_head(stream);
        let answer = format!("{chunked}nonsense\r\n");
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let came = peers.serve(asked(GET));
    assert_eq!(came.outcome, "failed bad-response-chunk");
    assert_eq!(came.events, []);
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_body_is_what_the_client_sends() {
    let (said, told) = mpsc::channel();
    let peers = Peers::start(1, move |_, stream| {
        read_head(stream);
        said.send(read_to(stream, "0\r\n\r\n")).unwrap();
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap();
    });
    let came = peers.serve(Asked {
        body: "3\r\nhel\r\n",
        meanwhile: Some(Box::new(|sends, _| {
            let_others_run();
            sends.send("2\r\nlo\r\n0\r\n\r\n");
        })),
        ..asked(POST)
    });
    assert_eq!(came.outcome, "keep-alive");
    assert_eq!(came.events, [head(204, &[]), end()]);
    assert_eq!(
        came.received,
        "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n".len() as u64
    );
    assert_eq!(told.recv().unwrap(), "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
}

#[test]
fn a_body_goes_on_by_a_second_handle_when_the_answer_has_begun() {
    let (said, told) = mpsc::channel();
    let peers = Peers::start(1, move |_, stream| {
        read_head(stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            .unwrap();
        said.send(read_to(stream, "0\r\n\r\n")).unwrap();
        stream.write_all(b"ok").unwrap();
    });
    let came = peers.serve(Asked {
        meanwhile: Some(Box::new(|sends, events| {
            while !events.has_head() {
                let_others_run();
            }
            sends.send("5\r\nhello\r\n0\r\n\r\n");
        })),
        ..asked(POST)
    });
    assert_eq!(came.outcome, "keep-alive");
    let expected = [head(200, &["Content-Length: 2"]), piece("ok"), end()];
    assert_eq!(came.events, expected);
    assert_eq!(told.recv().unwrap(), "5\r\nhello\r\n0\r\n\r\n");
}

#[test]
fn a_body_that_is_malformed_is_refused() {
    let peers = Peers::start(1, |_, stream| drop(stream.read_to_end(&mut Vec::new())));
    let came = peers.serve(Asked {
        body: "nonsense\r\n",
        ..asked(POST)
    });
    assert_eq!(came.outcome, "refused bad-chunk");
    assert_eq!(came.events, []);
}

#[test]
fn a_body_whose_client_goes_inside_it_is_cut() {
    let (said, told) = mpsc::channel();
    let peers = Peers::start(1, move |_, stream| {
        read_head(stream);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        said.send(text).unwrap();
    });
    let came = peers.serve(Asked {
        body: "3\r\nhel\r\n9\r\nlo",
        meanwhile: Some(Box::new(|sends, _| {
            while !sends.are_read() {
                let_others_run();
            }
            sends.go();
        })),
        ..asked(POST)
    });
    assert_eq!(came.outcome, "close body-cut");
    assert_eq!(came.events, []);
    let sent = told.recv_timeout(DEADLINE).unwrap();
    assert!(!sent.ends_with("0\r\n\r\n"), "{sent:?}");
}

#[test]
fn an_exchange_ends_when_its_client_goes_while_the_peer_is_silent() {
    let (said, told) = mpsc::channel();
    let asks = Arc::new(AtomicBool::new(false));
    let is_asked = Arc::clone(&asks);
    let peers = Peers::start(1, move |_, stream| {
        read_head(stream);
        is_asked.store(true, Ordering::SeqCst);
        said.send(stream.read(&mut [0]).unwrap()).unwrap();
    });
    let came = peers.serve(Asked {
        meanwhile: Some(Box::new(move |sends, _| {
            while !asks.load(Ordering::SeqCst) {
                let_others_run();
            }
            sends.go();
        })),
        ..asked(GET)
    });
    assert_eq!(came.outcome, "close client-gone");
    assert_eq!(came.events, []);
    assert_eq!(told.recv_timeout(DEADLINE), Ok(0), "its connection ends");
}

#[test]
fn a_client_that_takes_no_piece_ends_the_exchange() {
    for (kind, outcome) in [
        (ErrorKind::BrokenPipe, "close client-gone"),
        (ErrorKind::TimedOut, "abort send-timeout"),
    ] {
        let peers = Peers::saying("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let came = peers.serve(Asked {
            piece_fails: Some(kind),
            ..asked(GET)
        });
        assert_eq!(came.outcome, outcome);
        assert_eq!(came.events, []);
    }
}

#[test]
fn a_tunnel_carries_bytes_both_ways() {
    let peers = Peers::start(1, |_, stream| {
        read_head(stream);
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        stream.write_all(text.to_uppercase().as_bytes()).unwrap();
    });
    let came = peers.serve(Asked {
        meanwhile: Some(Box::new(|sends, events| {
            while !events.has_head() {
                let_others_run();
            }
            sends.send("hello");
            sends.end();
        })),
        ..asked("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    });
    assert_eq!(came.outcome, "close tunnel-ended");
    assert_eq!(came.events, [head(101, &["Upgrade: x"])]);
    assert_eq!(came.written, [piece("HELLO"), end()]);
    assert_eq!(came.received, 5);
}
