//! Where a reply ends, and the entries in it (RESP2). Pure: no I/O.
//!
//! The library turns replies into values, except for the entries of lists: each of a million entries
//! would be a value of its own, several times over. Here they are copied once, from the received bytes
//! to those that are kept.
//!
//! Every reply is bounded ([`Bounds`]), which is checked when a length is announced, and not only when
//! that many bytes have arrived.

use std::ops::Range;

use memchr::memchr;
use redis::RedisResult;

use super::errors::{io_error, too_long};
use crate::lists::LONGEST_ENTRY;
use crate::store::reading::LONGEST_TEXT;
use crate::store::{Entries, heavy};

/// The longest line: a status, an error or a length.
const LONGEST_LINE: usize = 64 * 1024;

/// The length of the shortest value: `+`, and the end of its line.
const SHORTEST: usize = 3;

/// How much of a text is kept: enough to see that it is too long to be about a release.
const KEPT: usize = LONGEST_TEXT + 1;

/// How much of an entry is: enough to see that it is too long to be one.
const KEPT_ENTRY: usize = LONGEST_ENTRY + 1;

/// How long a reply may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// As a whole, in bytes as received.
    whole: usize,
    /// How much of each text in it is kept.
    text: usize,
}

impl Bounds {
    /// Of everything but the lists. The longest are invalidations, which name as many keys as were
    /// written at once, and the heartbeats of a large fleet.
    pub(crate) const WORDS: Self = Self {
        whole: 16 << 20,
        text: usize::MAX,
    };

    /// Of one text, which is kept as a whole.
    pub(crate) const fn text(whole: usize) -> Self {
        Self {
            whole,
            text: usize::MAX,
        }
    }

    /// Of lists, which have this many bytes at most.
    pub(crate) const fn lists(whole: usize) -> Self {
        Self { whole, text: KEPT }
    }
}

/// Scans bytes, as they arrive, for the end of a reply.
#[derive(Debug)]
pub(crate) struct Scan {
    at: usize,
    /// Values that are still to come.
    left: usize,
    /// How many of the next bytes are not kept.
    surplus: usize,
    /// How many bytes are not kept of all that were announced so far.
    not_kept: usize,
    /// Values of the outermost list that have not begun, once its length is known.
    outer: Option<usize>,
    /// Values of it that have.
    begun: usize,
    /// Where the last of those begins.
    begins_at: usize,
    /// The index of the longest of them, and its length.
    longest: (usize, usize),
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            at: 0,
            left: 1,
            surplus: 0,
            not_kept: 0,
            outer: None,
            begun: 0,
            begins_at: 0,
            longest: (0, 0),
        }
    }
}

/// What a [`Scan`] has found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScanEnd {
    /// A whole reply of this length.
    Whole(usize),
    /// More is to come.
    Partial,
    /// These bytes are not kept: they must be removed before the next call.
    Surplus(Range<usize>),
}

impl Scan {
    /// The length of the reply at the beginning of `bytes`, once all of it has arrived. `bytes` are
    /// those of the previous call, without what was not to be kept, and what has arrived since.
    ///
    /// # Errors
    /// When this is not a reply, or will be longer than the `bounds` allow.
    pub(crate) fn end(&mut self, bytes: &[u8], bounds: Bounds) -> RedisResult<ScanEnd> {
        while self.left > 0 || self.surplus > 0 {
            if self.surplus > 0 {
                let come = self.surplus.min(bytes.len() - self.at);
                self.surplus -= come;
                return Ok(match come {
                    0 => ScanEnd::Partial,
                    _ => ScanEnd::Surplus(self.at..self.at + come),
                });
            }
            let Some(head) = Head::read(&bytes[self.at..])? else {
                return Ok(ScanEnd::Partial);
            };
            let (length, surplus, more) = match head.kind {
                b'$' => (head.length(bounds.text), head.surplus(bounds.text), 0),
                b'*' => (head.line, 0, head.count),
                _ => (head.line, 0, 0),
            };
            let come = self.at + self.not_kept;
            let others = (self.left - 1).saturating_add(more);
            let announced =
                (come + length + surplus).saturating_add(others.saturating_mul(SHORTEST));
            if announced > bounds.whole {
                self.count_outer(more, come);
                self.measure_outer(announced);
                return Err(too_long(bounds.whole));
            }
            if bytes.len() - self.at < length {
                return Ok(ScanEnd::Partial);
            }
            self.count_outer(more, come);
            self.at += length;
            self.surplus = surplus;
            self.not_kept += surplus;
            self.left = others;
        }
        Ok(ScanEnd::Whole(self.at))
    }

    /// Notes a value, or the beginning of one, that begins here, and contains this many others.
    fn count_outer(&mut self, more: usize, start: usize) {
        match self.outer {
            None => self.outer = Some(more),
            Some(outer) if outer == self.left => {
                self.measure_outer(start);
                self.begun += 1;
                self.begins_at = start;
                self.outer = Some(outer - 1);
            }
            Some(_) => {}
        }
    }

    /// Notes the length of the last value of the outermost list, which ends here.
    fn measure_outer(&mut self, end: usize) {
        let length = end - self.begins_at;
        if self.begun > 0 && length > self.longest.1 {
            self.longest = (self.begun - 1, length);
        }
    }

    /// The index, in the list that a reply is which is too long, of the longest value so far, and how many
    /// bytes it has or was to have at least.
    pub(crate) const fn longest(&self) -> (usize, usize) {
        self.longest
    }

    /// The index, in the list that the reply is, of the last value that has arrived or begun.
    pub(crate) fn reached(&self) -> usize {
        self.begun.saturating_sub(1)
    }
}

/// The first line of a value.
struct Head {
    kind: u8,
    /// Its length, with its end.
    line: usize,
    /// The number of bytes or of values that follow.
    count: usize,
    /// There is no value.
    is_nil: bool,
}

impl Head {
    /// Parses it; `None` when it is incomplete.
    fn read(bytes: &[u8]) -> RedisResult<Option<Self>> {
        let no_reply = || Err(io_error("the server's answer is not a Redis reply"));
        let Some(kind) = bytes.first().copied() else {
            return Ok(None);
        };
        if !matches!(kind, b'+' | b'-' | b':' | b'$' | b'*') {
            return no_reply();
        }
        let seen = &bytes[..bytes.len().min(LONGEST_LINE)];
        let Some(feed) = memchr(b'\n', seen) else {
            return match seen.len() {
                LONGEST_LINE => no_reply(),
                _ => Ok(None),
            };
        };
        let Some(text) = seen[1..feed].strip_suffix(b"\r") else {
            return no_reply();
        };
        let is_nil = matches!((kind, text), (b'$' | b'*', b"-1"));
        let count = match kind {
            b'$' | b'*' if !is_nil => number(text),
            _ => Some(0),
        };
        match count {
            Some(count) => Ok(Some(Self {
                kind,
                line: feed + 1,
                count,
                is_nil,
            })),
            None => no_reply(),
        }
    }

    /// Where a text ends of which this much is kept, once that is there.
    fn text_end(&self, kept: usize) -> Option<usize> {
        (self.kind == b'$' && !self.is_nil).then(|| self.line + self.count.min(kept))
    }

    /// The length of a value that contains no others, if this much of a text is kept. It is followed by
    /// a line end, or by two more bytes of the text in its place.
    fn length(&self, kept: usize) -> usize {
        self.text_end(kept).map_or(self.line, |end| end + 2)
    }

    /// What is not kept of a text.
    fn surplus(&self, kept: usize) -> usize {
        self.count.saturating_sub(kept)
    }
}

/// A length. No length that can occur has more digits.
fn number(text: &[u8]) -> Option<usize> {
    if text.is_empty() || text.len() > 12 {
        return None;
    }
    text.iter().try_fold(0, |number: usize, digit| {
        let digit = digit.checked_sub(b'0').filter(|it| *it <= 9)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// The replies of a transaction, one after the other, within [`Bounds::lists`].
pub(crate) struct Replies<'a> {
    rest: &'a [u8],
}

impl<'a> Replies<'a> {
    /// From the bytes of one whole reply; `None` when the transaction was aborted.
    ///
    /// # Errors
    /// The reply, if it is an error; or when it is something else.
    pub(crate) fn of(reply: &'a [u8]) -> RedisResult<Option<Self>> {
        match Head::read(reply)? {
            Some(head) if head.kind == b'*' && head.is_nil => Ok(None),
            Some(head) if head.kind == b'*' => Ok(Some(Self {
                rest: &reply[head.line..],
            })),
            _ => {
                redis::parse_redis_value(reply)?.extract_error()?;
                Err(io_error("EXEC did not return a list of replies"))
            }
        }
    }

    /// Some of those replies, from the first of them on.
    pub(crate) const fn from_first(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// What is left of them.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Passes over a reply.
    ///
    /// # Errors
    /// When it is not one.
    pub(crate) fn skip(&mut self) -> RedisResult<()> {
        let mut left: usize = 1;
        while left > 0 {
            let head = Head::read(self.rest)?;
            let head = head.ok_or_else(|| io_error("the transaction has too few replies"))?;
            let (length, more) = match head.kind {
                b'*' => (head.line, head.count),
                _ => (head.length(KEPT), 0),
            };
            self.rest = self.rest.get(length..).unwrap_or_default();
            left = left - 1 + more;
        }
        Ok(())
    }

    /// The next reply as a text, if it is one.
    ///
    /// # Errors
    /// The reply, if it is an error; or when it is something else.
    pub(crate) fn string(&mut self) -> RedisResult<Option<Vec<u8>>> {
        let head = Head::read(self.rest)?;
        let head = head.ok_or_else(|| io_error("the transaction has too few replies"))?;
        match head.kind {
            b'$' if head.is_nil => {
                self.rest = &self.rest[head.line..];
                Ok(None)
            }
            b'$' => Ok(self.text()?.map(<[u8]>::to_vec)),
            _ => {
                let end = head.line.min(self.rest.len());
                let (reply, rest) = self.rest.split_at(end);
                self.rest = rest;
                redis::parse_redis_value(reply)?.extract_error()?;
                Err(io_error("it is not a text"))
            }
        }
    }

    /// The next reply as entries.
    ///
    /// # Errors
    /// The reply, if it is an error; or when it is something else.
    pub(crate) fn entries(&mut self) -> RedisResult<Entries> {
        let head = Head::read(self.rest)?;
        let head = head.ok_or_else(|| io_error("the transaction has too few replies"))?;
        if head.kind != b'*' {
            let end = head.length(KEPT).min(self.rest.len());
            let (reply, rest) = self.rest.split_at(end);
            self.rest = rest;
            redis::parse_redis_value(reply)?.extract_error()?;
            return Err(io_error("the entries are not a list"));
        }
        self.rest = &self.rest[head.line..];
        // An entry takes at least 6 bytes here: `$0`, two line ends.
        let most = self.rest.len() / 6;
        let mut entries =
            Entries::with_capacity(head.count.min(most), heavy::room(self.rest.len()));
        for _ in 0..head.count {
            let entry = self.text()?;
            let entry = entry.ok_or_else(|| io_error("an entry is not text"))?;
            entries.push(&entry[..entry.len().min(KEPT_ENTRY)]);
        }
        Ok(entries)
    }

    fn text(&mut self) -> RedisResult<Option<&'a [u8]>> {
        let Some(head) = Head::read(self.rest)? else {
            return Ok(None);
        };
        let Some(end) = head.text_end(KEPT) else {
            return Ok(None);
        };
        let (text, rest) = (self.rest.get(head.line..end), self.rest.get(end + 2..));
        self.rest = rest.unwrap_or_default();
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use redis::Value;

    use super::*;
    use crate::store::redis::errors::is_too_long;

    /// The end of the reply that `bytes` begin with, as they come in these pieces.
    fn end(bytes: &[u8], pieces: impl Iterator<Item = usize>) -> RedisResult<Option<usize>> {
        let mut scan = Scan::default();
        for come in pieces {
            if let ScanEnd::Whole(end) = scan.end(&bytes[..come], Bounds::WORDS)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// What is kept of a reply that comes in pieces of this length, and which value was reached.
    fn kept(bytes: &[u8], piece: usize, bounds: Bounds) -> (RedisResult<Vec<u8>>, usize) {
        let (mut scan, mut kept) = (Scan::default(), Vec::new());
        let mut pieces = bytes.chunks(piece);
        let outcome = loop {
            match scan.end(&kept, bounds) {
                Ok(ScanEnd::Whole(length)) => {
                    assert_eq!((length, pieces.next()), (kept.len(), None));
                    break Ok(kept);
                }
                Ok(ScanEnd::Surplus(range)) => drop(kept.drain(range)),
                Ok(ScanEnd::Partial) => kept.extend(pieces.next().unwrap()),
                Err(error) => break Err(error),
            }
            assert!(kept.len() <= bytes.len().min(KEPT * 4 + 200 + piece));
        };
        (outcome, scan.reached())
    }

    fn texts(lengths: &[usize]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", lengths.len()).into_bytes();
        for length in lengths {
            bytes.extend(format!("${length}\r\n{}\r\n", "x".repeat(*length)).into_bytes());
        }
        bytes
    }

    /// Replies of all kinds, as bytes.
    fn reply() -> impl Strategy<Value = Vec<u8>> {
        let text = vec(any::<u8>(), 0..20).prop_map(|text| {
            let head = format!("${}\r\n", text.len());
            [head.as_bytes(), &text, b"\r\n"].concat()
        });
        let line = prop::sample::select(vec![
            "+",
            "+OK",
            "+QUEUED",
            ":0",
            ":-17",
            "-ERR no",
            "-WRONGTYPE no",
            "$-1",
            "*-1",
            "*0",
        ]);
        let line = line.prop_map(|it| format!("{it}\r\n").into_bytes());
        let flat = prop_oneof![2 => text, 1 => line];
        flat.prop_recursive(3, 40, 8, |inner| {
            vec(inner, 0..8).prop_map(|all| {
                let head = format!("*{}\r\n", all.len());
                [head.into_bytes(), all.concat()].concat()
            })
        })
    }

    proptest! {
        #[test]
        fn a_reply_ends_where_the_parser_says_however_it_comes(reply in reply(), more in reply()) {
            let bytes = [&reply[..], &more].concat();
            let whole = end(&bytes, 0..=bytes.len()).unwrap();
            prop_assert_eq!(whole, Some(reply.len()));
            prop_assert_eq!(end(&bytes, [bytes.len()].into_iter()).unwrap(), Some(reply.len()));
            prop_assert!(end(&reply, 0..reply.len()).unwrap().is_none());
            prop_assert!(redis::parse_redis_value(&reply).is_ok());
        }

        #[test]
        fn entries_are_those_of_the_parser(texts in vec(vec(any::<u8>(), 0..20), 0..20)) {
            let mut bytes = format!("*2\r\n*{}\r\n", texts.len()).into_bytes();
            for text in &texts {
                bytes.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
                bytes.extend_from_slice(&[&text[..], b"\r\n"].concat());
            }
            bytes.extend_from_slice(b"-WRONGTYPE no set\r\n");
            let mut replies = Replies::of(&bytes).unwrap().unwrap();
            prop_assert_eq!(replies.entries().unwrap(), texts.iter().collect::<Entries>());
            let refused = replies.entries().unwrap_err();
            prop_assert_eq!(refused.code(), Some("WRONGTYPE"));
            prop_assert!(replies.entries().is_err());
            let Ok(Value::Array(values)) = redis::parse_redis_value(&bytes) else {
                return Err(TestCaseError::fail("no array"));
            };
            let values: Vec<Vec<u8>> = redis::from_redis_value(values[0].clone()).unwrap();
            prop_assert_eq!(values, texts);
        }
    }

    #[test]
    fn of_what_is_too_long_for_an_entry_or_a_text_only_that_is_kept() {
        let longest = LONGEST_ENTRY;
        let lengths = [longest, longest + 1, longest + 2, 3, 500_000, 0];
        let bytes = [b"*2\r\n", &texts(&lengths)[..], b"-WRONGTYPE no set\r\n"].concat();
        for piece in [1, 7, 1000, bytes.len()] {
            let bytes = kept(&bytes, piece, Bounds::lists(bytes.len())).0.unwrap();
            let mut replies = Replies::of(&bytes).unwrap().unwrap();
            let entries = replies.entries().unwrap();
            let lengths: Vec<usize> = entries.into_iter().map(<[u8]>::len).collect();
            assert_eq!(lengths, [longest, KEPT_ENTRY, KEPT_ENTRY, 3, KEPT_ENTRY, 0]);
            let refused = replies.entries().unwrap_err();
            assert_eq!(refused.code(), Some("WRONGTYPE"));
        }
    }

    #[test]
    fn a_text_about_a_release_is_kept_up_to_its_longest() {
        let bytes = texts(&[KEPT_ENTRY + 1, LONGEST_TEXT, LONGEST_TEXT + 2]);
        let bytes = kept(&bytes, 1000, Bounds::lists(bytes.len())).0.unwrap();
        let mut replies = Replies::of(&bytes).unwrap().unwrap();
        let mut length = || replies.string().unwrap().unwrap().len();
        let lengths = [length(), length(), length()];
        assert_eq!(lengths, [KEPT_ENTRY + 1, LONGEST_TEXT, LONGEST_TEXT + 1]);
    }

    #[test]
    fn a_reply_that_is_to_be_too_long_is_refused_as_soon_as_that_is_announced() {
        let bytes = [
            b"*3\r\n",
            &texts(&[1])[..],
            &texts(&[5, 5]),
            &texts(&[5000]),
        ]
        .concat();
        let whole = bytes.len();
        assert!(kept(&bytes, 1, Bounds::lists(whole)).0.is_ok());
        // The third value says how long it is to become.
        let announced = whole - 5002;
        for piece in [1, announced] {
            let bytes = &bytes[..announced];
            let (outcome, reached) = kept(bytes, piece, Bounds::lists(whole - 1));
            assert!(is_too_long(&outcome.unwrap_err()));
            assert_eq!(reached, 2);
        }
        for endless in [
            "$99000000000\r\n",
            "*3\r\n$1\r\na\r\n$99000000000\r\n",
            "*99000000000\r\n",
            "*2\r\n*999999999999\r\n",
        ] {
            for bounds in [Bounds::WORDS, Bounds::lists(1 << 28)] {
                let error = Scan::default().end(endless.as_bytes(), bounds).unwrap_err();
                assert!(is_too_long(&error), "{endless}");
            }
        }
    }

    #[test]
    fn the_longest_value_of_a_reply_that_is_too_long_is_known() {
        let start = [b"*5\r\n", &texts(&[1])[..], &texts(&[60, 60]), &texts(&[3])].concat();
        for (rest, longest) in [
            // Of which too little was announced to be longer than the second.
            (texts(&[20; 15]), 1),
            (b"*200\r\n".to_vec(), 3),
            (b"$200\r\n".to_vec(), 3),
        ] {
            let bytes = [&start[..], &rest].concat();
            let mut scan = Scan::default();
            let outcome = scan.end(&bytes, Bounds::lists(start.len() + 40));
            assert!(is_too_long(&outcome.unwrap_err()), "{rest:?}");
            assert_eq!(scan.longest().0, longest, "{rest:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused_and_an_aborted_transaction_is_none() {
        for bytes in [
            &b"HTTP/1.1 400"[..],
            b"*x\r\n",
            b"$-2\r\n",
            b"$ 1\r\n",
            b"$\r\n",
            b"*99999999999999\r\n",
            b"+OK\n",
            b"*1\r\n%1\r\n",
            &[b'+'; LONGEST_LINE],
        ] {
            let outcome = Scan::default().end(bytes, Bounds::WORDS);
            assert!(outcome.is_err(), "{bytes:?}");
        }
        assert!(Replies::of(b"*-1\r\n").unwrap().is_none());
        assert!(Replies::of(b"+OK\r\n").is_err());
        let refused = Replies::of(b"-EXECABORT no\r\n").err().unwrap();
        assert_eq!(refused.code(), Some("EXECABORT"));
        for wrong in [
            &b"*1\r\n*1\r\n:1\r\n"[..],
            b"*1\r\n$1\r\na\r\n",
            b"*1\r\n*1\r\n$-1\r\n",
        ] {
            let mut replies = Replies::of(wrong).unwrap().unwrap();
            assert!(replies.entries().is_err(), "{wrong:?}");
        }
    }
}
