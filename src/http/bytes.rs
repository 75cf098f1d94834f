//! Kinds of bytes.

/// RFC 9110 section 5.6.2: the bytes of a token.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    const TOKEN: ByteSet = ByteSet::alphanumeric_and(b"!#$%&'*+-.^_`|~");
    TOKEN.has(byte)
}

/// A set of bytes with constant-time lookup.
pub(crate) struct ByteSet([bool; 256]);

impl ByteSet {
    /// ASCII letters, digits, and `others`.
    pub(crate) const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut set = [false; 256];
        let mut byte = 0;
        while byte < set.len() {
            set[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let mut at = 0;
        while at < others.len() {
            set[others[at] as usize] = true;
            at += 1;
        }
        Self(set)
    }

    pub(crate) const fn has(&self, byte: u8) -> bool {
        self.0[byte as usize]
    }
}
