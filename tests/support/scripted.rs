//! A Redis server whose every reply a test says, for moments that pass by too soon in a real one.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Answers on a free port for the rest of the test program.
#[derive(Debug)]
pub(crate) struct ScriptedRedis {
    address: SocketAddr,
}

impl ScriptedRedis {
    /// Replies to each command what `script` says of its words, without the end of the line. One
    /// command after the other, from whatever connection.
    pub(crate) fn start(mut script: impl FnMut(&[&str]) -> String + Send + 'static) -> Self {
        Self::start_cutting(move |command| Some(script(command)))
    }

    /// As [`Self::start`], where a command to which there is no reply ends its connection.
    pub(crate) fn start_cutting(
        script: impl FnMut(&[&str]) -> Option<String> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, script) = (stream.unwrap(), Arc::clone(&script));
                std::thread::spawn(move || {
                    let reply = |command: &[&str]| {
                        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
                        script(command)
                    };
                    // The client has gone.
                    let _ = answer_all(&stream, reply);
                });
            }
        });
        Self { address }
    }

    /// The URL of its database 0.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }
}

/// A list of texts, as a reply.
pub(crate) fn texts(all: &[&str]) -> String {
    let texts = all.iter().map(|it| format!("\r\n${}\r\n{it}", it.len()));
    format!("*{}{}", all.len(), texts.collect::<String>())
}

fn answer_all(mut stream: &TcpStream, reply: impl Fn(&[&str]) -> Option<String>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let words = command(&mut reader)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some(reply) = reply(&words) else {
            return Ok(());
        };
        write!(stream, "{reply}\r\n")?;
    }
}

/// A command is an array of texts.
fn command(reader: &mut impl BufRead) -> io::Result<Vec<String>> {
    let count = number(reader, '*')?;
    let text = |_| {
        let mut text = vec![0; number(reader, '$')?];
        reader.read_exact(&mut text)?;
        reader.read_exact(&mut [0; 2])?;
        String::from_utf8(text).map_err(io::Error::other)
    };
    (0..count).map(text).collect()
}

fn number(reader: &mut impl BufRead, mark: char) -> io::Result<usize> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let number = line.trim_end().strip_prefix(mark);
    let number = number.and_then(|it| it.parse().ok());
    number.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
