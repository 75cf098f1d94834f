//! The entries of one list, as a store has them.

/// Texts, one after the other in a single block of memory: there may be a million of them, which can
/// thus be allocated and freed at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Entries {
    /// An empty list with room for `count` entries of `bytes` bytes in total.
    pub(super) fn with_capacity(count: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(count),
        }
    }

    /// Appends an entry.
    pub(super) fn push(&mut self, entry: &[u8]) {
        self.bytes.extend_from_slice(entry);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a [u8];
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        Iter {
            entries: self,
            at: 0,
            start: 0,
        }
    }
}

/// Iterates over entries.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    entries: &'a Entries,
    at: usize,
    /// Where the next one starts.
    start: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = *self.entries.ends.get(self.at)?;
        let entry = &self.entries.bytes[self.start..end];
        (self.at, self.start) = (self.at + 1, end);
        Some(entry)
    }
}

impl<E: AsRef<[u8]>> FromIterator<E> for Entries {
    fn from_iter<I: IntoIterator<Item = E>>(all: I) -> Self {
        let mut entries = Self::default();
        for entry in all {
            entries.push(entry.as_ref());
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_as_they_went_in() {
        for texts in [&[][..], &[""], &["a", "", "bcd", ""]] {
            let entries: Entries = texts.iter().collect();
            let out: Vec<&[u8]> = (&entries).into_iter().collect();
            let texts: Vec<&[u8]> = texts.iter().map(|it| it.as_bytes()).collect();
            assert_eq!(out, texts);
            assert_eq!(
                (entries.len(), entries.is_empty()),
                (texts.len(), texts.is_empty())
            );
        }
    }
}
