//! Bodies of any size that need no memory: a block of noise, repeated.

/// Content of which every position can be made and checked.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    block: Vec<u8>,
    at: usize,
    length: u64,
}

impl Pattern {
    /// The begin of the pattern of `seed`; the same seed is the same pattern.
    pub(crate) fn new(seed: u64) -> Self {
        let mut noise = fastrand::Rng::with_seed(seed);
        // Of an odd length, so that a shift by a whole buffer is noticed.
        let block = (0..64 * 1024 - 7).map(|_| noise.u8(..)).collect();
        Self {
            block,
            at: 0,
            length: 0,
        }
    }

    /// The next bytes, at most `most`.
    pub(crate) fn next(&mut self, most: u64) -> &[u8] {
        let rest = &self.block[self.at..];
        let here = usize::try_from(most).map_or(usize::MAX, |most| most);
        let here = here.min(rest.len());
        self.at = (self.at + here) % self.block.len();
        self.length += here as u64;
        &rest[..here]
    }

    /// The first `length` bytes.
    pub(crate) fn bytes(mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let left = (length - bytes.len()) as u64;
            bytes.extend_from_slice(self.next(left));
        }
        bytes
    }

    /// Checks that `piece` is what follows, and goes on behind it.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub(crate) fn check(&mut self, mut piece: &[u8]) {
        let at = self.length;
        while !piece.is_empty() {
            let expected = self.next(piece.len() as u64);
            let (here, rest) = piece.split_at(expected.len());
            // Not assert_eq, which would print both.
            assert!(here == expected, "the content differs behind byte {at}");
            piece = rest;
        }
    }

    /// How many bytes were made or checked.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }
}
