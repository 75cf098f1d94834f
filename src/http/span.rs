//! Where a part of a head is in the bytes that it was parsed from.

use std::ops::Range;

/// A part of a head, as offsets into the bytes that it was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The part from `start` to before `end`.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        // Heads are limited to far less than 4 GiB.
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// The bytes of this part.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }

    /// `len` bytes of this part, from `start` on.
    pub(crate) fn part(self, start: usize, len: usize) -> Self {
        let start = self.start as usize + start;
        Self::new(start, start + len)
    }

    /// As a range.
    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(crate) fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Without spaces and tabs at both ends.
    pub(crate) fn trimmed(self, bytes: &[u8]) -> Self {
        let mut text = self.of(bytes);
        while let [b' ' | b'\t', rest @ ..] = text {
            text = rest;
        }
        let start = self.end as usize - text.len();
        while let [rest @ .., b' ' | b'\t'] = text {
            text = rest;
        }
        Self::new(start, start + text.len())
    }
}
