//! Where a reply ends, and the entries in it (RESP2). Pure: no I/O.
//!
//! Replies are made values by the library, with the exception of a list's entries: of a million
//! of them each would be a value of its own, several times over. Here they are copied once, from the
//! bytes that came to those that are kept.

use memchr::memchr;
use redis::RedisResult;

use super::io_error;
use crate::store::{Entries, heavy};

/// A line, which is a status, an error or a length, is never longer.
const LONGEST_LINE: usize = 64 * 1024;

/// A look through bytes, as they come, for the end of a reply.
#[derive(Debug)]
pub(super) struct Scan {
    at: usize,
    /// Values that are still to come.
    left: usize,
}

impl Default for Scan {
    fn default() -> Self {
        Self { at: 0, left: 1 }
    }
}

impl Scan {
    /// The length of the reply at the beginning of `bytes`, once all of it has come. They are those
    /// of the call before, and what has come since.
    ///
    /// # Errors
    /// When this is no reply.
    pub(super) fn end(&mut self, bytes: &[u8]) -> RedisResult<Option<usize>> {
        while self.left > 0 {
            let Some(head) = Head::read(&bytes[self.at..])? else {
                return Ok(None);
            };
            let (length, more) = match head.kind {
                b'$' => (head.text_end().map_or(head.line, |end| end + 2), 0),
                b'*' => (head.line, head.count),
                _ => (head.line, 0),
            };
            if bytes.len() - self.at < length {
                return Ok(None);
            }
            self.at += length;
            self.left = self.left - 1 + more;
        }
        Ok(Some(self.at))
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
    /// Reads it; `None` when it has not come as a whole.
    fn read(bytes: &[u8]) -> RedisResult<Option<Self>> {
        let no_reply = || Err(io_error("the server says what is no reply of Redis"));
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

    /// Where a text ends that is there.
    fn text_end(&self) -> Option<usize> {
        (self.kind == b'$' && !self.is_nil).then_some(self.line + self.count)
    }
}

/// A length. Of those that come true none has more digits.
fn number(text: &[u8]) -> Option<usize> {
    if text.is_empty() || text.len() > 12 {
        return None;
    }
    text.iter().try_fold(0, |number: usize, digit| {
        let digit = digit.checked_sub(b'0').filter(|it| *it <= 9)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// The replies of a transaction, one after the other.
pub(super) struct Replies<'a> {
    rest: &'a [u8],
}

impl<'a> Replies<'a> {
    /// Of the bytes of one whole reply; `None` when the transaction was aborted.
    ///
    /// # Errors
    /// The reply, if it is an error; or when it is something else.
    pub(super) fn of(reply: &'a [u8]) -> RedisResult<Option<Self>> {
        match Head::read(reply)? {
            Some(head) if head.kind == b'*' && head.is_nil => Ok(None),
            Some(head) if head.kind == b'*' => Ok(Some(Self {
                rest: &reply[head.line..],
            })),
            _ => {
                redis::parse_redis_value(reply)?.extract_error()?;
                Err(io_error("EXEC has no list of replies"))
            }
        }
    }

    /// The next reply as entries.
    ///
    /// # Errors
    /// The reply, if it is an error; or when it is something else.
    pub(super) fn entries(&mut self) -> RedisResult<Entries> {
        let head = Head::read(self.rest)?;
        let head = head.ok_or_else(|| io_error("the transaction has too few replies"))?;
        if head.kind != b'*' {
            let end = Scan::default().end(self.rest)?.unwrap_or(self.rest.len());
            let (reply, rest) = self.rest.split_at(end);
            self.rest = rest;
            redis::parse_redis_value(reply)?.extract_error()?;
            return Err(io_error("entries are no list"));
        }
        self.rest = &self.rest[head.line..];
        // An entry takes 6 bytes here at least: `$0`, two ends of lines.
        let most = self.rest.len() / 6;
        let mut entries =
            Entries::with_capacity(head.count.min(most), heavy::room(self.rest.len()));
        for _ in 0..head.count {
            let entry = self.text()?;
            entries.push(entry.ok_or_else(|| io_error("an entry is no text"))?);
        }
        Ok(entries)
    }

    fn text(&mut self) -> RedisResult<Option<&'a [u8]>> {
        let Some(head) = Head::read(self.rest)? else {
            return Ok(None);
        };
        let Some(end) = head.text_end() else {
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

    /// The end of the reply that `bytes` begin with, as they come in these pieces.
    fn end(bytes: &[u8], pieces: impl Iterator<Item = usize>) -> RedisResult<Option<usize>> {
        let mut scan = Scan::default();
        for come in pieces {
            if let Some(end) = scan.end(&bytes[..come])? {
                return Ok(Some(end));
            }
        }
        Ok(None)
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
            assert!(Scan::default().end(bytes).is_err(), "{bytes:?}");
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
