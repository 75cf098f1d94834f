//! A syslog server as the target of a log: each line becomes a message of its own (RFC 3164 as nginx writes
//! it, or RFC 5424), in a datagram.
//!
//! The server may come and go. A line for which it is not there, or has no room within a moment, is lost and
//! counted, like one for a full disk: nobody waits for it but the log's own writer, and that for a bounded
//! time.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, SystemTime};

use super::local_time::LocalTimeText;
use crate::config::{SyslogForm, SyslogServer, SyslogTarget};

/// How long a server that takes nothing is waited for.
const PATIENCE: Duration = Duration::from_millis(200);

/// The longest message, in bytes; what is behind is cut off. More than that is cut, or refused, by usual
/// servers.
const LONGEST: usize = 8192;

/// The way to a syslog server.
pub(super) struct Syslog {
    target: SyslogTarget,
    host: String,
    /// Lines name their level behind their time.
    has_levels: bool,
    socket: Option<SyslogSocket>,
    message: Vec<u8>,
    clock: LocalTimeText,
}

enum SyslogSocket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Syslog {
    /// To the server of `target`. `has_levels`: the lines are those of the error log.
    pub(super) fn new(target: &SyslogTarget, has_levels: bool) -> Self {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let host = host.to_string_lossy().replace(char::is_whitespace, "-");
        Self {
            target: target.clone(),
            host,
            has_levels,
            socket: None,
            message: Vec::new(),
            clock: LocalTimeText::default(),
        }
    }

    /// Sends whole lines. Returns how many are lost, and why the last one is.
    pub(super) fn send(&mut self, lines: &[u8]) -> (u64, Option<io::Error>) {
        let now = SystemTime::now();
        let (mut lost, mut why) = (0, None);
        let mut rest = lines.split_inclusive(|it| *it == b'\n');
        while let Some(line) = rest.next() {
            self.make_message(line.strip_suffix(b"\n").unwrap_or(line), now);
            let mut outcome = self.send_message();
            if let Err(error) = &outcome
                && error.kind() != io::ErrorKind::WouldBlock
            {
                // Over UDP it is said of the message before, which has found nobody.
                if error.kind() == io::ErrorKind::ConnectionRefused && self.is_udp() {
                    lost += 1;
                    why = Some(io::Error::from(io::ErrorKind::ConnectionRefused));
                }
                // The server may have been started anew.
                self.socket = None;
                outcome = self.send_message();
            }
            if let Err(error) = outcome {
                // What is behind would not fare better.
                return (lost + 1 + rest.count() as u64, Some(error));
            }
        }
        (lost, why)
    }

    fn is_udp(&self) -> bool {
        matches!(self.target.server, SyslogServer::Udp(_))
    }

    fn send_message(&mut self) -> io::Result<()> {
        if self.socket.is_none() {
            self.socket = Some(SyslogSocket::connect(&self.target.server)?);
        }
        match &self.socket {
            Some(SyslogSocket::Unix(socket)) => socket.send(&self.message)?,
            Some(SyslogSocket::Udp(socket)) => socket.send(&self.message)?,
            None => return Err(io::ErrorKind::NotConnected.into()),
        };
        Ok(())
    }

    fn make_message(&mut self, line: &[u8], now: SystemTime) {
        let target = &self.target;
        let severity = match self.has_levels {
            true => severity_of(line).unwrap_or(target.severity),
            false => target.severity,
        };
        let priority = target.facility * 8 + severity;
        let message = &mut self.message;
        message.clear();
        // Writing to a Vec cannot fail.
        let _ = match target.form {
            SyslogForm::Rfc3164 => {
                let _ = write!(message, "<{priority}>");
                self.clock.put_bsd(now, message);
                match target.names_host {
                    true => write!(message, " {} {}: ", self.host, target.tag),
                    false => write!(message, " {}: ", target.tag),
                }
            }
            SyslogForm::Rfc5424 => {
                let time = humantime::format_rfc3339_millis(now);
                let host = match target.names_host {
                    true => self.host.as_str(),
                    false => "-",
                };
                let pid = std::process::id();
                write!(
                    message,
                    "<{priority}>1 {time} {host} {} {pid} - - ",
                    target.tag
                )
            }
        };
        message.extend_from_slice(line);
        message.truncate(LONGEST);
    }
}

impl SyslogSocket {
    fn connect(server: &SyslogServer) -> io::Result<Self> {
        match server {
            SyslogServer::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Unix(socket))
            }
            SyslogServer::Udp(address) => {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                socket.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Udp(socket))
            }
        }
    }
}

/// Why nothing would arrive at the server at present, as far as that can be known.
pub(crate) fn trouble_with(target: &SyslogTarget) -> Option<io::Error> {
    SyslogSocket::connect(&target.server).err()
}

/// The severity of an event of the error log, whose level is its second word.
fn severity_of(line: &[u8]) -> Option<u8> {
    match line.split(|it| *it == b' ').nth(1)? {
        b"ERROR" => Some(3),
        b"WARN" => Some(4),
        b"INFO" => Some(6),
        b"DEBUG" => Some(7),
        _ => None,
    }
}
