//! How far a run of bytes of one kind goes: a token, a field's text, a target.
//!
//! Eight bytes are checked at once, in one machine word. That finds *suspects*: every byte that is not
//! of the kind, and some that are. Each suspect is then checked by itself, so the word arithmetic
//! affects speed only.

use crate::http::bytes::is_token_byte;

/// Where the token (RFC 9110 section 5.6.2) ends that begins at `start`; it may be empty.
pub(crate) fn token(bytes: &[u8], start: usize) -> usize {
    // Names are letters, nearly all of them.
    let suspects = |word: u64| {
        // Seven bits of each byte, so that no sum reaches its neighbour.
        let lower = (word | each(0x20)) & !each(0x80);
        let from_a = lower + each(0x80 - b'a');
        let behind_z = lower + each(0x7f - b'z');
        word | !from_a | behind_z
    };
    end_of_run(bytes, start, suspects, is_token_byte)
}

/// Where the text of a field (RFC 9110 section 5.5) ends that begins at `start`: visible bytes, those
/// from 0x80 on, spaces and tabs.
pub(crate) fn text(bytes: &[u8], start: usize) -> usize {
    let suspects = |word: u64| {
        // These sums may carry into a neighbour, which at worst makes it a suspect.
        let control = word.wrapping_sub(each(b' '));
        let delete = word.wrapping_add(each(1));
        (control | delete) & !word
    };
    end_of_run(bytes, start, suspects, is_text_byte)
}

/// Where the request target ends that begins at `start`: visible ASCII without `#`, since a fragment is
/// never sent (RFC 9112 section 3.2), and bytes from 0x80 on, which URIs do not have but many clients
/// send.
pub(crate) fn target(bytes: &[u8], start: usize) -> usize {
    let suspects = |word: u64| {
        let invisible = word.wrapping_sub(each(b'!'));
        let delete = word.wrapping_add(each(1));
        let others = word ^ each(b'#');
        let hash = others.wrapping_sub(each(1)) & !others;
        // As above, a carry into a neighbour at worst makes it a suspect.
        (invisible | delete | hash) & !word
    };
    end_of_run(bytes, start, suspects, is_target_byte)
}

/// A byte of a request target.
pub(crate) fn is_target_byte(byte: u8) -> bool {
    matches!(byte, b'!'..=b'"' | b'$'..=b'~' | 0x80..)
}

fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Where the run of fitting bytes ends that begins at `start`. `suspects` sets the highest bit at least
/// of those bytes of a word that do not fit.
#[inline(always)]
fn end_of_run(
    bytes: &[u8],
    start: usize,
    suspects: impl Fn(u64) -> u64,
    fits: impl Fn(u8) -> bool,
) -> usize {
    let mut at = start;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let mut suspects = suspects(u64::from_le_bytes(*word)) & each(0x80);
        while suspects != 0 {
            let place = suspects.trailing_zeros() as usize / 8;
            if !fits(word[place]) {
                return at + place;
            }
            // The lowest of them is cleared.
            suspects &= suspects - 1;
        }
        at += word.len();
    }
    while bytes.get(at).is_some_and(|byte| fits(*byte)) {
        at += 1;
    }
    at
}

/// A word with this byte in each of its eight places.
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_where_it_ends_byte_by_byte() {
        type End = fn(&[u8], usize) -> usize;
        type Fits = fn(u8) -> bool;
        let kinds: [(End, Fits, &[u8]); 3] = [
            (token, is_token_byte, b"Az"),
            (text, is_text_byte, b"a \t\x80\xff~"),
            (target, is_target_byte, b"/!~z\x80\xff"),
        ];
        for (end, fits, fitting) in kinds {
            // Any two neighbours, at each place of a word, between bytes that fit.
            for (one, other) in (0..=u8::MAX).flat_map(|one| (0..=u8::MAX).map(move |it| (one, it)))
            {
                for place in 0..9 {
                    let mut bytes: Vec<u8> = fitting.iter().copied().cycle().take(20).collect();
                    (bytes[place + 1], bytes[place + 2]) = (one, other);
                    let foreign = bytes[1..].iter().position(|byte| !fits(*byte));
                    let expected = foreign.map_or(bytes.len(), |it| it + 1);
                    assert_eq!(end(&bytes, 1), expected, "{}", bytes.escape_ascii());
                }
            }
            for length in 0..40 {
                let bytes = vec![fitting[0]; length];
                for start in 0..=length {
                    assert_eq!(end(&bytes, start), length);
                }
            }
        }
    }
}
