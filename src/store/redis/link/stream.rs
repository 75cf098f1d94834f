//! A socket with deadlines, with TLS around it or without.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::Socket;

use super::waker::{Hearing, Waker};
use crate::config::{self, Address};
use crate::store::redis::tls;

/// What is left of a time; none is an error.
pub(super) fn left(until: Instant) -> io::Result<Duration> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// A socket on which no silence, and nothing as a whole, takes longer than allowed.
pub(super) struct TimedSocket {
    pub(super) socket: Socket,
    pub(super) silence: Duration,
    pub(super) until: Instant,
    /// Something has come.
    pub(super) heard: bool,
    /// Ends a wait for bytes, as [`io::ErrorKind::WouldBlock`].
    pub(super) waker: Option<Arc<Waker>>,
}

impl TimedSocket {
    fn patience(&self) -> io::Result<Duration> {
        Ok(left(self.until)?.min(self.silence))
    }
}

impl Read for TimedSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(waker) = &self.waker {
                waker.wait(&self.socket, self.patience()?)?;
            }
            self.socket.set_read_timeout(Some(self.patience()?))?;
            match (&self.socket).read(buffer) {
                // With a time limit, the kernel does not take up a call again after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => {
                    self.heard |= outcome.as_ref().is_ok_and(|it| *it > 0);
                    return outcome.map_err(timed_out);
                }
            }
        }
    }
}

impl Write for TimedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.socket.set_write_timeout(Some(self.patience()?))?;
            match (&self.socket).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome.map_err(timed_out),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Two names for the same thing: which of them it is depends on the system call.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

/// Bytes, with TLS around them or without it.
pub(super) enum LinkStream {
    Plain(TimedSocket),
    Tls(Box<StreamOwned<ClientConnection, TimedSocket>>),
}

impl LinkStream {
    pub(super) fn of(
        socket: TimedSocket,
        address: &Address,
        files: &config::Tls,
    ) -> io::Result<Self> {
        match address {
            Address::Tcp {
                host, tls: true, ..
            } => {
                let name = files.name.as_deref().unwrap_or(host);
                Self::handshake(socket, name, tls::client_config(files)?)
            }
            _ => Ok(Self::Plain(socket)),
        }
    }

    fn handshake(
        mut socket: TimedSocket,
        host: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)
                .map_err(|error| match socket.heard {
                    true => tls::in_words(error),
                    false => tls::no_answer(error),
                })?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(tls, socket))))
    }

    pub(super) fn timed(&self) -> &TimedSocket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    pub(super) fn timed_mut(&mut self) -> &mut TimedSocket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.sock,
        }
    }
}

impl Read for LinkStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer).map_err(tls::in_words),
        }
    }
}

impl Write for LinkStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes).map_err(tls::in_words),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush().map_err(tls::in_words),
        }
    }
}

/// A stream whose silence is answered with one PING. Below the parser, which thus never gives up
/// a message of which a part has come.
pub(super) struct Pinging<'a> {
    pub(super) stream: &'a mut LinkStream,
    pub(super) limit: Duration,
    pub(super) asked: bool,
    pub(super) hearing: &'a mut Hearing,
}

impl Pinging<'_> {
    /// Asks for a sign of life, or for an answer to the last question of the waker.
    fn ping(&mut self, question: Option<u64>) -> io::Result<()> {
        self.stream.timed_mut().until = Instant::now() + self.limit;
        let ping = redis::cmd("PING").get_packed_command();
        self.stream.write_all(&ping)?;
        self.stream.flush()?;
        self.hearing.asked(question);
        Ok(())
    }
}

impl Read for Pinging<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.timed_mut().until = Instant::now() + self.limit;
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !self.asked => {
                    self.asked = true;
                    self.ping(None)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let waker = self.stream.timed().waker.clone();
                    self.ping(waker.map(|it| it.question()))?;
                }
                outcome => {
                    self.asked = false;
                    return outcome;
                }
            }
        }
    }
}
