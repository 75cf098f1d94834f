//! The query of a target as HTML forms write it (WHATWG URL, application/x-www-form-urlencoded).

/// The parameters of a query, each a name and a value as they were sent; without `=` the value is empty.
pub(crate) fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let parts = query
        .split(|byte| *byte == b'&')
        .filter(|it| !it.is_empty());
    parts.map(|part| match memchr::memchr(b'=', part) {
        Some(equals) => (&part[..equals], &part[equals + 1..]),
        None => (part, &[][..]),
    })
}
