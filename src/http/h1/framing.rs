//! How long a message body is (RFC 9112 section 6).
//!
//! This is where request smuggling is stopped: whatever could be framed in two ways is refused, under a
//! name of its own.

use super::head::{RequestHead, ResponseHead};
use crate::error::Refusal;
use crate::http::fields::{Field, FieldKind, Fields};
use crate::http::version::Version;

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// This many bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// Everything until the connection ends. Responses only.
    UntilClose,
}

/// The framing of a request's body.
///
/// # Errors
/// The refusal with which the request is to be answered.
pub fn of_request(
    head: &RequestHead,
    bytes: &[u8],
    max_body: Option<u64>,
) -> Result<Framing, Refusal> {
    let fields = FramingFields::of(&head.fields);
    if let Some(coding) = fields.coding {
        if head.version == Version::Http10 {
            return Err(Refusal::CodingOnHttp10);
        }
        if fields.length.is_some() {
            return Err(Refusal::LengthAndCoding);
        }
        if fields.codings > 1 {
            return Err(Refusal::BadCoding);
        }
        return match coding.value.of(bytes) {
            value if value.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            value if is_unknown_coding(value) => Err(Refusal::UnknownCoding),
            _ => Err(Refusal::BadCoding),
        };
    }
    match fields.length {
        None => Ok(Framing::None),
        Some(_) if fields.lengths > 1 => Err(Refusal::ManyLengths),
        Some(field) => match parse_length(field.value.of(bytes)) {
            None if field.value.of(bytes).contains(&b',') => Err(Refusal::ManyLengths),
            None => Err(Refusal::BadLength),
            Some(length) if max_body.is_some_and(|max| length > max) => Err(Refusal::BodyTooLarge),
            Some(length) => Ok(Framing::Length(length)),
        },
    }
}

/// The response's framing is malformed or ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFraming;

/// The framing of the body of a final response to a request that was, or was not, a HEAD.
///
/// # Errors
/// When the response must not be used.
pub fn of_response(
    head: &ResponseHead,
    bytes: &[u8],
    to_head: bool,
) -> Result<Framing, BadFraming> {
    let fields = FramingFields::of(&head.fields);
    let framing = match (fields.coding, fields.length) {
        (Some(_), Some(_)) => return Err(BadFraming),
        (Some(coding), None) => {
            let chunked = coding.value.of(bytes).eq_ignore_ascii_case(b"chunked");
            if !chunked || fields.codings > 1 || head.version == Version::Http10 {
                return Err(BadFraming);
            }
            Framing::Chunked
        }
        (None, Some(_)) if fields.lengths > 1 => return Err(BadFraming),
        (None, Some(length)) => {
            Framing::Length(parse_length(length.value.of(bytes)).ok_or(BadFraming)?)
        }
        (None, None) => Framing::UntilClose,
    };
    if to_head || head.status < 200 || head.status == 204 || head.status == 304 {
        return Ok(Framing::None);
    }
    Ok(framing)
}

/// Checks an interim response, which has no body and must not announce one (RFC 9110 section 8.6, RFC
/// 9112 section 6.1). A length of 0 is accepted.
///
/// # Errors
/// When the response must not be used.
pub(crate) fn check_interim(head: &ResponseHead, bytes: &[u8]) -> Result<(), BadFraming> {
    of_response(head, bytes, false)?;
    let speaks_of_body = |field: &Field| match field.kind {
        FieldKind::ContentLength => parse_length(field.value.of(bytes)) != Some(0),
        kind => kind == FieldKind::TransferEncoding,
    };
    match head.fields.iter().any(speaks_of_body) {
        true => Err(BadFraming),
        false => Ok(()),
    }
}

/// The fields that frame a body, with their counts.
#[derive(Default)]
struct FramingFields<'a> {
    length: Option<&'a Field>,
    lengths: usize,
    coding: Option<&'a Field>,
    codings: usize,
}

impl<'a> FramingFields<'a> {
    fn of(fields: &'a Fields) -> Self {
        let mut found = Self::default();
        if !fields.has(FieldKind::ContentLength) && !fields.has(FieldKind::TransferEncoding) {
            return found;
        }
        for field in fields {
            match field.kind {
                FieldKind::ContentLength => {
                    found.length.get_or_insert(field);
                    found.lengths += 1;
                }
                FieldKind::TransferEncoding => {
                    found.coding.get_or_insert(field);
                    found.codings += 1;
                }
                _ => {}
            }
        }
        found
    }
}

/// 1 to 19 digits, below 2^63.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    let digit = |length: u64, byte: &u8| match byte {
        b'0'..=b'9' => Some(length * 10 + u64::from(byte - b'0')),
        _ => None,
    };
    let length = value.iter().try_fold(0, digit)?;
    (length < 1 << 63).then_some(length)
}

/// A token, or list of tokens, other than `chunked` alone: well-formed, but not supported.
fn is_unknown_coding(value: &[u8]) -> bool {
    let is_token = |token: &[u8]| {
        !token.is_empty()
            && token
                .iter()
                .all(|it| crate::http::bytes::is_token_byte(*it))
    };
    value
        .split(|byte| *byte == b',')
        .all(|token| is_token(token.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::head::{Parsed, Scanner};
    use crate::http::limits::Limits;

    const LIMITS: Limits = Limits {
        line: 8192,
        head: 32_768,
        fields: 100,
    };

    fn request(version: &str, fields: &str) -> Result<Framing, Refusal> {
        let bytes = format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        match head.parse(bytes.as_bytes(), &mut Scanner::default(), &LIMITS)? {
            Parsed::Complete => of_request(&head, bytes.as_bytes(), Some(1000)),
            Parsed::Incomplete => panic!("{bytes:?} is incomplete"),
        }
    }

    #[test]
    fn requests_are_framed_in_one_way_or_refused() {
        let nines = "9".repeat(400);
        let table: &[(&str, Result<Framing, Refusal>)] = &[
            ("", Ok(Framing::None)),
            ("Content-Length: 0\r\n", Ok(Framing::Length(0))),
            ("Content-Length: 1000\r\n", Ok(Framing::Length(1000))),
            ("Content-Length: 007\r\n", Ok(Framing::Length(7))),
            ("Content-Length: 1001\r\n", Err(Refusal::BodyTooLarge)),
            ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: CHUNKED \t\r\n", Ok(Framing::Chunked)),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                Err(Refusal::LengthAndCoding),
            ),
            (
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                Err(Refusal::ManyLengths),
            ),
            ("Content-Length: 5, 5\r\n", Err(Refusal::ManyLengths)),
            ("Content-Length: 5,\r\n", Err(Refusal::ManyLengths)),
            ("Content-Length: +5\r\n", Err(Refusal::BadLength)),
            ("Content-Length: -1\r\n", Err(Refusal::BadLength)),
            ("Content-Length: 0x5\r\n", Err(Refusal::BadLength)),
            ("Content-Length: 5 5\r\n", Err(Refusal::BadLength)),
            ("Content-Length: 5_0\r\n", Err(Refusal::BadLength)),
            ("Content-Length:\r\n", Err(Refusal::BadLength)),
            (
                "Content-Length: 9223372036854775808\r\n",
                Err(Refusal::BadLength),
            ),
            (
                "Content-Length: 18446744073709551621\r\n",
                Err(Refusal::BadLength),
            ),
            (
                &format!("Content-Length: {nines}\r\n"),
                Err(Refusal::BadLength),
            ),
            (
                "Transfer-Encoding: xchunked\r\n",
                Err(Refusal::UnknownCoding),
            ),
            (
                "Transfer-Encoding: identity\r\n",
                Err(Refusal::UnknownCoding),
            ),
            (
                "Transfer-Encoding: gzip, chunked\r\n",
                Err(Refusal::UnknownCoding),
            ),
            (
                "Transfer-Encoding: chunked, x\r\n",
                Err(Refusal::UnknownCoding),
            ),
            (
                "Transfer-Encoding: \"chunked\"\r\n",
                Err(Refusal::BadCoding),
            ),
            ("Transfer-Encoding: chunked;x\r\n", Err(Refusal::BadCoding)),
            ("Transfer-Encoding: ,chunked\r\n", Err(Refusal::BadCoding)),
            ("Transfer-Encoding: chunked,\r\n", Err(Refusal::BadCoding)),
            ("Transfer-Encoding:\r\n", Err(Refusal::BadCoding)),
            (
                "Transfer-Encoding: \u{b}chunked\r\n",
                Err(Refusal::BadField),
            ),
            ("Transfer-Encoding: chunked\0\r\n", Err(Refusal::BadField)),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err(Refusal::BadCoding),
            ),
            ("Transfer-Encoding : chunked\r\n", Err(Refusal::BadField)),
            ("Transfer-Encoding:\r\n chunked\r\n", Err(Refusal::BadField)),
            ("Transfer_Encoding: chunked\r\n", Ok(Framing::None)),
        ];
        for (fields, expected) in table {
            assert_eq!(request("1.1", fields), *expected, "{fields:?}");
        }
        assert_eq!(
            request("1.0", "Transfer-Encoding: chunked\r\n"),
            Err(Refusal::CodingOnHttp10)
        );
    }

    #[test]
    fn an_interim_response_does_not_speak_of_a_body() {
        for (fields, expected) in [
            ("", Ok(())),
            ("\r\nContent-Length: 0", Ok(())),
            ("\r\nContent-Length: 1", Err(BadFraming)),
            (
                "\r\nContent-Length: 0\r\nContent-Length: 0",
                Err(BadFraming),
            ),
            ("\r\nTransfer-Encoding: chunked", Err(BadFraming)),
            ("\r\nContent-Length: x", Err(BadFraming)),
        ] {
            let bytes = format!("HTTP/1.1 103 Early Hints{fields}\r\n\r\n");
            let mut head = ResponseHead::default();
            let parsed = head.parse(bytes.as_bytes(), &mut Scanner::default(), &LIMITS);
            assert_eq!(parsed, Ok(Parsed::Complete));
            assert_eq!(check_interim(&head, bytes.as_bytes()), expected, "{fields}");
        }
    }

    fn response(head_text: &str, to_head: bool) -> Result<Framing, BadFraming> {
        let bytes = format!("HTTP/{head_text}\r\n\r\n");
        let mut head = ResponseHead::default();
        let parsed = head.parse(bytes.as_bytes(), &mut Scanner::default(), &LIMITS);
        assert_eq!(parsed, Ok(Parsed::Complete), "{bytes:?}");
        of_response(&head, bytes.as_bytes(), to_head)
    }

    #[test]
    fn responses_are_framed_in_one_way_or_not_used() {
        let table: &[(&str, bool, Result<Framing, BadFraming>)] = &[
            ("1.1 200 OK", false, Ok(Framing::UntilClose)),
            (
                "1.1 200 OK\r\nContent-Length: 5",
                false,
                Ok(Framing::Length(5)),
            ),
            ("1.1 200 OK\r\nContent-Length: 5", true, Ok(Framing::None)),
            ("1.1 204 No\r\nContent-Length: 5", false, Ok(Framing::None)),
            ("1.1 304 Not\r\nContent-Length: 5", false, Ok(Framing::None)),
            (
                "1.1 200 OK\r\nTransfer-Encoding: chunked",
                false,
                Ok(Framing::Chunked),
            ),
            (
                "1.0 200 OK\r\nTransfer-Encoding: chunked",
                false,
                Err(BadFraming),
            ),
            (
                "1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
                false,
                Err(BadFraming),
            ),
            (
                "1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5",
                false,
                Err(BadFraming),
            ),
            (
                "1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
                true,
                Err(BadFraming),
            ),
            ("1.1 200 OK\r\nContent-Length: x", false, Err(BadFraming)),
        ];
        for (head, to_head, expected) in table {
            assert_eq!(response(head, *to_head), *expected, "{head:?}");
        }
    }
}
