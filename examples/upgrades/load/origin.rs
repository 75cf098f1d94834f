//! The server behind the proxy.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use tungstenite::WebSocket;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;

use super::connection::{Head, read_line};
use super::long::received;
use super::{DOWN_PIECE, UP_PIECE, content, piece};

/// A server that answers whatever the clients ask. It ends with this program.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
}

impl Origin {
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Its end is the proxy's affair.
                thread::spawn(move || drop(serve(stream)));
            }
        });
        Ok(Self { address })
    }
}

fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = Head::read(&mut reader)? {
        let path = head.line.split(' ').nth(1).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            [_, "content", number, length] => {
                let content = content(of(number)?, of(length)?);
                answer(&reader, &content)?;
            }
            [_, "echo"] => {
                let mut content = vec![0; head.length().unwrap_or_default()];
                reader.read_exact(&mut content)?;
                answer(&reader, &content)?;
            }
            [_, "download", number, pieces] => {
                send(reader.get_ref(), of(number)?, of(pieces)?)?;
            }
            [_, "upload", number, pieces] => {
                let (number, pieces) = (of(number)?, of(pieces)?);
                let is_whole = receive(&mut reader, &head, number, pieces)?;
                let said = received(number, pieces);
                answer(&reader, if is_whole { &said } else { b"wrong" })?;
            }
            [_, "socket"] => return talk(reader, &head),
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn of<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    let number = text.parse();
    number.map_err(|_| io::ErrorKind::InvalidData.into())
}

fn answer(to: &BufReader<TcpStream>, content: &[u8]) -> io::Result<()> {
    let length = content.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    to.get_ref().write_all(&[head.as_bytes(), content].concat())
}

fn send(mut to: &TcpStream, number: u64, pieces: usize) -> io::Result<()> {
    let length = pieces * DOWN_PIECE;
    write!(to, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
    (0..pieces).try_for_each(|at| to.write_all(&piece(number, at, DOWN_PIECE)))
}

/// Whether an upload arrives as it was sent.
fn receive(
    from: &mut BufReader<TcpStream>,
    head: &Head,
    number: u64,
    pieces: usize,
) -> io::Result<bool> {
    let mut expected = (0..pieces).flat_map(|at| piece(number, at, UP_PIECE));
    let mut is_whole = true;
    let mut take = |from: &mut BufReader<TcpStream>, mut length: usize| -> io::Result<()> {
        while length > 0 {
            let there = from.fill_buf()?;
            if there.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = there.len().min(length);
            is_whole &= there[..count].iter().all(|it| expected.next() == Some(*it));
            from.consume(count);
            length -= count;
        }
        Ok(())
    };
    match head.length() {
        Some(length) => take(from, length)?,
        None => loop {
            let line = read_line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let length = usize::from_str_radix(&line, 16);
            let length = length.map_err(|_| io::ErrorKind::InvalidData)?;
            take(from, length)?;
            read_line(from)?;
            if length == 0 {
                break;
            }
        },
    }
    Ok(is_whole && expected.next().is_none())
}

/// Sends back what comes.
fn talk(reader: BufReader<TcpStream>, head: &Head) -> io::Result<()> {
    let key = head.field("sec-websocket-key").unwrap_or_default();
    let key = derive_accept_key(key.as_bytes());
    let (early, mut stream) = (reader.buffer().to_vec(), reader.into_inner());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {key}\r\n\r\n"
    )?;
    let mut socket = WebSocket::from_partially_read(stream, early, Role::Server, None);
    loop {
        // An error is the end as well.
        let message = socket.read().map_err(io::Error::other)?;
        if message.is_text() {
            socket.send(message).map_err(io::Error::other)?;
        }
    }
}
