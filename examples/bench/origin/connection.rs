//! One connection of a proxy to the origin: requests in, answers out.

use std::io;
use std::net::TcpStream;

use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::answers::{Answers, FILE};
use super::{BUDGET, MAX_HEAD, Manner};

/// A request may have 30, and a proxy adds some.
const MAX_FIELDS: usize = 64;

/// What to do with a connection next.
pub(super) enum Step {
    /// Wait for its next event.
    Wait,
    /// Go on with it after the others.
    Again,
    End,
}

/// An answer on its way.
#[derive(Clone, Copy)]
struct Sending {
    place: usize,
    /// How much of it is sent, of its bytes and of the file.
    sent: u64,
}

/// The state of a connection.
pub(super) struct Connection {
    stream: TcpStream,
    manner: Manner,
    /// It has answered at least once.
    served: bool,
    /// The peer has ended its side, or reset it.
    gone: bool,
    /// Nothing more is there to read before the next event.
    drained: bool,
    /// The peer asked for the end after this answer.
    close: bool,
    /// The begin of a head whose end is not there yet.
    head: Vec<u8>,
    /// The answer to the request whose body is being read, and how much of that is to come.
    body: Option<(usize, u64)>,
    sending: Option<Sending>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, manner: Manner) -> Self {
        Self {
            stream,
            manner,
            served: false,
            gone: false,
            drained: true,
            close: false,
            head: Vec::new(),
            body: None,
            sending: None,
        }
    }

    /// As far as this side knows it waits for its next request.
    pub(super) fn may_be_closed(&self) -> bool {
        let waits = self.body.is_none() && self.sending.is_none() && self.head.is_empty();
        self.manner == Manner::Closes && self.served && waits
    }

    /// There is an event.
    pub(super) fn note_event(&mut self, gone: bool) {
        self.gone |= gone;
        self.drained = false;
    }

    /// Goes on as far as the kernel lets it, within the budget.
    pub(super) fn advance(
        &mut self,
        answers: &Answers,
        scratch: &mut [u8],
        sink: &mut [u8],
    ) -> io::Result<Step> {
        let mut budget = BUDGET;
        loop {
            if budget == 0 {
                return Ok(Step::Again);
            }
            if let Some(sending) = self.sending {
                if !self.send(sending, answers, &mut budget)? {
                    return Ok(Step::Wait);
                }
                if self.sending.is_none() && self.close {
                    return Ok(Step::End);
                }
                continue;
            }
            // The end of the peer's side makes no further event, so it must be read.
            if self.drained && !self.gone {
                return Ok(Step::Wait);
            }
            let goes_on = match self.body {
                Some((place, left)) => self.skip(place, left, sink, &mut budget)?,
                None => self.read_head(answers, scratch)?,
            };
            match goes_on {
                Some(true) => {}
                Some(false) => return Ok(Step::Wait),
                None => return Ok(Step::End),
            }
        }
    }

    /// False when the kernel takes no more.
    fn send(&mut self, now: Sending, answers: &Answers, budget: &mut u64) -> io::Result<bool> {
        let answer = &answers.all[now.place].1;
        let length = answer.bytes.len() as u64;
        let sent = if now.sent < length {
            // The head of a big answer goes out with the begin of its body.
            let more = SendFlags::NOSIGNAL
                | if answer.from_file > 0 {
                    SendFlags::MORE
                } else {
                    SendFlags::empty()
                };
            send(&self.stream, &answer.bytes[now.sent as usize..], more)
        } else {
            let done = now.sent - length;
            let mut at = done % FILE;
            let most = (answer.from_file - done).min(FILE - at).min(*budget);
            sendfile(&self.stream, &answers.file, Some(&mut at), most as usize)
        };
        let sent = match sent {
            Err(Errno::AGAIN) => return Ok(false),
            sent => sent? as u64,
        };
        *budget = budget.saturating_sub(sent);
        let sent = now.sent + sent;
        let is_whole = sent == length + answer.from_file;
        self.sending = (!is_whole).then_some(Sending { sent, ..now });
        Ok(true)
    }

    /// Reads on in the body of a request, and drops it; no more than it, so that what follows stays.
    /// `Some(false)` when the kernel has no more, `None` at the end of the connection.
    fn skip(
        &mut self,
        place: usize,
        left: u64,
        sink: &mut [u8],
        budget: &mut u64,
    ) -> io::Result<Option<bool>> {
        let most = left.min(sink.len() as u64) as usize;
        // With this flag the kernel does not copy.
        let (_, count) = match recv(&self.stream, &mut sink[..most], RecvFlags::TRUNC) {
            Err(Errno::AGAIN) => return Ok(Some(false)),
            read => read?,
        };
        if count == 0 {
            return Ok(None);
        }
        *budget = budget.saturating_sub(count as u64);
        self.go_on_after(place, left - count as u64)?;
        Ok(Some(true))
    }

    /// As [`Self::skip`].
    fn read_head(&mut self, answers: &Answers, scratch: &mut [u8]) -> io::Result<Option<bool>> {
        let (count, _) = match recv(&self.stream, &mut *scratch, RecvFlags::empty()) {
            Err(Errno::AGAIN) => return Ok(Some(false)),
            read => read?,
        };
        if count == 0 {
            return Ok(None);
        }
        self.drained = count < scratch.len();
        if self.head.is_empty() {
            // Mostly it is there as a whole, and is not copied.
            if !self.take(&scratch[..count], answers)? {
                self.head.extend_from_slice(&scratch[..count]);
            }
        } else {
            let mut head = std::mem::take(&mut self.head);
            head.extend_from_slice(&scratch[..count]);
            if !self.take(&head, answers)? {
                self.head = head;
            }
        }
        if self.head.len() > MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Some(true))
    }

    /// Takes a request with what is there of its body; false when its head is not complete.
    fn take(&mut self, bytes: &[u8], answers: &Answers) -> io::Result<bool> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let bad = |_| io::Error::from(io::ErrorKind::InvalidData);
        let httparse::Status::Complete(end) = request.parse(bytes).map_err(bad)? else {
            return Ok(false);
        };
        let mut length: u64 = 0;
        for field in &*request.headers {
            if field.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(field.value).unwrap_or_default();
                length = text.parse().map_err(|_| io::ErrorKind::InvalidData)?;
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                // Nobody here sends chunks: whoever made them of a body would do other work.
                return Err(io::ErrorKind::Unsupported.into());
            } else if field.name.eq_ignore_ascii_case("connection") {
                self.close = field.value.eq_ignore_ascii_case(b"close");
            }
        }
        let target = request.path.unwrap_or_default();
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let place = answers.all.iter().position(|(it, _)| *it == path);
        let place = place.ok_or(io::ErrorKind::NotFound)?;
        let here = (bytes.len() - end) as u64;
        // No proxy sends a request before the answer to the one before it.
        let left = length.checked_sub(here).ok_or(io::ErrorKind::InvalidData)?;
        self.go_on_after(place, left)?;
        Ok(true)
    }

    /// The request is whole when nothing is left of its body: then it is answered.
    fn go_on_after(&mut self, place: usize, left: u64) -> io::Result<()> {
        if left > 0 {
            self.body = Some((place, left));
            // What it brings may have come with the head's last bytes.
            self.drained = false;
            return Ok(());
        }
        self.body = None;
        match self.manner {
            Manner::Hangs => return Ok(()),
            Manner::Resets if fastrand::u8(..3) == 0 => {
                let at_once = Some(std::time::Duration::ZERO);
                socket2::SockRef::from(&self.stream).set_linger(at_once)?;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            _ => {}
        }
        self.served = true;
        self.sending = Some(Sending { place, sent: 0 });
        Ok(())
    }
}
