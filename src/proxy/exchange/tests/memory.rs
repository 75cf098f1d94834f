//! A client in memory, without a socket: what it has got is a list of events, and what it sends is said by
//! the test.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::fields::{ConnectionOptions, Field, FieldKind};
use crate::http::h1::encode::ResponseToClient;
use crate::http::h1::framing::Framing;
use crate::http::h1::head::ResponseHead;
use crate::net::{self, Grip, Patience, Stream, Wake, Watch};
use crate::proxy::downstream::{
    BodyEnd, BodySink, ByteStream, Downstream, Transport, Wait, WriteOutcome,
};

/// What a client has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Interim(u16),
    /// The status and those fields that mean something to a client, whatever its protocol.
    Head(u16, Vec<String>),
    /// Pieces in a row are one.
    Piece(String),
    /// The trailer's fields.
    End(Vec<String>),
}

/// The events so far.
#[derive(Clone, Default)]
pub(super) struct Events(Rc<RefCell<Vec<Event>>>);

impl Events {
    pub(super) fn all(&self) -> Vec<Event> {
        self.0.borrow().clone()
    }

    pub(super) fn has_head(&self) -> bool {
        let is_head = |it: &Event| matches!(it, Event::Head(..));
        self.0.borrow().iter().any(is_head)
    }

    fn add(&self, event: Event) {
        self.0.borrow_mut().push(event);
    }

    fn add_piece(&self, content: &[u8]) {
        let content = String::from_utf8_lossy(content);
        let mut events = self.0.borrow_mut();
        match events.last_mut() {
            _ if content.is_empty() => {}
            Some(Event::Piece(before)) => before.push_str(&content),
            _ => events.push(Event::Piece(content.into_owned())),
        }
    }
}

/// A client that takes a response.
pub(super) struct InMemory {
    pub(super) events: Events,
    /// What a piece meets with, if not with success.
    pub(super) piece_fails: Option<io::ErrorKind>,
    /// It goes with what follows.
    head: Option<Event>,
    has_ended: bool,
}

impl InMemory {
    pub(super) fn new(piece_fails: Option<io::ErrorKind>) -> Self {
        Self {
            events: Events::default(),
            piece_fails,
            head: None,
            has_ended: false,
        }
    }

    /// Writes what has waited; how many bytes that takes.
    fn write_head(&mut self) -> usize {
        let head = self.head.take();
        let bytes = usize::from(head.is_some());
        self.events.0.borrow_mut().extend(head);
        bytes
    }
}

fn lines(fields: &[Field], bytes: &[u8]) -> Vec<String> {
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    let line = |it: &Field| format!("{}: {}", text(it.name.of(bytes)), text(it.value.of(bytes)));
    let is_framing = |kind| matches!(kind, FieldKind::Connection | FieldKind::TransferEncoding);
    let shown = fields.iter().filter(|it| !is_framing(it.kind));
    shown.map(line).collect()
}

impl Downstream for InMemory {
    type Transport = Sends;

    fn framing(&self, of_peer: Framing) -> Framing {
        match of_peer {
            // An event of its own tells where the body ends.
            Framing::UntilClose => Framing::Chunked,
            framing => framing,
        }
    }

    fn interim(
        &mut self,
        head: &ResponseHead,
        _: &[u8],
        _: &ConnectionOptions,
        _: &Patience,
    ) -> io::Result<usize> {
        self.events.add(Event::Interim(head.status));
        Ok(1)
    }

    fn head(&mut self, response: &ResponseToClient<'_>) -> usize {
        let fields = lines(&response.head.fields, response.bytes);
        self.head = Some(Event::Head(response.head.status, fields));
        1
    }
}

impl BodySink for InMemory {
    fn piece(&mut self, content: &[u8], _: Wait<'_>) -> WriteOutcome {
        if let Some(kind) = self.piece_fails {
            return (0, Err(kind.into()));
        }
        let bytes = self.write_head() + content.len();
        self.events.add_piece(content);
        (bytes, Ok(true))
    }

    fn end(&mut self, end: BodyEnd<'_>, _: Wait<'_>) -> WriteOutcome {
        let bytes = self.write_head();
        if !std::mem::replace(&mut self.has_ended, true) {
            let trailer = lines(end.trailer.fields(), end.bytes);
            self.events.add(Event::End(trailer));
        }
        (bytes, Ok(true))
    }

    fn flush(&mut self, _: Wait<'_>) -> WriteOutcome {
        (self.write_head(), Ok(true))
    }

    fn socket(&self) -> Option<&Stream> {
        None
    }
}

/// What a client sends. A clone is a second handle of it.
#[derive(Clone, Default)]
pub(super) struct Sends(Rc<State>);

#[derive(Default)]
struct State {
    bytes: RefCell<VecDeque<u8>>,
    /// There are bytes, or there will be no more.
    readable: Rc<Cell<bool>>,
    /// There will be no more.
    ended: Rc<Cell<bool>>,
    /// The client is away.
    gone: Rc<Cell<bool>>,
    /// What was written to it as it is: what came through a tunnel, and HTTP/1.
    written: Events,
}

impl Sends {
    pub(super) fn send(&self, bytes: &str) {
        self.0.bytes.borrow_mut().extend(bytes.as_bytes());
        self.0.readable.set(true);
    }

    /// All that it has sent was read.
    pub(super) fn are_read(&self) -> bool {
        self.0.bytes.borrow().is_empty()
    }

    /// It sends nothing more.
    pub(super) fn end(&self) {
        self.0.ended.set(true);
        self.0.readable.set(true);
    }

    /// It is away.
    pub(super) fn go(&self) {
        self.0.gone.set(true);
        self.end();
    }

    /// What was written to it as it is: what came through a tunnel, and HTTP/1.
    pub(super) fn written(&self) -> Vec<Event> {
        self.0.written.all()
    }
}

/// Lets everybody else run for a moment.
pub(super) fn let_others_run() {
    thread::sleep(Duration::from_millis(1));
    net::yield_turn();
}

impl Transport for Sends {
    fn watch_gone(&self) -> Watch<'_> {
        Watch::Flag(&self.0.gone)
    }

    fn watch_reset(&self) -> Watch<'_> {
        Watch::Flag(&self.0.gone)
    }

    fn watch_ended(&self) -> Watch<'_> {
        Watch::Flag(&self.0.ended)
    }

    fn watch_readable(&self) -> Watch<'_> {
        Watch::Flag(&self.0.readable)
    }

    fn is_gone(&self) -> bool {
        self.0.gone.get()
    }

    fn wait_readable(&self, deadline: Instant, watch: Watch<'_>) -> Wake {
        loop {
            match () {
                () if watch.has_happened() => return Wake::Watched,
                () if self.0.readable.get() => return Wake::Ready,
                () if deadline <= Instant::now() => return Wake::Overdue,
                () => let_others_run(),
            }
        }
    }

    fn wait_in_tunnel(&self, deadline: Instant, watch: Watch<'_>) -> Wake {
        self.wait_readable(deadline, watch)
    }

    fn grip(&self) -> Option<Grip> {
        None
    }

    fn read_now(&self, into: &mut [u8]) -> io::Result<usize> {
        let State {
            bytes,
            readable,
            ended,
            gone,
            ..
        } = &*self.0;
        if gone.get() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if !readable.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = io::Read::read(&mut *bytes.borrow_mut(), into)?;
        readable.set(ended.get() || !bytes.borrow().is_empty());
        Ok(count)
    }

    fn socket(&self) -> Option<&Stream> {
        None
    }

    fn twin(&self) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn shutdown_read(&self) {
        self.end();
    }

    fn abort(&self) {}

    fn cancel_abort(&self) {}

    fn write_all_unless(&self, bytes: &[u8], _: &Patience, watch: Watch<'_>) -> io::Result<()> {
        if watch.has_happened() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.0.written.add_piece(bytes);
        Ok(())
    }

    fn unsent(&self) -> usize {
        0
    }

    fn shutdown_write(&self) {
        self.0.written.add(Event::End(Vec::new()));
    }

    fn reset(&self) {
        self.go();
    }
}

impl ByteStream for Sends {
    fn write_both(&self, head: &[u8], body: &[u8], _: Wait<'_>) -> (usize, io::Result<()>) {
        self.0.written.add_piece(head);
        self.0.written.add_piece(body);
        (head.len() + body.len(), Ok(()))
    }
}
