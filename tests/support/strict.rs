//! A strict reader of HTTP/1.1 requests, which judges what the gateway sends to its peers.
//!
//! Written from the grammar (RFC 9112 sections 3 to 7, RFC 9110 section 5) and from what the gateway
//! promises to send; shares no code with the gateway, nor with the library that it parses with.

use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpStream;

/// A request that was complete and well-formed.
pub(crate) struct StrictRequest {
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) host: Vec<u8>,
    pub(crate) content: Vec<u8>,
}

/// Why there is no further request.
#[derive(Debug)]
pub(crate) enum NoRequest {
    /// The connection has ended, perhaps inside a message.
    Ended,
    /// The bytes are no request.
    Wrong(String),
}

impl From<io::Error> for NoRequest {
    fn from(_: io::Error) -> Self {
        Self::Ended
    }
}

fn wrong<T>(what: &str, bytes: &[u8]) -> Result<T, NoRequest> {
    Err(NoRequest::Wrong(format!(
        "{what}: {}",
        bytes.escape_ascii()
    )))
}

/// Reads requests from one connection.
pub(crate) struct StrictReader {
    stream: BufReader<TcpStream>,
}

/// Names in lower case, and values.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What a server may frame by, or know the client by.
const DECIDES: [&[u8]; 7] = [
    b"content-length",
    b"transfer-encoding",
    b"host",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-real-ip",
];

/// A name as CGI programs may read it.
fn dashed(name: &[u8]) -> Vec<u8> {
    let dashed = name.iter().map(|it| match it {
        it if it.is_ascii_alphanumeric() => *it,
        _ => b'-',
    });
    dashed.collect()
}

fn is_tchar(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}

impl StrictReader {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let stream = BufReader::new(stream);
        Self { stream }
    }

    /// A line without its CR LF.
    fn line(&mut self) -> Result<Vec<u8>, NoRequest> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(NoRequest::Ended);
        }
        line.pop();
        match line.pop() {
            Some(b'\r') if !line.contains(&b'\r') => Ok(line),
            _ => wrong("a line that does not end with CR LF", &line),
        }
    }

    /// Field lines up to the empty line.
    fn fields(&mut self) -> Result<Fields, NoRequest> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                return wrong("a field without a colon", &line);
            };
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if name.is_empty() || !name.iter().all(|byte| is_tchar(*byte)) {
                return wrong("a field without a proper name", &line);
            }
            let allowed = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
            let Some(value) = value.strip_prefix(b" ").filter(|it| it.iter().all(allowed)) else {
                return wrong("a value that is malformed", &line);
            };
            let edges = [value.first(), value.last()];
            if edges.iter().any(|it| matches!(it, Some(b' ' | b'\t'))) {
                return wrong("white space around a value", &line);
            }
            fields.push((name.to_ascii_lowercase(), value.to_vec()));
        }
    }

    /// Reads a whole request.
    pub(crate) fn request(&mut self) -> Result<StrictRequest, NoRequest> {
        let line = self.line()?;
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [method, target, b"HTTP/1.1"] = words[..] else {
            return wrong("not a request line", &line);
        };
        if method.is_empty() || !method.iter().all(|byte| is_tchar(*byte)) {
            return wrong("not a method", &line);
        }
        let visible = |byte: &u8| matches!(byte, b'!'..=b'~' | 0x80..) && *byte != b'#';
        let in_form = target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS");
        if !in_form || !target.iter().all(visible) {
            return wrong("not a target", &line);
        }
        let fields = self.fields()?;
        let all = |name: &str| {
            let named = fields.iter().filter(|(it, _)| it == name.as_bytes());
            named.map(|(_, value)| &value[..]).collect::<Vec<_>>()
        };
        let [host] = all("host")[..] else {
            return wrong("not exactly one Host", &line);
        };
        if host.is_empty() || host.iter().any(|byte| b" \t,/@?\"<>\\".contains(byte)) {
            return wrong("not a Host", host);
        }
        for name in [
            "x-forwarded-for",
            "x-real-ip",
            "x-forwarded-proto",
            "x-forwarded-host",
        ] {
            if all(name).len() != 1 {
                return wrong("not exactly one", name.as_bytes());
            }
        }
        for (name, _) in &fields {
            let dashed = dashed(name);
            let never: [&[u8]; 3] = [b"keep-alive", b"proxy-connection", b"http2-settings"];
            if never.contains(&&name[..]) || dashed.starts_with(b"x-graygate") {
                return wrong("a field that must not pass", name);
            }
            if DECIDES.contains(&&dashed[..]) && *name != dashed {
                return wrong("a field that reads as framing or forwarding", name);
            }
        }
        // RFC 9110 sections 6.6.2 and 10.1.4.
        if !all("trailer").is_empty() && all("transfer-encoding").is_empty() {
            return wrong("a trailer that cannot come", &line);
        }
        match (&all("te")[..], &all("connection")[..]) {
            ([], _) | ([b"trailers"], [b"TE"]) => {}
            ([te, ..], _) => return wrong("not a TE of this connection", te),
        }
        let content = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
            ([], []) => Vec::new(),
            ([], [b"chunked"]) => self.chunks()?,
            ([digits], []) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                let text = String::from_utf8_lossy(digits);
                match text.parse::<usize>() {
                    Ok(length) if length < 1 << 30 => self.exactly(length)?,
                    _ => return wrong("a length out of range", digits),
                }
            }
            _ => return wrong("a body without one clear end", &line),
        };
        Ok(StrictRequest {
            method: method.to_vec(),
            target: target.to_vec(),
            host: host.to_vec(),
            content,
        })
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, NoRequest> {
        // Bytes that never come must not be paid for.
        let mut content = Vec::new();
        let stream = Read::by_ref(&mut self.stream);
        stream.take(length as u64).read_to_end(&mut content)?;
        match content.len() == length {
            true => Ok(content),
            false => Err(NoRequest::Ended),
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, NoRequest> {
        let mut content = Vec::new();
        loop {
            let line = self.line()?;
            let text = std::str::from_utf8(&line).unwrap_or_default();
            let plain = line.iter().all(u8::is_ascii_hexdigit) && (1..=16).contains(&line.len());
            let length = match usize::from_str_radix(text, 16) {
                Ok(length) if plain && length < 1 << 30 => length,
                _ => return wrong("not a chunk's size", &line),
            };
            if length == 0 {
                break;
            }
            content.extend_from_slice(&self.exactly(length)?);
            let end = self.line()?;
            if !end.is_empty() {
                return wrong("more than a chunk's size", &end);
            }
        }
        for (name, _) in self.fields()? {
            if DECIDES.contains(&&dashed(&name)[..]) {
                return wrong("a trailer that must not pass", &name);
            }
        }
        Ok(content)
    }
}
