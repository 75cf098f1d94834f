//! The interface of a client, as the exchange and the bodies see it.
//!
//! To them, whatever carries a request and its response (today a plain socket that speaks HTTP/1) is two
//! things:
//!
//! - a [`Downstream`] takes the response, in four verbs: interim response, head, piece of the body, end.
//!   How these become bytes, with chunk lines between the pieces or frames around them, is its own
//!   concern. Only one coroutine uses it.
//! - a [`Transport`] delivers what comes from the client, and tells whether the client is still there.
//!   It is shared: a wait for a peer watches it, and a second coroutine has a [twin](Transport::twin).
//!
//! The exchange is generic over both, so all calls are static.
//!
//! Not here: whose request it is and what it asks for. Heads are read and judged by the session, which
//! is specific to the protocol.

use std::io;
use std::time::Instant;

use crate::http::fields::ConnectionOptions;
use crate::http::h1::chunked::Trailer;
use crate::http::h1::encode::ResponseToClient;
use crate::http::h1::framing::Framing;
use crate::http::h1::head::ResponseHead;
use crate::net::{Grip, Patience, Stream, Wake, Watch};

/// A client that takes a response. Its pieces and its end are those of a [`BodySink`].
pub(in crate::proxy) trait Downstream: BodySink {
    /// Where its request comes from.
    type Transport: Transport;

    /// How a body with this framing of the peer's is framed for the client. [`Framing::UntilClose`] only
    /// if nothing but the end of the connection can tell the client where the body ends.
    fn framing(&self, of_peer: Framing) -> Framing;

    /// Writes an interim response at once; returns how many bytes that took. There may be any number of
    /// them before the head.
    ///
    /// # Errors
    /// The kernel's; `TimedOut` when the client has used up the `patience`.
    fn interim(
        &mut self,
        head: &ResponseHead,
        bytes: &[u8],
        options: &ConnectionOptions,
        patience: &Patience,
    ) -> io::Result<usize>;

    /// Takes the head, and returns how many bytes it has. It may be written later, together with what
    /// follows, but at the latest with the end or a flush. An earlier head is discarded: if any of it had
    /// been written, there would not be another one.
    fn head(&mut self, response: &ResponseToClient<'_>) -> usize;
}

/// Where a body goes: to a client, or to a peer.
///
/// Every verb takes everything that it is given, and keeps what it cannot write yet.
pub(in crate::proxy) trait BodySink {
    /// Takes a piece of the content.
    fn piece(&mut self, content: &[u8], wait: Wait<'_>) -> WriteOutcome;

    /// Takes the end, with those fields of the trailer that may be passed on, and writes everything that
    /// is left. If that is not possible now, it is called again; it still makes a single end.
    fn end(&mut self, end: BodyEnd<'_>, wait: Wait<'_>) -> WriteOutcome;

    /// Writes everything that was taken: nothing more may come for a while.
    fn flush(&mut self, wait: Wait<'_>) -> WriteOutcome;

    /// The socket to which content may be spliced after a flush, if content is sent unchanged.
    fn socket(&self) -> Option<&Stream>;
}

/// How a body ends.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct BodyEnd<'a> {
    pub(in crate::proxy) trailer: &'a Trailer,
    /// The bytes of `trailer`.
    pub(in crate::proxy) bytes: &'a [u8],
    /// Those of the message's head.
    pub(in crate::proxy) options: &'a ConnectionOptions,
}

/// How to wait for a side that takes nothing at present.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Wait<'a> {
    /// For how long.
    pub(in crate::proxy) patience: &'a Patience,
    /// Not at all if that side has sent something, which it may want to be read first.
    pub(in crate::proxy) until_readable: bool,
}

/// How many bytes were written, error or not, and whether these were all: not if the other side [has
/// sent something](Wait::until_readable). The errors are those of [`Stream::write_both`].
pub(in crate::proxy) type WriteOutcome = (usize, io::Result<bool>);

/// What comes from a client, and whether it is still there.
///
/// The bytes are those of the body, framed as the request says; after an upgrade, those of the other
/// protocol, in both directions.
pub(in crate::proxy) trait Transport: Sized + 'static {
    /// The client is gone and will take nothing more: as [`Watch::Gone`].
    fn watch_gone(&self) -> Watch<'_>;

    /// Its connection was reset: as [`Watch::Reset`].
    fn watch_reset(&self) -> Watch<'_>;

    /// It sends nothing more: as [`Watch::Ended`].
    fn watch_ended(&self) -> Watch<'_>;

    /// It has sent something: as [`Watch::Readable`].
    fn watch_readable(&self) -> Watch<'_>;

    /// What [`Self::watch_gone`] watches has happened.
    fn is_gone(&self) -> bool;

    /// Waits until there is something to read, or the end.
    fn wait_readable(&self, deadline: Instant, watch: Watch<'_>) -> Wake;

    /// As [`Self::wait_readable`], in a tunnel: the gateway's own end interrupts it.
    fn wait_in_tunnel(&self, deadline: Instant, watch: Watch<'_>) -> Wake;

    /// What others on this worker may do to it during such a wait; `None` for what has no socket.
    fn grip(&self) -> Option<Grip>;

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, and whatever says that no more comes.
    fn read_now(&self, into: &mut [u8]) -> io::Result<usize>;

    /// The socket from which the same bytes come, and may be spliced.
    fn socket(&self) -> Option<&Stream>;

    /// A second handle, for a second coroutine: at most one may wait on each.
    ///
    /// # Errors
    /// When descriptors run out.
    fn twin(&self) -> io::Result<Self>;

    /// Reads no more: whoever waits for bytes (on a twin, too) sees the end.
    fn shutdown_read(&self);

    /// From now on, the end of the connection must not look like the end of the response. Called only if
    /// the framing is [`Framing::UntilClose`].
    fn abort(&self);

    /// Undoes [`Self::abort`].
    fn cancel_abort(&self);

    /// Writes all of `bytes` into a tunnel.
    ///
    /// # Errors
    /// `TimedOut` when the client has used up the `patience`; `ConnectionAborted` when what is watched
    /// happens; whatever says that no more is taken.
    fn write_all_unless(
        &self,
        bytes: &[u8],
        patience: &Patience,
        watch: Watch<'_>,
    ) -> io::Result<()>;

    /// Bytes written that the client has not acknowledged yet, as far as one can tell.
    fn unsent(&self) -> usize;

    /// Tells the client that nothing more comes through the tunnel.
    fn shutdown_write(&self);

    /// Ends the tunnel at once, in both directions, so that the client sees that it was cut.
    fn reset(&self);
}

/// A transport that is a whole connection, so that HTTP/1 can be written to it directly: a socket,
/// whether encrypted or not.
pub(in crate::proxy) trait ByteStream: Transport {
    /// Writes `head` and then `body`, as [`Stream::write_both`] does.
    fn write_both(&self, head: &[u8], body: &[u8], wait: Wait<'_>) -> (usize, io::Result<()>);
}
