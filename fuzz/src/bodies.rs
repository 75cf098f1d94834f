//! Bodies in the chunked coding.

use graygate::http::fields::ConnectionOptions;
use graygate::http::h1::body::BodyReader;
use graygate::http::h1::chunked::{MessageKind, Piece, Trailer};
use graygate::http::h1::encode;
use graygate::http::h1::framing::Framing;

use super::{LIMITS, arrivals};

/// What became of a body.
#[derive(Debug, PartialEq)]
enum Decoded {
    /// It has ended after so many bytes; its content, and its trailer fields as passed on.
    Whole(usize, Vec<u8>, Vec<u8>),
    /// Its content so far.
    Begun(Vec<u8>),
    /// How much was taken before it was known to be bad is of no interest.
    Bad(String),
}

fn decode(of: MessageKind, bytes: &[u8], arrivals: &[usize]) -> Decoded {
    let mut reader = BodyReader::new(of, Framing::Chunked, LIMITS);
    let (mut content, mut at) = (Vec::new(), 0);
    for length in arrivals {
        loop {
            let (taken, piece) = match reader.next(&bytes[at..*length]) {
                Ok(next) => next,
                Err(bad) => return Decoded::Bad(format!("{bad:?}")),
            };
            assert!(taken <= length - at, "{taken} bytes of {}", length - at);
            at += taken;
            match piece {
                Piece::Content(length) => {
                    assert!(0 < length && length <= taken);
                    content.extend_from_slice(&bytes[at - length..at]);
                }
                Piece::More => {
                    assert_eq!(at, *length, "more is wanted, and not all was taken");
                    break;
                }
                Piece::End => {
                    let mut trailer = Trailer::default();
                    let mut end = Vec::new();
                    return match reader.trailer(&mut trailer) {
                        Ok(bytes) => {
                            encode::last_chunk(
                                &mut end,
                                &trailer,
                                bytes,
                                &ConnectionOptions::default(),
                            );
                            Decoded::Whole(at, content, end)
                        }
                        Err(bad) => Decoded::Bad(format!("{bad:?}")),
                    };
                }
            }
        }
    }
    Decoded::Begun(content)
}

/// A body decodes to the same however it arrives, and not a byte too many is taken; written anew
/// it decodes to the same content. What a request may have, a response may have, too.
pub fn chunked(bytes: &[u8]) {
    let of_request = decode(MessageKind::Request, bytes, &[bytes.len()]);
    let of_response = decode(MessageKind::Response, bytes, &[bytes.len()]);
    if !matches!(of_request, Decoded::Bad(_)) {
        assert_eq!(of_request, of_response);
    }
    chunked_of(MessageKind::Request, of_request, bytes);
    chunked_of(MessageKind::Response, of_response, bytes);
}

fn chunked_of(of: MessageKind, whole: Decoded, bytes: &[u8]) {
    for arrivals in arrivals(bytes) {
        assert_eq!(whole, decode(of, bytes, &arrivals));
    }
    let Decoded::Whole(taken, content, end) = whole else {
        return;
    };
    // Its last byte, and none behind it, is part of it.
    assert!(matches!(decode(of, bytes, &[taken - 1]), Decoded::Begun(_)));
    assert!(matches!(decode(of, bytes, &[taken]), Decoded::Whole(it, ..) if it == taken));
    let mut anew = Vec::new();
    for piece in content.chunks(7) {
        encode::chunk_line(&mut anew, piece.len());
        anew.extend_from_slice(piece);
        anew.extend_from_slice(b"\r\n");
    }
    anew.extend_from_slice(&end);
    assert_eq!(
        // As strict as a request is held to.
        decode(MessageKind::Request, &anew, &[anew.len()]),
        Decoded::Whole(anew.len(), content, end)
    );
}
