//! The PROXY protocol's header.

use std::net::SocketAddr;

use graygate::http::proxy_protocol::{Header, Malformed, parse};

/// A header is judged the same however it arrives: once it is whole, or wrong, more bytes change
/// nothing; what it says, said by version 1, is the same.
pub fn proxy_header(bytes: &[u8]) {
    let mut verdict: Option<Result<Header, Malformed>> = None;
    for length in 0..=bytes.len() {
        let now = parse(&bytes[..length]);
        match verdict {
            Some(verdict) => assert_eq!(verdict, now, "with {length} bytes"),
            None if now == Ok(Header::Incomplete) => {}
            None => {
                if let Ok(Header::Complete { len, .. }) = now {
                    assert_eq!(len, length, "noticed late, or early");
                }
                verdict = Some(now);
            }
        }
    }
    if let Some(Ok(Header::Complete { source, .. })) = verdict {
        let header = match source {
            None => "PROXY UNKNOWN\r\n".to_owned(),
            Some(SocketAddr::V4(it)) => {
                format!("PROXY TCP4 {} 127.0.0.1 {} 80\r\n", it.ip(), it.port())
            }
            Some(SocketAddr::V6(it)) => format!("PROXY TCP6 {} ::1 {} 80\r\n", it.ip(), it.port()),
        };
        let len = header.len();
        let again = Ok(Header::Complete { len, source });
        assert_eq!(parse(header.as_bytes()), again);
    }
}
