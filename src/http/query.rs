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

/// The bytes that a name or a value stands for: `%` with two hexadecimal digits is a byte, `+` a blank; any
/// other `%` is itself.
pub(crate) fn decoded(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (byte, behind) = match *rest {
            [] => return None,
            [b'+', ref behind @ ..] => (b' ', behind),
            [b'%', high, low, ref behind @ ..] => match (digit(high), digit(low)) {
                (Some(high), Some(low)) => (high << 4 | low, behind),
                _ => (b'%', &rest[1..]),
            },
            [byte, ref behind @ ..] => (byte, behind),
        };
        rest = behind;
        Some(byte)
    })
}

/// As [`decoded`], in one piece: the text itself where it stands for itself, else in `memory`.
pub fn decode<'a>(text: &'a [u8], memory: &'a mut Vec<u8>) -> &'a [u8] {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return text;
    }
    memory.clear();
    memory.extend(decoded(text));
    memory
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_decoded_and_what_is_no_code_is_kept() {
        let table: &[(&str, &[u8])] = &[
            ("", b""),
            ("abc", b"abc"),
            ("a+b", b"a b"),
            ("%20", b" "),
            ("%2B%25", b"+%"),
            ("%e4%bD%a0", "你".as_bytes()),
            ("%", b"%"),
            ("%4", b"%4"),
            ("%4g%41", b"%4gA"),
            ("%%41", b"%A"),
            ("%2541", b"%41"),
            ("%00%ff", b"\0\xff"),
            ("a%3Db%26c", b"a=b&c"),
        ];
        let mut memory = b"from before".to_vec();
        for (text, expected) in table {
            assert_eq!(decode(text.as_bytes(), &mut memory), *expected, "{text}");
            assert!(decoded(text.as_bytes()).eq(expected.iter().copied()));
        }
    }
}
