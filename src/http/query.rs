//! The query of a target as HTML forms write it (WHATWG URL, application/x-www-form-urlencoded).

/// The parameters of a query, each a name and a value as they were sent; without `=` the value is empty.
pub(crate) fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = query;
    std::iter::from_fn(move || {
        // What is empty between two of them is none.
        while let [b'&', behind @ ..] = rest {
            rest = behind;
        }
        let name = match memchr::memchr2(b'=', b'&', rest) {
            None if rest.is_empty() => return None,
            None => std::mem::take(&mut rest),
            Some(at) => {
                let (name, behind) = rest.split_at(at);
                rest = behind;
                name
            }
        };
        let [b'=', behind @ ..] = rest else {
            return Some((name, &[][..]));
        };
        let end = memchr::memchr(b'&', behind).unwrap_or(behind.len());
        let (value, behind) = behind.split_at(end);
        rest = behind;
        Some((name, value))
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

/// As `decoded`, in one piece: the text itself where it stands for itself, else in `memory`.
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parameters_are_what_stands_between_ampersands_on_both_sides_of_the_first_equals_sign(
            query in "[a=&%+]{0,24}",
        ) {
            let parts = query.split('&').filter(|it| !it.is_empty());
            let parts = parts.map(|it| it.split_once('=').unwrap_or((it, "")));
            let expected: Vec<_> = parts
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
                .collect();
            prop_assert_eq!(parameters(query.as_bytes()).collect::<Vec<_>>(), expected);
        }
    }

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
