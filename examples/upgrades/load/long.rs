//! Clients whose requests take longer than several upgrades: WebSockets, downloads and uploads.

use std::fmt::Display;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::{Error, Message, WebSocket};

use super::connection::{Answer, Connection, Trouble};
use super::tally::Count;
use super::{DOWN_PIECE, PIECE_PAUSE, Phase, Shared, UP_PIECE, content, pause, piece};

/// The longest pause between two messages.
const MESSAGE_PAUSE: Duration = Duration::from_millis(300);

/// A port that is among [`Shared::long`] for as long as this is there.
struct Long<'a> {
    shared: &'a Shared,
    port: u16,
}

impl<'a> Long<'a> {
    fn new(shared: &'a Shared, port: u16) -> Self {
        shared.long().insert(port);
        Self { shared, port }
    }
}

impl Drop for Long<'_> {
    fn drop(&mut self) {
        self.shared.long().remove(&self.port);
    }
}

/// About as long as planned.
fn some_time(shared: &Shared) -> Duration {
    shared.plan.long.mul_f64(0.7 + 0.6 * fastrand::f64())
}

/// One WebSocket after the other; each message comes back.
pub(super) fn websocket(shared: &Shared, _: usize) {
    while shared.has_turn(&[Phase::All]) {
        match talk(shared) {
            Ok(()) => shared.tally.increment(Count::Tunnels),
            Err(trouble) => trouble.note(&shared.tally),
        }
        shared.rest();
    }
}

fn talk(shared: &Shared) -> Result<(), Trouble> {
    let connection = Connection::open(shared.proxy)?;
    let _long = Long::new(shared, connection.port());
    let opened = tungstenite::client("ws://a/socket", connection.into_stream());
    let (mut socket, _) = opened.map_err(|error| Trouble::new(Count::Failed, error))?;
    shared.tally.increment(Count::Answered);
    let cut = |what: &dyn Display| Trouble::new(Count::TunnelsCut, what);
    let until = Instant::now() + some_time(shared);
    while Instant::now() < until {
        let text = format!("{:x}", fastrand::u128(..));
        let sent = socket.send(Message::text(text.as_str()));
        let returned = sent.and_then(|()| socket.read());
        match returned {
            Ok(Message::Text(it)) if it.as_str() == text => {
                shared.tally.increment(Count::Messages);
            }
            Ok(message) => return Err(cut(&format!("{message:?} instead of {text}"))),
            Err(error) => return Err(cut(&error)),
        }
        pause(MESSAGE_PAUSE, Some(until));
    }
    close(&mut socket).map_err(|error| cut(&error))
}

fn close<S: std::io::Read + Write>(socket: &mut WebSocket<S>) -> Result<(), Error> {
    socket.close(None)?;
    loop {
        match socket.read() {
            Ok(_) => {}
            Err(Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// One slow download after the other, if possible on one connection.
pub(super) fn download(shared: &Shared, _: usize) {
    repeat(shared, Count::DownloadsCut, receive);
}

/// One slow upload after the other, if possible on one connection.
pub(super) fn upload(shared: &Shared, _: usize) {
    repeat(shared, Count::UploadsCut, send);
}

type Transfer = fn(&Shared, &mut Connection) -> Result<Answer, Trouble>;

fn repeat(shared: &Shared, cut: Count, transfer: Transfer) {
    let mut kept = None;
    while shared.has_turn(&[Phase::All]) {
        match once(shared, &mut kept, transfer) {
            Ok(()) => {
                shared.tally.increment(Count::Answered);
                shared.tally.increment(Count::Transfers);
            }
            // What fails of a transfer is a transfer that is cut.
            Err(mut trouble) => {
                if trouble.count == Count::Failed {
                    trouble.count = cut;
                }
                trouble.note(&shared.tally);
            }
        }
        shared.rest();
    }
}

fn once(shared: &Shared, kept: &mut Option<Connection>, transfer: Transfer) -> Result<(), Trouble> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(shared.proxy)?,
    };
    let long = Long::new(shared, connection.port());
    let answer = transfer(shared, &mut connection)?;
    drop(long);
    match answer {
        Answer::Kept => *kept = Some(connection),
        Answer::Last => shared.tally.increment(Count::Told),
    }
    Ok(())
}

fn pieces(shared: &Shared) -> usize {
    (some_time(shared).as_millis() / PIECE_PAUSE.as_millis()) as usize
}

fn receive(shared: &Shared, connection: &mut Connection) -> Result<Answer, Trouble> {
    let (number, pieces) = (fastrand::u64(..), pieces(shared));
    let request = format!("GET /download/{number}/{pieces} HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.send(request.as_bytes())?;
    let head = connection.answer()?;
    let cut = |what: &dyn Display| Trouble::new(Count::DownloadsCut, what);
    if head.length() != Some(pieces * DOWN_PIECE) {
        return Err(cut(&format!("length {:?}", head.length())));
    }
    let mut received = vec![0; DOWN_PIECE];
    for at in 0..pieces {
        let read = connection.read(&mut received);
        read.map_err(|error| cut(&format!("at piece {at} of {pieces}: {error}")))?;
        if received != piece(number, at, DOWN_PIECE) {
            return Err(cut(&format!("piece {at} is another one")));
        }
        thread::sleep(PIECE_PAUSE);
    }
    Ok(connection.complete(&head))
}

fn send(shared: &Shared, connection: &mut Connection) -> Result<Answer, Trouble> {
    let (number, pieces, chunked) = (fastrand::u64(..), pieces(shared), fastrand::bool());
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {}", pieces * UP_PIECE),
    };
    let request =
        format!("POST /upload/{number}/{pieces} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
    connection.send(request.as_bytes())?;
    for at in 0..pieces {
        let mut bytes = piece(number, at, UP_PIECE);
        if chunked {
            bytes = [format!("{UP_PIECE:x}\r\n").as_bytes(), &bytes, b"\r\n"].concat();
        }
        let sent = connection.stream().write_all(&bytes);
        let cut = |error| format!("at piece {at} of {pieces}: {error}");
        sent.map_err(|error| Trouble::new(Count::UploadsCut, cut(error)))?;
        thread::sleep(PIECE_PAUSE);
    }
    let end: &[u8] = if chunked { b"0\r\n\r\n" } else { b"" };
    let ended = connection.stream().write_all(end);
    ended.map_err(|error| Trouble::new(Count::UploadsCut, error))?;
    let head = connection.answer()?;
    let mut said = vec![0; head.length().unwrap_or_default()];
    let read = connection.read(&mut said);
    read.map_err(|error| Trouble::new(Count::UploadsCut, error))?;
    // What has arrived, in one number.
    if said != received(number, pieces) {
        return Err(Trouble::new(
            Count::UploadsCut,
            "something else has arrived",
        ));
    }
    Ok(connection.complete(&head))
}

/// What the server says of an upload that has arrived as it was sent.
pub(super) fn received(number: u64, pieces: usize) -> Vec<u8> {
    content(number, pieces)
}
