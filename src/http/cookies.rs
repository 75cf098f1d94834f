//! The `Cookie` field (RFC 6265 section 4.2).

/// The cookies of one field's value, each a name and a value as they were sent, without white space around
/// them. What has no `=` is no cookie.
pub(crate) fn pairs(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    value.split(|byte| *byte == b';').filter_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        (!name.is_empty()).then_some((name, value))
    })
}
