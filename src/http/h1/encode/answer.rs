//! Answers of the gateway's own.

use super::lines::{put_framing, put_status};
use super::response::Connection;
use super::text::{put, put_decimal};
use crate::error::{Refusal, reason_phrase};
use crate::http::h1::framing::Framing;
use crate::http::version::Version;

/// One of the gateway's own answers.
pub(crate) struct Answer<'a> {
    /// The status.
    pub(crate) status: u16,
    /// The name of the reason, which is the body.
    pub(crate) name: &'a str,
    /// What the answer says about the connection.
    pub(crate) connection: Connection,
    /// The request was a HEAD: no body.
    pub(crate) to_head: bool,
    /// The client's version.
    pub(crate) version: Version,
    /// More lines, each with its CR LF.
    pub(crate) added: &'a [u8],
}

/// Appends the [`answer`] for a refusal, in HTTP/1.1, after which the connection ends.
pub(crate) fn refusal(out: &mut Vec<u8>, refusal: Refusal) {
    let refused = Answer {
        status: refusal.status(),
        name: refusal.name(),
        connection: Connection::Close,
        to_head: false,
        version: Version::Http11,
        added: b"",
    };
    answer(out, &refused);
}

/// Appends one of the gateway's own answers: a length, a short text, and no version of the program. Returns
/// where its body begins.
pub(crate) fn answer(out: &mut Vec<u8>, answer: &Answer<'_>) -> usize {
    let phrase = reason_phrase(answer.status);
    let length = "000 : \n".len() + phrase.len() + answer.name.len();
    put_status(out, answer.status, phrase.as_bytes());
    put(out, &[b"Content-Type: text/plain\r\n"]);
    put_framing(out, Framing::Length(length as u64));
    if matches!(answer.status, 200 | 405) {
        // Peers may serve other methods, too; these are the ones that HTTP itself defines.
        put(
            out,
            &[b"Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n"],
        );
    }
    match (answer.connection, answer.version) {
        (Connection::KeepAlive, Version::Http11) => {}
        (Connection::KeepAlive, Version::Http10) => put(out, &[b"Connection: keep-alive\r\n"]),
        _ => put(out, &[b"Connection: close\r\n"]),
    }
    put(out, &[answer.added, b"\r\n"]);
    let body = out.len();
    if !answer.to_head {
        put_decimal(out, u64::from(answer.status));
        put(
            out,
            &[
                b" ",
                phrase.as_bytes(),
                b": ",
                answer.name.as_bytes(),
                b"\n",
            ],
        );
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_answer_has_the_length_of_its_text() {
        let mut out = Vec::new();
        let refusal = Answer {
            status: 400,
            name: "many-hosts",
            connection: Connection::Close,
            to_head: false,
            version: Version::Http11,
            added: b"",
        };
        answer(&mut out, &refusal);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "400 Bad Request: many-hosts\n");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    }
}
