//! The `Cookie` field (RFC 6265 section 4.2).

/// The cookies of one field's value, each a name and a value as they were sent, without white space around
/// them. What has no `=` is no cookie.
pub(crate) fn pairs(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            let at = memchr::memchr2(b'=', b';', rest)?;
            let (name, behind) = (rest[..at].trim_ascii(), &rest[at + 1..]);
            if rest[at] == b';' {
                rest = behind;
                continue;
            }
            let end = memchr::memchr(b';', behind);
            let value = &behind[..end.unwrap_or(behind.len())];
            rest = end.map_or(&[][..], |end| &behind[end + 1..]);
            if !name.is_empty() {
                return Some((name, value.trim_ascii()));
            }
        }
    })
}

/// True when a field with this `value` has a cookie of this `name`; none has the empty one.
// Out of line: nearly no gateway asks.
#[cold]
pub(crate) fn has(value: &[u8], name: &[u8]) -> bool {
    pairs(value).any(|(it, _)| it == name)
}

/// Appends a field's value without its cookies of this `name`, each with the `;` before it, or that and the
/// blanks behind it if it is the first one; the rest stays as it is. Returns false, and appends nothing, when
/// nothing is left of it.
pub(crate) fn put_without(out: &mut Vec<u8>, value: &[u8], name: &[u8]) -> bool {
    let begin = out.len();
    let mut is_first = true;
    for part in value.split(|byte| *byte == b';') {
        if has(part, name) {
            continue;
        }
        match std::mem::take(&mut is_first) {
            // White space in front of a value belongs to no value.
            true => out.extend_from_slice(part.trim_ascii_start()),
            false => {
                out.push(b';');
                out.extend_from_slice(part);
            }
        }
    }
    // Nor does any behind it.
    while out.len() > begin && matches!(out.last(), Some(b' ' | b'\t')) {
        out.pop();
    }
    let is_blank = |byte: &u8| matches!(byte, b';' | b' ' | b'\t');
    if out[begin..].iter().all(is_blank) {
        out.truncate(begin);
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cookies_are_what_stands_between_semicolons_on_both_sides_of_the_first_equals_sign(
            value in "[a=; \t\"]{0,24}",
        ) {
            let parts = value.split(';').filter_map(|it| it.split_once('='));
            let parts = parts.map(|(name, value)| (name.trim_ascii(), value.trim_ascii()));
            let expected = parts.filter(|(name, _)| !name.is_empty());
            let expected: Vec<_> = expected
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
                .collect();
            prop_assert_eq!(pairs(value.as_bytes()).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_cookie_is_taken_out_and_the_rest_stays_as_it_was() {
        for (value, rest) in [
            ("f=1", None),
            ("f=1;", None),
            (";f=1 ; ", None),
            ("f=1; f=2", None),
            ("a=1; f=1", Some("a=1")),
            ("a=1 ; f=1", Some("a=1")),
            ("f=1; a=1", Some("a=1")),
            ("f=1;a=1", Some("a=1")),
            ("a=1; f=1; b=2", Some("a=1; b=2")),
            ("a=1;f=1;b=2", Some("a=1;b=2")),
            ("a=1; f=1; b=2; f=x; c=3", Some("a=1; b=2; c=3")),
            ("a=1;  f = 1 ;  b=2;", Some("a=1;  b=2;")),
            ("a=\"x; f=1\"; b=2", Some("a=\"x; b=2")),
            ("f=a=b; a=1", Some("a=1")),
            ("F=1; f2=1; f", Some("F=1; f2=1; f")),
            ("a=\u{ff}; f=\u{e9}", Some("a=\u{ff}")),
            ("", None),
        ] {
            let mut out = b"before".to_vec();
            let is_left = put_without(&mut out, value.as_bytes(), b"f");
            let expected = format!("before{}", rest.unwrap_or_default());
            assert_eq!(out, expected.as_bytes(), "{value:?}");
            assert_eq!(is_left, rest.is_some(), "{value:?}");
            assert!(!has(&out, b"f"));
        }
    }
}
