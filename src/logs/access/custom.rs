//! Lines in a format of one's own, in which a variable shows what nginx's of the same name shows.

use std::time::{Duration, UNIX_EPOCH};

use super::{Record, address, digits, escape, is_plain, json, number, percent, put_ip};
use crate::config::{CustomFormat, Escape, FormatPiece, Variable};
use crate::error::Close;
use crate::logs::local_time::LocalTimeText;

/// What nginx logs for a request whose client went away before there was an answer.
const CLIENT_GONE: u16 = 499;

impl Record<'_> {
    pub(super) fn render_custom(
        &self,
        format: &CustomFormat,
        clock: &mut LocalTimeText,
        out: &mut Vec<u8>,
    ) {
        for piece in &format.pieces {
            match piece {
                FormatPiece::Text(text) => out.extend_from_slice(text),
                FormatPiece::Variable(variable) => self.put(*variable, format.escape, clock, out),
            }
        }
    }

    fn put(
        &self,
        variable: Variable,
        escape: Escape,
        clock: &mut LocalTimeText,
        out: &mut Vec<u8>,
    ) {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        match variable {
            Variable::RemoteAddr => put_ip(out, self.client),
            Variable::RemoteUser(field) => {
                let user = self.fields.get(field).and_then(BasicUser::of);
                match user {
                    Some(user) => user.put(escape, out),
                    None => put_value(out, escape, None),
                }
            }
            Variable::TimeLocal => out.extend_from_slice(clock.common(self.time)),
            Variable::TimeIso8601 => out.extend_from_slice(clock.iso8601(self.time)),
            Variable::Msec => millis(out, since),
            Variable::Request => put_value(out, escape, present(self.line)),
            Variable::RequestMethod => put_value(out, escape, present(self.method)),
            Variable::RequestUri => put_value(out, escape, present(uri(self.target))),
            Variable::Args => {
                let query = memchr::memchr(b'?', self.target).map(|at| &self.target[at + 1..]);
                put_value(out, escape, query.filter(|it| !it.is_empty()));
            }
            Variable::ServerProtocol => put_value(out, escape, protocol(self.line)),
            Variable::Scheme => out.extend_from_slice(b"http"),
            Variable::Host => put_host(out, escape, self.host),
            Variable::Field(place) => put_value(out, escape, self.fields.get(place)),
            Variable::Status => digits(out, u32::from(self.shown_status()), 3),
            Variable::BodyBytesSent => number(out, b"", self.body_sent),
            Variable::BytesSent => number(out, b"", self.sent),
            Variable::RequestLength => number(out, b"", self.received),
            Variable::RequestTime => millis(out, self.request_time),
            Variable::UpstreamAddr => self.put_peer(out, escape),
            Variable::UpstreamStatus if self.attempts > 0 => {
                digits(out, u32::from(self.shown_status()), 3);
            }
            Variable::UpstreamStatus => put_value(out, escape, None),
            Variable::UpstreamResponseTime => match self.upstream_time {
                Some(time) => millis(out, time),
                None => put_value(out, escape, None),
            },
            Variable::RequestId => put_value(out, escape, self.request_id),
            Variable::Pool => put_word(out, escape, Some(self.pool)),
            Variable::Reason => put_word(out, escape, Some(self.reason)),
            Variable::Generation => number(out, b"", self.generation),
            Variable::Attempts => number(out, b"", self.attempts),
            Variable::Close => put_word(out, escape, self.close),
            Variable::Error => put_word(out, escape, self.error),
            Variable::Denied => put_word(out, escape, self.denied),
            Variable::Service => put_word(out, escape, Some(self.service)),
            Variable::Entry => put_value(out, escape, self.entry),
            Variable::Bucket => match self.bucket {
                Some(bucket) => percent(out, b"", bucket),
                None => put_value(out, escape, None),
            },
            Variable::Sample => number(out, b"", self.sample),
        }
    }

    fn put_peer(&self, out: &mut Vec<u8>, escape: Escape) {
        match self.peer {
            Some(peer) => address(out, b"", peer),
            None => put_value(out, escape, None),
        }
    }

    /// The status, as nginx shows that of a request without an answer.
    fn shown_status(&self) -> u16 {
        let gone = [Close::ClientGone.name(), Close::BodyCut.name()];
        match self.close {
            Some(close) if self.status == 0 && gone.contains(&close) => CLIENT_GONE,
            _ => self.status,
        }
    }
}

/// Seconds and milliseconds.
fn millis(out: &mut Vec<u8>, value: Duration) {
    number(out, b"", value.as_secs());
    out.push(b'.');
    digits(out, value.subsec_millis(), 3);
}

/// A value that is not there when it is empty.
fn present(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
}

/// A word of the gateway's own; `-` where there is none.
fn put_word(out: &mut Vec<u8>, escape: Escape, word: Option<&str>) {
    let word = word.filter(|it| *it != "-");
    put_value(out, escape, word.map(str::as_bytes));
}

fn put_value(out: &mut Vec<u8>, escape: Escape, value: Option<&[u8]>) {
    match (escape, value) {
        (Escape::Default, None) => out.push(b'-'),
        (Escape::Json | Escape::None, None) => {}
        (Escape::Default, Some(value)) => put_escaped(out, value),
        (Escape::Json, Some(value)) => json::put_text(out, value, usize::MAX),
        (Escape::None, Some(value)) => out.extend_from_slice(value),
    }
}

fn put_escaped(out: &mut Vec<u8>, mut rest: &[u8]) {
    loop {
        let run = rest.iter().take_while(|byte| is_plain(**byte)).count();
        let (plain, behind) = rest.split_at(run);
        out.extend_from_slice(plain);
        let Some((byte, behind)) = behind.split_first() else {
            return;
        };
        out.extend_from_slice(&self::escape(*byte));
        rest = behind;
    }
}

/// A target without scheme and authority.
fn uri(target: &[u8]) -> &[u8] {
    if matches!(target.first(), None | Some(b'/' | b'*')) {
        return target;
    }
    let Some(scheme) = memchr::memmem::find(target, b"://") else {
        return target;
    };
    let rest = &target[scheme + 3..];
    match rest.iter().position(|it| matches!(it, b'/' | b'?')) {
        Some(path) => &rest[path..],
        None => b"/",
    }
}

/// The last word of a request line.
fn protocol(line: &[u8]) -> Option<&[u8]> {
    let last = line.rsplit(|it| *it == b' ').next()?;
    last.starts_with(b"HTTP/").then_some(last)
}

/// The host without its port, in lower case.
fn put_host(out: &mut Vec<u8>, escape: Escape, host: &[u8]) {
    // Within brackets, a colon is part of an IPv6 address.
    let name = match memchr::memrchr(b':', host) {
        Some(colon) if !host[colon..].contains(&b']') => &host[..colon],
        _ => host,
    };
    let name = name.strip_suffix(b".").unwrap_or(name);
    let start = out.len();
    put_value(out, escape, present(name));
    out[start..].make_ascii_lowercase();
}

/// The user's name in an Authorization field, still encoded (RFC 7617).
struct BasicUser<'a>(&'a [u8]);

impl<'a> BasicUser<'a> {
    /// `None` for other schemes, and for what is malformed or has no name.
    fn of(field: &'a [u8]) -> Option<Self> {
        const SCHEME: &[u8] = b"basic ";
        let (scheme, encoded) = field.split_at_checked(SCHEME.len())?;
        let user = Self(encoded.trim_ascii());
        let is_basic = scheme.eq_ignore_ascii_case(SCHEME) && user.is_base64();
        // nginx takes an empty name for none.
        let colon = user.bytes().position(|it| it == b':');
        (is_basic && colon.is_some_and(|it| it > 0)).then_some(user)
    }

    fn digits(&self) -> impl Iterator<Item = &u8> {
        self.0.iter().take_while(|it| **it != b'=')
    }

    fn is_base64(&self) -> bool {
        self.digits().all(|it| base64(*it).is_some()) && self.digits().count() % 4 != 1
    }

    /// The decoded bytes: the name, a colon, and the password.
    fn bytes(&self) -> impl Iterator<Item = u8> {
        let (mut bits, mut held) = (0_u32, 0);
        let sixes = self.digits().filter_map(|it| base64(*it));
        sixes.filter_map(move |six| {
            bits = bits << 6 | u32::from(six);
            held += 6;
            (held >= 8).then(|| {
                held -= 8;
                (bits >> held) as u8
            })
        })
    }

    fn put(&self, escape: Escape, out: &mut Vec<u8>) {
        /// nginx's own limit is that of a head; a longer name is cut.
        const LONGEST: usize = 256;
        let (mut name, mut length) = ([0; LONGEST], 0);
        let bytes = self.bytes().take_while(|it| *it != b':');
        for (place, byte) in name.iter_mut().zip(bytes) {
            *place = byte;
            length += 1;
        }
        put_value(out, escape, Some(&name[..length]));
    }
}

/// The six bits of a digit.
fn base64(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{record, rendered};
    use super::*;
    use crate::http::span::Span;
    use crate::logs::access::ShownFields;

    fn line(record: &Record<'_>, format: &str) -> String {
        String::from_utf8(rendered(record, format)).unwrap()
    }

    #[test]
    fn each_variable_shows_its_value() {
        let bytes = b"Basic YTpi";
        let values = [Some(Span::new(0, bytes.len()))];
        let mut record = record();
        record.close = Some("draining");
        record.request_id = Some(b"12ab");
        record.fields = ShownFields {
            bytes,
            values: &values,
        };
        for (variable, value) in [
            ("remote_addr", "127.0.0.5"),
            ("remote_user", "a"),
            ("http_authorization", "Basic YTpi"),
            ("msec", "1500000000.007"),
            ("request", "GET /x?y HTTP/1.1"),
            ("request_method", "GET"),
            ("request_uri", "/x?y"),
            ("args", "y"),
            ("query_string", "y"),
            ("server_protocol", "HTTP/1.1"),
            ("scheme", "http"),
            ("host", "h"),
            ("status", "200"),
            ("body_bytes_sent", "150"),
            ("bytes_sent", "200"),
            ("request_length", "100"),
            ("request_time", "0.001"),
            ("upstream_addr", "127.0.0.1:9001"),
            ("upstream_status", "200"),
            ("upstream_response_time", "2.000"),
            ("request_id", "12ab"),
            ("pool", "pre"),
            ("reason", "listed"),
            ("generation", "3"),
            ("attempts", "1"),
            ("close", "draining"),
            ("error", "-"),
            ("denied", "-"),
            ("sample", "1"),
        ] {
            assert_eq!(line(&record, &format!("${variable}")), format!("{value}\n"));
        }
    }

    #[test]
    fn what_is_absent_is_a_dash_or_nothing_and_what_is_empty_is_empty() {
        let mut record = record();
        record.peer = None;
        record.upstream_time = None;
        (record.line, record.target, record.host) = (b"", b"", b"");
        let values = [None, Some(Span::new(0, 0))];
        record.fields.values = &values;
        let format = "$http_a|$http_b|$request|$args|$host|$upstream_addr|$upstream_response_time";
        assert_eq!(line(&record, format), "-||-|-|-|-|-\n");
        for escape in ["json", "none"] {
            let format = format!("escape={escape} {format}");
            assert_eq!(line(&record, &format), "||||||\n");
        }
    }

    #[test]
    fn values_are_escaped_as_nginx_does() {
        let mut record = record();
        record.line = b"a\"\\\x1f\x7f\t\xc3\xa9\xff/";
        let none = rendered(&record, "escape=none $request");
        assert_eq!(none, [record.line, b"\n"].concat());
        assert_eq!(
            line(&record, "$request"),
            "a\\x22\\x5C\\x1F\\x7F\\x09\\xC3\\xA9\\xFF/\n"
        );
        assert_eq!(
            line(&record, "escape=json $request"),
            "a\\\"\\\\\\u001F\\u007F\\t\u{e9}\u{fffd}/\n"
        );
    }

    #[test]
    fn a_host_is_shown_without_port_and_a_target_without_authority() {
        for (host, shown) in [
            ("A.Example:80", "a.example"),
            ("a.", "a"),
            ("[::1]:80", "[::1]"),
            ("[::A]", "[::a]"),
        ] {
            let mut record = record();
            record.host = host.as_bytes();
            assert_eq!(line(&record, "$host"), format!("{shown}\n"));
        }
        for (target, shown) in [
            ("http://a/b?c", "/b?c"),
            ("http://a", "/"),
            ("/x://y/z", "/x://y/z"),
            ("*", "*"),
        ] {
            assert_eq!(uri(target.as_bytes()), shown.as_bytes());
        }
    }

    #[test]
    fn a_request_without_an_answer_whose_client_is_gone_has_499() {
        let mut record = record();
        record.status = 0;
        for (close, shown) in [
            (None, "000"),
            (Some("client-gone"), "499"),
            (Some("body-cut"), "499"),
            (Some("draining"), "000"),
        ] {
            record.close = close;
            assert_eq!(line(&record, "$status"), format!("{shown}\n"));
        }
    }

    #[test]
    fn the_user_is_that_of_basic_authentication() {
        for (field, user) in [
            ("Basic YTpi", Some("a")),
            ("basic  YWxhZGRpbjpvcGVuc2VzYW1l", Some("aladdin")),
            ("Basic Ong=", None),
            ("Basic YQ==", None),
            ("Basic !", None),
            ("Basic", None),
            ("Bearer YTpi", None),
        ] {
            let found = BasicUser::of(field.as_bytes());
            let shown = found.map(|it| {
                let mut out = Vec::new();
                it.put(Escape::Default, &mut out);
                String::from_utf8(out).unwrap()
            });
            assert_eq!(shown.as_deref(), user, "{field}");
        }
    }
}
