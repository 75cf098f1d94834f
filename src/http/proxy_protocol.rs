//! The PROXY protocol, versions 1 and 2: what a proxy in front says of a connection before its
//! first byte. Source: "The PROXY protocol, Versions 1 & 2" by Willy Tarreau (HAProxy's
//! documentation), sections 2.1 and 2.2.
//!
//! Bytes in, verdict out, as in [`crate::http`]. Strict: a header that does not match the grammar
//! exactly is refused, since it says who the client is.
//!
//! Not here: who may send one (`trusted_proxies`), and until when.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The end of the header has not arrived yet.
    Incomplete,
    /// The header is complete.
    Complete {
        /// Its length in bytes.
        len: usize,
        /// Where the connection comes from; `None` when it is the proxy's own (a health check), or the
        /// proxy does not know.
        source: Option<SocketAddr>,
    },
}

/// The bytes are not a PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The longest header of version 1, with CR LF.
const LONGEST_V1: usize = 107;

/// The most that may follow the fixed part of a header of version 2: addresses, and whatever else a
/// proxy adds (certificates, names). The protocol allows 64 KiB.
const LONGEST_V2: usize = 4096;

const BEGIN_V1: &[u8] = b"PROXY ";
const BEGIN_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the header at the start of `bytes`.
///
/// # Errors
/// When they are not the beginning of a header.
pub fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
    let begins_like = |begin: &[u8]| {
        let length = begin.len().min(bytes.len());
        begin[..length] == bytes[..length]
    };
    match () {
        () if bytes.is_empty() => Ok(Header::Incomplete),
        () if begins_like(BEGIN_V1) => parse_v1(bytes),
        () if begins_like(BEGIN_V2) => parse_v2(bytes),
        () => Err(Malformed),
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Header, Malformed> {
    let window = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = memchr::memchr2(b'\r', b'\n', window) else {
        return match window.len() {
            LONGEST_V1 => Err(Malformed),
            _ => Ok(Header::Incomplete),
        };
    };
    match window[end..] {
        [b'\r', b'\n', ..] => {}
        // The LF may be on its way, if there is room for it.
        [b'\r'] if end + 1 < LONGEST_V1 => return Ok(Header::Incomplete),
        _ => return Err(Malformed),
    }
    let line = std::str::from_utf8(&window[..end]).map_err(|_| Malformed)?;
    let len = end + 2;
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    let source = match words[..] {
        // Whatever follows has no meaning.
        ["UNKNOWN", ..] => None,
        ["TCP4", source, destination, from, to] => {
            destination.parse::<Ipv4Addr>().map_err(|_| Malformed)?;
            let source = source.parse::<Ipv4Addr>().map_err(|_| Malformed)?;
            Some((IpAddr::V4(source), port(from)?, port(to)?))
        }
        ["TCP6", source, destination, from, to] => {
            destination.parse::<Ipv6Addr>().map_err(|_| Malformed)?;
            let source = source.parse::<Ipv6Addr>().map_err(|_| Malformed)?;
            Some((IpAddr::V6(source), port(from)?, port(to)?))
        }
        _ => return Err(Malformed),
    };
    let source = source.map(|(address, port, _)| SocketAddr::new(address, port));
    Ok(Header::Complete { len, source })
}

/// A decimal number from 0 to 65535 without leading zeros.
fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if plain && (text == "0" || !text.starts_with('0')) => Ok(port),
        _ => Err(Malformed),
    }
}

fn parse_v2(bytes: &[u8]) -> Result<Header, Malformed> {
    let Some((&[version_command, family], rest)) = bytes
        .get(BEGIN_V2.len()..)
        .and_then(<[u8]>::split_first_chunk)
    else {
        // The first of the two bytes may be wrong already.
        return match bytes.get(BEGIN_V2.len()) {
            Some(byte) if !matches!(byte, 0x20 | 0x21) => Err(Malformed),
            _ => Ok(Header::Incomplete),
        };
    };
    let is_local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed),
    };
    let Some((length, rest)) = rest.split_first_chunk() else {
        return Ok(Header::Incomplete);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > LONGEST_V2 {
        return Err(Malformed);
    }
    let Some(payload) = rest.get(..length) else {
        return Ok(Header::Incomplete);
    };
    let len = BEGIN_V2.len() + 4 + length;
    let (source, more) = match family {
        // The proxy's own connection, or one of unknown origin: its addresses are ignored.
        _ if is_local => return Ok(Header::Complete { len, source: None }),
        0x00 => return Ok(Header::Complete { len, source: None }),
        // TCP over IPv4: two addresses, two ports.
        0x11 => {
            let (parts, more) = payload.split_first_chunk::<12>().ok_or(Malformed)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *parts;
            (
                SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))),
                more,
            )
        }
        // TCP over IPv6.
        0x21 => {
            let (address, more) = payload.split_first_chunk::<16>().ok_or(Malformed)?;
            let (_, more) = more.split_first_chunk::<16>().ok_or(Malformed)?;
            let (&[high, low, _, _], more) = more.split_first_chunk().ok_or(Malformed)?;
            (
                SocketAddr::from((*address, u16::from_be_bytes([high, low]))),
                more,
            )
        }
        // HTTP comes over neither datagrams nor Unix sockets.
        _ => return Err(Malformed),
    };
    check_additions(more)?;
    let source = Some(source);
    Ok(Header::Complete { len, source })
}

/// After the addresses come vectors of type, length and value, whose content is not looked at.
fn check_additions(mut rest: &[u8]) -> Result<(), Malformed> {
    while !rest.is_empty() {
        let ([_, high, low], values) = rest.split_first_chunk().ok_or(Malformed)?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        rest = values.get(length..).ok_or(Malformed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome for `bytes` with something behind them; cut anywhere, they are incomplete, or
    /// refused already if they are refused as a whole.
    fn check(bytes: &[u8], expected: Result<Option<&str>, Malformed>) {
        let expected = expected.map(|source| Header::Complete {
            len: bytes.len(),
            source: source.map(|it| it.parse().unwrap()),
        });
        let text = bytes.escape_ascii();
        assert_eq!(parse(&[bytes, b"GET / "].concat()), expected, "{text}");
        for cut in 0..bytes.len() {
            match parse(&bytes[..cut]) {
                Ok(Header::Incomplete) => {}
                outcome => assert_eq!(
                    (outcome, expected),
                    (Err(Malformed), outcome),
                    "{text} at {cut}"
                ),
            }
        }
    }

    #[test]
    fn lines_of_version_1() {
        let source = Some("192.0.2.1:56324");
        check(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", Ok(source));
        check(
            b"PROXY TCP4 192.0.2.1 192.0.2.2 0 65535\r\n",
            Ok(Some("192.0.2.1:0")),
        );
        check(
            b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
            Ok(Some("[2001:db8::1]:1")),
        );
        check(b"PROXY UNKNOWN\r\n", Ok(None));
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Ok(None));
        let longest = [b"PROXY UNKNOWN ", &[b'x'; 107 - 16][..], b"\r\n"].concat();
        check(&longest, Ok(None));
        let too_long = [b"PROXY UNKNOWN ", &[b'x'; 108 - 16][..], b"\r\n"].concat();
        check(&too_long, Err(Malformed));
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\rx",
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 1\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 \r\n",
            "PROXY TCP4 192.0.2.01 192.0.2.2 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.256 56324 443\r\n",
            "PROXY TCP4 ::1 ::2 56324 443\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 065 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +65 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 -1 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 x\r\n",
            "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY UNKNOWN\n\r\n",
            "PROXY \r\n",
            "PROXY\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "GET / HTTP/1.1\r\n",
            "\r\nPROXY UNKNOWN\r\n",
        ] {
            check(line.as_bytes(), Err(Malformed));
        }
    }

    fn version_2(kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [BEGIN_V2, &kind[..], &length[..], payload].concat()
    }

    #[test]
    fn headers_of_version_2() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 4, 1, 0xbb];
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33]) = (1, 2, 80);
        let more = |addresses: &[u8], more: &[u8]| [addresses, more].concat();
        let source = Some("192.0.2.1:56324");
        check(&version_2([0x21, 0x11], &v4), Ok(source));
        check(&version_2([0x21, 0x21], &v6), Ok(Some("[::1]:80")));
        let additions = [4, 0, 2, 9, 9, 3, 0, 0];
        check(&version_2([0x21, 0x11], &more(&v4, &additions)), Ok(source));
        check(
            &version_2([0x21, 0x21], &more(&v6, &additions)),
            Ok(Some("[::1]:80")),
        );
        check(&version_2([0x20, 0x00], b""), Ok(None));
        check(&version_2([0x20, 0x11], &v4), Ok(None));
        check(&version_2([0x20, 0xff], b"anything"), Ok(None));
        check(&version_2([0x21, 0x00], b"anything"), Ok(None));
        check(&version_2([0x20, 0x00], &[0; LONGEST_V2]), Ok(None));
        for (kind, payload) in [
            ([0x11, 0x11], &v4[..]),
            ([0x31, 0x11], &v4),
            ([0x22, 0x11], &v4),
            ([0x21, 0x11], &v4[..11]),
            ([0x21, 0x21], &v6[..35]),
            ([0x21, 0x12], &v4),
            ([0x21, 0x31], &[0; 216]),
            ([0x21, 0x41], &v4),
            ([0x20, 0x00], &[0; LONGEST_V2 + 1]),
            ([0x21, 0x11], &more(&v4, &[4])),
            ([0x21, 0x11], &more(&v4, &[4, 0, 2, 9])),
        ] {
            check(&version_2(kind, payload), Err(Malformed));
        }
        let mut wrong = version_2([0x21, 0x11], &v4);
        wrong[11] = b'x';
        check(&wrong, Err(Malformed));
    }
}
