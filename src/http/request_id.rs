//! The id of a request, in `X-Request-Id`, by which lines of several logs are found to be about one request.

use super::fields::{Field, FieldKind, Fields};
use super::span::Span;

/// The longest id that is taken from a proxy, in bytes. A UUID has 36.
const LONGEST: usize = 128;

/// The id that a head names, which is believed of a trusted proxy only: one field, of letters, digits and
/// what else ids have, so that it needs no quotes in any log.
pub(crate) fn received(fields: &Fields, bytes: &[u8]) -> Option<Span> {
    let mut all = fields.of_kind(FieldKind::RequestId);
    let Field { name, value, .. } = all.next()?;
    // The kind also covers names that some servers read as this one.
    let is_named = name.of(bytes).eq_ignore_ascii_case(b"x-request-id");
    let is_only_one = all.next().is_none();
    (is_named && is_only_one && is_sane(value.of(bytes))).then_some(*value)
}

fn is_sane(id: &[u8]) -> bool {
    let is_part = |it: &u8| it.is_ascii_alphanumeric() || b"-_.:;,/+=@~".contains(it);
    (1..=LONGEST).contains(&id.len()) && id.iter().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_bounded_and_of_harmless_letters() {
        for id in [
            "0123456789abcdef0123456789abcdef",
            "6d27a5f4-8f4a-4a5e-9a53-0c9ad4d7a8c3",
            "Root=1-67891233-abcdef012345678912345678;Sampled=1",
            "a/b:c_d~e+f=@g,h.",
            &"x".repeat(LONGEST),
        ] {
            assert!(is_sane(id.as_bytes()), "{id}");
        }
        for id in [
            "",
            "a b",
            "a\"",
            "\\",
            "\u{e9}",
            "a\tb",
            "<a>",
            &"x".repeat(LONGEST + 1),
        ] {
            assert!(!is_sane(id.as_bytes()), "{id}");
        }
    }
}
