//! How large a head may be.

/// Limits of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The request or status line, in bytes without CR LF.
    pub line: usize,
    /// The whole head, in bytes.
    pub head: usize,
    /// The number of fields, at most `MAX_FIELDS`.
    pub fields: usize,
}

impl Limits {
    pub(crate) fn most_fields(&self) -> usize {
        self.fields.min(MAX_FIELDS)
    }
}

/// The upper limit of `fields`, whatever the configuration says.
pub(crate) const MAX_FIELDS: usize = 256;
