//! Asking a running gateway, for the command line: by its Unix socket if that is there, otherwise at the
//! address in `[admin] listen`, with the token if this user may read it.
//!
//! A socket at the default path, which the ini file does not name, may be another gateway's. So it is
//! believed only if the gateway behind it runs with this ini file.

mod sockets;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::admin::pages::Page;
use crate::admin::pages::config::ConfigPage;
use crate::admin::pages::lists::ListsPage;
use crate::admin::query::NO_SERVICE;
use crate::admin::token;
use crate::config::{AdminSettings, AdminSocketPath, Config};

/// Time for each question.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// The longest page, in bytes: a list of a million entries is some tens of megabytes.
const LONGEST: u64 = 1 << 30;

/// Asks one gateway.
pub(crate) struct AdminClient {
    place: SockAddr,
    /// How that is shown: `http://127.0.0.1:9180`, or the path of the socket and a colon.
    shown: String,
    /// The fields of each request: `Host`, and the token if there is one.
    fields: String,
    /// Why the socket is not asked, if there should be one.
    instead: Option<String>,
}

impl AdminClient {
    /// Will ask the gateway that runs with the ini file at `path`.
    ///
    /// # Errors
    /// If the file does not say where, or that it cannot be asked.
    pub(crate) fn of(path: &Path) -> Result<Self, String> {
        let admin = Config::admin_of(path).map_err(|error| error.to_string())?;
        Self::with(&admin, path)
    }

    /// As [`AdminClient::of`], with what the file says.
    ///
    /// # Errors
    /// As [`AdminClient::of`].
    pub(crate) fn with(admin: &AdminSettings, path: &Path) -> Result<Self, String> {
        let socket = admin.socket.as_ref().map(|it| Self::by_socket(it, path));
        // With port 0, the actual port is unknown.
        let listen = admin.listen.filter(|it| it.port() != 0);
        match (socket, listen) {
            (Some(Ok(client)), _) => Ok(client),
            (socket, Some(listen)) => {
                let instead = socket.and_then(Result::err);
                Ok(Self::by_tcp(listen, admin.token_file.as_deref(), instead))
            }
            (Some(Err(why)), None) => {
                let off = match admin.listen {
                    Some(_) => "[admin] listen has no port to ask at",
                    None => "[admin] listen is off",
                };
                Err(format!("{why}; {off}, so the gateway cannot be asked"))
            }
            (None, None) => {
                let off = "[admin] listen is off, and so is socket: the gateway cannot be asked";
                Err(off.to_owned())
            }
        }
    }

    /// By the Unix sockets at which process `pid` listens, wherever they are.
    pub(crate) fn all_of(pid: Pid) -> impl Iterator<Item = Self> {
        let sockets = sockets::of(pid).into_iter();
        sockets.filter_map(|it| Self::at(&it).ok())
    }

    /// By the socket at `path`, whoever listens there.
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            place: SockAddr::unix(path)?,
            shown: format!("{}: ", path.display()),
            fields: "Host: localhost\r\n".to_owned(),
            instead: None,
        })
    }

    /// By the socket, if it is the gateway's and may be asked; if not, why not.
    fn by_socket(socket: &AdminSocketPath, config: &Path) -> Result<Self, String> {
        let shown = socket.path.display();
        let failed = |error: io::Error| format!("[admin] socket {shown}: {error}");
        let client = Self::at(&socket.path).map_err(failed)?;
        client
            .connect(Instant::now() + TIME_LIMIT)
            .map_err(failed)?;
        if !socket.is_named {
            let page = client.page::<ConfigPage>()?;
            if !is_same_file(&page.file, config) {
                let file = page.file;
                return Err(format!("{shown} is of a gateway that runs with {file}"));
            }
        }
        Ok(client)
    }

    fn by_tcp(addr: SocketAddr, token_file: Option<&Path>, instead: Option<String>) -> Self {
        // A user who may not read it has fewer rights, and is told so by the gateway.
        let token = token_file.and_then(|it| token::read(it).ok());
        let token = token.map(|it| format!("Authorization: Bearer {it}\r\n"));
        Self {
            place: addr.into(),
            shown: format!("http://{addr}"),
            fields: format!("Host: {addr}\r\n{}", token.unwrap_or_default()),
            instead,
        }
    }

    /// Gets the page at `path`: its status and its text.
    ///
    /// # Errors
    /// Nobody answers; with the place.
    pub(crate) fn get(&self, path: &str) -> Result<(u16, String), String> {
        self.ask("GET", path, "")
    }

    fn get_with(&self, path: &str, query: &[(&str, &str)]) -> Result<(u16, String), String> {
        if query.is_empty() {
            return self.get(path);
        }
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        pairs.extend_pairs(query);
        self.get(&format!("{path}?{}", pairs.finish()))
    }

    /// Posts to `path`, with one header field and no body. Returns the status and the text of the
    /// answer.
    ///
    /// # Errors
    /// Nobody answers; with the place.
    pub(crate) fn post(&self, path: &str, field: (&str, &str)) -> Result<(u16, String), String> {
        let (name, value) = field;
        self.ask(
            "POST",
            path,
            &format!("{name}: {value}\r\nContent-Length: 0\r\n"),
        )
    }

    /// Gets a page.
    ///
    /// # Errors
    /// Nobody answers, or the answer is something else; with the place.
    pub(crate) fn page<P: Page>(&self) -> Result<P, String> {
        self.page_with(&[])
    }

    /// How the lists stand, without their entries.
    ///
    /// # Errors
    /// As [`AdminClient::page`].
    pub(crate) fn lists(&self) -> Result<ListsPage, String> {
        let none = ListsPage::part(0, 0);
        self.page_with(&none.each_ref().map(|(name, it)| (*name, it.as_str())))
    }

    /// As [`AdminClient::page`], with a query.
    ///
    /// # Errors
    /// As [`AdminClient::page`]; also what the gateway says is wrong with the query.
    pub(crate) fn page_with<P: Page>(&self, query: &[(&str, &str)]) -> Result<P, String> {
        let (status, text) = self.get_with(P::PATH, query)?;
        match status {
            200 => {}
            400 => return Err(text.trim_end().to_owned()),
            404 if text.starts_with(NO_SERVICE) => return Err(text.trim_end().to_owned()),
            status => return Err(self.refused(P::PATH, status, &text)),
        }
        let not_understood = |what: &str| self.failed(P::PATH, &format!("not understood: {what}"));
        let page = serde_json::from_str(&text);
        let page = page.map_err(|error| not_understood(&error.to_string()))?;
        P::of(&page).ok_or_else(|| not_understood("another page"))
    }

    /// An answer that is not the page, as an error.
    pub(crate) fn refused(&self, path: &str, status: u16, text: &str) -> String {
        let said = match status {
            401 | 403 => format!(": {}", text.trim_end()),
            _ => String::new(),
        };
        self.failed(path, &format!("status {status}{said}"))
    }

    /// An error that says where was asked, and why there.
    pub(crate) fn failed(&self, path: &str, what: &str) -> String {
        let Self { shown, instead, .. } = self;
        let instead = instead
            .as_ref()
            .map(|it| format!(" (asked there since {it})"));
        format!("{shown}{path}: {what}{}", instead.unwrap_or_default())
    }

    fn ask(&self, method: &str, target: &str, fields: &str) -> Result<(u16, String), String> {
        let request = format!(
            "{method} {target} HTTP/1.1\r\n{}{fields}Connection: close\r\n\r\n",
            self.fields
        );
        let path = target.split('?').next().unwrap_or_default();
        let answer = self.exchange(request.as_bytes());
        let answer = answer.map_err(|error| self.failed(path, &error.to_string()))?;
        read_answer(&answer).map_err(|what| self.failed(path, what))
    }

    fn connect(&self, until: Instant) -> io::Result<Socket> {
        let domain = self.place.domain();
        let protocol = (domain != Domain::UNIX).then_some(Protocol::TCP);
        let socket = Socket::new(domain, Type::STREAM, protocol)?;
        let left = until.saturating_duration_since(Instant::now());
        socket.connect_timeout(&self.place, left.max(Duration::from_millis(1)))?;
        Ok(socket)
    }

    /// All that is answered until the connection is closed.
    fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let until = Instant::now() + TIME_LIMIT;
        let mut socket = self.connect(until)?;
        socket.set_write_timeout(Some(TIME_LIMIT))?;
        socket.write_all(request)?;
        let (mut answer, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::other(format!("no answer within {TIME_LIMIT:?}")));
            }
            socket.set_read_timeout(Some(left))?;
            match socket.read(&mut piece) {
                Ok(0) => return Ok(answer),
                Ok(count) => answer.extend_from_slice(&piece[..count]),
                Err(error) if is_no_end(&error) => {}
                Err(error) => return Err(error),
            }
            if answer.len() as u64 > LONGEST {
                return Err(io::Error::other("the answer is too long"));
            }
        }
    }
}

/// Whether to try again, within the deadline.
fn is_no_end(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock)
}

/// The status and the body of an answer of the admin listener, which always says how long it is.
fn read_answer(answer: &[u8]) -> Result<(u16, String), &'static str> {
    const NO_HTTP: &str = "the answer is not HTTP";
    let end = memchr::memmem::find(answer, b"\r\n\r\n").ok_or(match answer {
        [] => "the connection was closed without an answer",
        _ => NO_HTTP,
    })?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| NO_HTTP)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|it| it.strip_prefix("HTTP/1."));
    let status = status.and_then(|it| it.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or(NO_HTTP)?;
    let mut fields = lines.filter_map(|it| it.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, it)| it.trim().parse::<usize>().ok());
    let body = &answer[end + 4..];
    if length.is_some_and(|it| body.len() < it) {
        return Err("the answer was cut short");
    }
    let body = std::str::from_utf8(body).map_err(|_| NO_HTTP)?;
    Ok((status, body.to_owned()))
}

/// Whether two paths lead to one file; the gateway's may be in a folder that is closed to others.
pub(crate) fn is_same_file(one: &str, other: &Path) -> bool {
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    other.to_string_lossy() == one || resolved(Path::new(one)) == resolved(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let whole = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nA: b\r\n\r\nno";
        assert_eq!(read_answer(whole.as_bytes()), Ok((403, "no".to_owned())));
        for (answer, why) in [
            ("", "the connection was closed without an answer"),
            ("HTTP/1.1 200 OK\r\n", "the answer is not HTTP"),
            ("SSH-2.0-x\r\n\r\n", "the answer is not HTTP"),
            ("HTTP/1.1 x OK\r\n\r\n", "the answer is not HTTP"),
            (&whole[..whole.len() - 1], "the answer was cut short"),
        ] {
            assert_eq!(read_answer(answer.as_bytes()), Err(why), "{answer}");
        }
    }
}
