//! The chunked coding (RFC 9112 section 7.1), decoded in place.
//!
//! Stricter than the grammar: a size is 1 to 16 hexadecimal digits and nothing else, and lines end with
//! CR LF. Extensions are checked and dropped; trailer fields are collected, within the limits of a head.
//!
//! Requests are held to stricter rules, since smuggling is done with requests: no white space around
//! extensions, and a limit to all extensions of the body together. A response may have such white space
//! (BWS), also at the end of a chunk's line, where old servers pad the size; and since it may go on for
//! ever, its limit is for each chunk's line.

use super::head::{ResponseHead, Scanner, Unfit};
use crate::http::bytes::is_token_byte;
use crate::http::fields::Field;
use crate::http::limits::Limits;

/// Most bytes of chunk extensions, in the body of a request or in one chunk of a response.
const MAX_EXTENSIONS: usize = 4096;

/// What is wrong with a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadChunk {
    /// The chunk lines or the bytes between chunks.
    Coding,
    /// A trailer field.
    Trailer,
    /// The trailer section is over a limit.
    TrailerTooLarge,
}

/// What the next bytes of a body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The last this many of the bytes taken are content.
    Content(usize),
    /// More bytes are needed.
    More,
    /// The body is complete.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the size, after this many digits.
    Size(u8),
    /// Behind white space that only a further extension or the line's end may follow.
    BeforeExtension,
    ExtensionName(Begun),
    /// Behind white space after a name.
    ExtensionNamed,
    ExtensionValue(Begun),
    Quoted,
    QuotedPair,
    QuotedEnd,
    SizeFeed,
    Content,
    ContentReturn,
    ContentFeed,
    Trailer,
    End,
}

type Begun = bool;

/// What kind of message the body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A client's.
    Request,
    /// A peer's.
    Response,
}

/// Decodes one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    of: MessageKind,
    /// The current chunk's size as far as it was read, then the bytes of the chunk that are left.
    size: u64,
    /// Bytes of extensions so far, of the body or of the chunk.
    extensions: usize,
    trailer: Vec<u8>,
    scanner: Scanner,
    limits: Limits,
}

/// A trailer section is parsed as a head with this first line: a response's, since a request's must have
/// a Host, which means nothing in a trailer.
const TRAILER_PREFIX: &[u8] = b"HTTP/1.0 200 \r\n";

impl Decoder {
    /// A decoder for a new body, with these limits for its trailer section.
    pub(crate) fn new(of: MessageKind, limits: Limits) -> Self {
        Self {
            state: State::Size(0),
            of,
            size: 0,
            extensions: 0,
            trailer: Vec::new(),
            scanner: Scanner::default(),
            limits,
        }
    }

    /// Decodes from the front of `input`: returns how many bytes were taken, and what they are.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, Piece), BadChunk> {
        let mut taken = 0;
        while let Some(byte) = input.get(taken) {
            match self.state {
                State::Content => {
                    let here = usize::try_from(self.size).unwrap_or(usize::MAX);
                    let length = here.min(input.len() - taken);
                    self.size -= length as u64;
                    if self.size == 0 {
                        self.state = State::ContentReturn;
                    }
                    return Ok((taken + length, Piece::Content(length)));
                }
                State::Trailer => {
                    let (length, ended) = self.take_trailer(&input[taken..])?;
                    taken += length;
                    if ended {
                        self.state = State::End;
                    }
                }
                State::End => return Ok((taken, Piece::End)),
                state => {
                    self.state = self.after(state, *byte)?;
                    taken += 1;
                }
            }
        }
        let piece = match self.state {
            State::End => Piece::End,
            _ => Piece::More,
        };
        Ok((taken, piece))
    }

    /// Bytes of the current chunk's content that are still to come.
    pub(crate) fn left_of_chunk(&self) -> u64 {
        match self.state {
            State::Content => self.size,
            _ => 0,
        }
    }

    /// The state after one byte of a chunk's frame.
    fn after(&mut self, state: State, byte: u8) -> Result<State, BadChunk> {
        use State::*;
        match state {
            Size(0) if self.of == MessageKind::Response => self.extensions = 0,
            Size(_) | SizeFeed | ContentReturn | ContentFeed => {}
            _ => self.extensions += 1,
        }
        if self.extensions > MAX_EXTENSIONS {
            return Err(BadChunk::Coding);
        }
        if self.of == MessageKind::Response && matches!(byte, b' ' | b'\t') {
            match state {
                Size(1..) | BeforeExtension | ExtensionValue(true) | QuotedEnd => {
                    return Ok(BeforeExtension);
                }
                ExtensionName(true) | ExtensionNamed => return Ok(ExtensionNamed),
                ExtensionName(false) | ExtensionValue(false) => return Ok(state),
                _ => {}
            }
        }
        Ok(match (state, byte) {
            (Size(digits), byte) if byte.is_ascii_hexdigit() && digits < 16 => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                self.size = self.size << 4 | u64::from(digit);
                Size(digits + 1)
            }
            (Size(1..) | BeforeExtension | ExtensionNamed, b';') => ExtensionName(false),
            (Size(1..) | ExtensionName(true) | ExtensionValue(true) | QuotedEnd, b'\r') => SizeFeed,
            // There is white space in responses only.
            (BeforeExtension | ExtensionNamed, b'\r') => SizeFeed,
            (ExtensionName(true) | ExtensionValue(true) | QuotedEnd, b';') => ExtensionName(false),
            (ExtensionName(true) | ExtensionNamed, b'=') => ExtensionValue(false),
            (ExtensionName(_), byte) if is_token_byte(byte) => ExtensionName(true),
            (ExtensionValue(false), b'"') => Quoted,
            (ExtensionValue(_), byte) if is_token_byte(byte) => ExtensionValue(true),
            (Quoted, b'"') => QuotedEnd,
            (Quoted, b'\\') => QuotedPair,
            (Quoted | QuotedPair, b'\t' | b' '..=b'~' | 0x80..) => Quoted,
            (SizeFeed, b'\n') if self.size == 0 => Trailer,
            (SizeFeed, b'\n') => Content,
            (ContentReturn, b'\r') => ContentFeed,
            (ContentFeed, b'\n') => Size(0),
            _ => return Err(BadChunk::Coding),
        })
    }

    /// Takes bytes of the trailer section, up to the empty line that ends the body.
    fn take_trailer(&mut self, input: &[u8]) -> Result<(usize, bool), BadChunk> {
        // Nearly always the section is empty.
        if self.trailer.is_empty() && input.starts_with(b"\r\n") {
            return Ok((2, true));
        }
        if self.trailer.is_empty() {
            self.trailer.extend_from_slice(TRAILER_PREFIX);
        }
        // Line by line, so that no byte after the section is taken.
        let length = memchr::memchr(b'\n', input).map_or(input.len(), |feed| feed + 1);
        self.trailer.extend_from_slice(&input[..length]);
        let limits = Limits {
            line: TRAILER_PREFIX.len(),
            head: self.limits.head + TRAILER_PREFIX.len(),
            fields: self.limits.fields,
        };
        match self.scanner.scan(&self.trailer, &limits) {
            Ok(end) => Ok((length, end.is_some())),
            Err(Unfit::BareLineFeed | Unfit::NoHead) => Err(BadChunk::Coding),
            Err(_) => Err(BadChunk::TrailerTooLarge),
        }
    }

    /// Parses the trailer section of a body that has ended into `head`, whose fields then are
    /// the trailer's; returns the bytes that its spans refer to.
    ///
    /// # Errors
    /// When a field is malformed.
    pub fn trailer(&self, head: &mut Trailer) -> Result<&[u8], BadChunk> {
        head.clear();
        if self.trailer.is_empty() {
            return Ok(&[]);
        }
        let limits = Limits {
            line: TRAILER_PREFIX.len(),
            head: usize::MAX,
            fields: self.limits.fields,
        };
        let mut scanner = Scanner::default();
        match head.0.parse(&self.trailer, &mut scanner, &limits) {
            Ok(_) => Ok(&self.trailer),
            Err(_) => Err(BadChunk::Trailer),
        }
    }
}

/// The fields of a trailer section. Its memory is reused.
#[derive(Debug, Default)]
pub struct Trailer(ResponseHead);

impl Trailer {
    /// Clears what an earlier message left.
    pub fn clear(&mut self) {
        self.0.fields.clear();
    }

    /// The fields in their order.
    pub fn fields(&self) -> &[Field] {
        &self.0.fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        line: 100,
        head: 60,
        fields: 3,
    };

    type Decoded = Result<Option<(String, String, usize)>, BadChunk>;

    /// Decodes `input` handed over in pieces that end at `cuts`; content, trailer names, bytes left.
    fn decode(of: MessageKind, input: &[u8], cuts: &[usize]) -> Decoded {
        let mut decoder = Decoder::new(of, LIMITS);
        let (mut content, mut at) = (Vec::new(), 0);
        for cut in cuts.iter().copied().chain([input.len()]) {
            loop {
                let (taken, piece) = decoder.next(&input[at..cut])?;
                at += taken;
                match piece {
                    Piece::Content(length) => content.extend_from_slice(&input[at - length..at]),
                    Piece::More => break,
                    Piece::End => {
                        let mut trailer = Trailer::default();
                        let bytes = decoder.trailer(&mut trailer)?;
                        let names = trailer.fields().iter().map(|it| it.name.of(bytes));
                        let names = names.collect::<Vec<_>>().join(&b',');
                        let text = |bytes| String::from_utf8(bytes).unwrap();
                        return Ok(Some((text(content), text(names), input.len() - at)));
                    }
                }
            }
        }
        Ok(None)
    }

    type Expected<'a> = Result<Option<(&'a str, &'a str, usize)>, BadChunk>;

    /// The same for both.
    fn check(input: &str, expected: Expected<'_>) {
        check_of(MessageKind::Request, input, expected);
        check_of(MessageKind::Response, input, expected);
    }

    fn check_of(of: MessageKind, input: &str, expected: Expected<'_>) {
        let input = input.as_bytes();
        let expected = expected.map(|some| some.map(|(a, b, n)| (a.to_owned(), b.to_owned(), n)));
        assert_eq!(decode(of, input, &[]), expected, "{}", input.escape_ascii());
        for cut in 0..input.len() {
            // What lies behind the end is seen only if it came with the end.
            let left =
                |it: Decoded| it.map(|some| some.map(|(content, names, _)| (content, names)));
            let outcome = left(decode(of, input, &[cut]));
            assert_eq!(
                outcome,
                left(expected.clone()),
                "{} cut at {cut}",
                input.escape_ascii()
            );
        }
        let every: Vec<usize> = (0..input.len()).collect();
        assert_eq!(decode(of, input, &every).is_err(), expected.is_err());
    }

    #[test]
    fn bodies_decode_to_their_content_and_trailers() {
        check("0\r\n\r\n", Ok(Some(("", "", 0))));
        check("5\r\nhello\r\n0\r\n\r\n", Ok(Some(("hello", "", 0))));
        check(
            "00005\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\nGET",
            Ok(Some(("hello0123456789", "", 3))),
        );
        check(
            "1;a;b=c;d=\"e \\\" f\"\r\nx\r\n000;z\r\n\r\n",
            Ok(Some(("x", "", 0))),
        );
        check("0\r\nA: b\r\nC: d\r\n\r\nrest", Ok(Some(("", "A,C", 4))));
        check(
            "0\r\nHost: a\r\nHost: /\r\n\r\n",
            Ok(Some(("", "Host,Host", 0))),
        );
        check("5\r\nhel", Ok(None));
        check("0\r\nA: b\r\n", Ok(None));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for input in [
            "+5\r\nhello\r\n",
            "-0\r\n\r\n",
            "0x5\r\nhello\r\n",
            "5_0\r\n",
            " 5\r\nhello\r\n",
            "\r\n",
            "g\r\n",
            "00000000000000005\r\nhello\r\n",
            "5\nhello\r\n",
            "5\rhello\r\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\r0\r\n\r\n",
            "5;\r\nhello\r\n",
            "5;;a\r\nhello\r\n",
            "5; \r\nhello\r\n",
            "5 a\r\nhello\r\n",
            "5;a b\r\nhello\r\n",
            "5;a= \r\nhello\r\n",
            "5;a=b c\r\nhello\r\n",
            "5;a = b=c\r\nhello\r\n",
            "5;a=\"b\"=c\r\nhello\r\n",
            "5 =a\r\nhello\r\n",
            "5 \n;a\r\nhello\r\n",
            "5;\u{b}a\r\nhello\r\n",
            "5;a=\r\nhello\r\n",
            "5;a=\"b\r\nhello\r\n",
            "5;a=\"b\"c\r\nhello\r\n",
            "5;a\u{1}\r\nhello\r\n",
            "5;a\nhello\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\n",
        ] {
            check(input, Err(BadChunk::Coding));
        }
    }

    #[test]
    fn white_space_behind_the_size_and_around_an_extension_is_a_responses_privilege() {
        for line in [
            "5 ",
            "5  ",
            "5\t",
            "5;a ",
            "5;a=b ",
            "5;a=\"b\" ",
            "5 ;a",
            "5\t \t;a",
            "5; a",
            "5;\ta=b",
            "5;a =b",
            "5;a= b",
            "5;a\t= \t\"b c\" ; d ;e",
            "5;a=b ;c",
            "5;a ;b",
        ] {
            let input = format!("{line}\r\nhello\r\n0\r\n\r\n");
            check_of(MessageKind::Response, &input, Ok(Some(("hello", "", 0))));
            check_of(MessageKind::Request, &input, Err(BadChunk::Coding));
        }
    }

    #[test]
    fn extensions_are_bounded_in_a_requests_body_and_in_each_chunk_of_a_response() {
        let whole = |content: String| Ok(Some((content, String::new(), 0)));
        let chunk = |length: usize| format!("1;{}\r\nx\r\n", "a".repeat(length - 1));
        let last = "0\r\n\r\n";
        // The first byte behind the semicolon, up to the end of the line.
        let fits = chunk(MAX_EXTENSIONS) + last;
        let too_long = chunk(MAX_EXTENSIONS + 1) + last;
        let blanks = format!("1{};a\r\nx\r\n{last}", " ".repeat(MAX_EXTENSIONS + 1));
        let many = chunk(MAX_EXTENSIONS / 2).repeat(100) + last;
        for of in [MessageKind::Request, MessageKind::Response] {
            assert_eq!(decode(of, fits.as_bytes(), &[]), whole("x".to_owned()));
            for bad in [&too_long, &blanks] {
                assert_eq!(decode(of, bad.as_bytes(), &[]), Err(BadChunk::Coding));
            }
        }
        let decoded = decode(MessageKind::Response, many.as_bytes(), &[]);
        assert_eq!(decoded, whole("x".repeat(100)));
        let decoded = decode(MessageKind::Request, many.as_bytes(), &[]);
        assert_eq!(decoded, Err(BadChunk::Coding));
    }

    #[test]
    fn trailers_are_held_to_the_rules_and_limits_of_a_head() {
        check("0\r\nA : b\r\n\r\n", Err(BadChunk::Trailer));
        check("0\r\n b\r\n\r\n", Err(BadChunk::Trailer));
        let large = format!("0\r\nA: {}\r\n\r\n", "b".repeat(60));
        check(&large, Err(BadChunk::TrailerTooLarge));
        check(
            "0\r\nA:\r\nB:\r\nC:\r\nD:\r\n\r\n",
            Err(BadChunk::TrailerTooLarge),
        );
    }
}
