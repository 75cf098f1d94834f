//! The keys of the lists, and the slots of a cluster that they are in. Pure.

/// Slots of a cluster.
const SLOTS: u16 = 16384;

/// The slot of a key: that of its hash tag, if there is one, otherwise of the whole key.
pub(crate) fn slot(key: &[u8]) -> u16 {
    crc16(tag(key).unwrap_or(key)) % SLOTS
}

/// What is between the first braces, if that is not empty.
fn tag(key: &[u8]) -> Option<&[u8]> {
    let open = memchr::memchr(b'{', key)?;
    let rest = &key[open + 1..];
    let length = memchr::memchr(b'}', rest).filter(|it| *it > 0)?;
    Some(&rest[..length])
}

/// True for keys that are meant for a cluster, as hash tags show, but are in several slots.
pub(crate) fn are_apart(keys: &[&str]) -> bool {
    let slots: Vec<u16> = keys.iter().map(|it| slot(it.as_bytes())).collect();
    let has_tag = |it: &&str| tag(it.as_bytes()).is_some();
    keys.iter().any(has_tag) && slots.iter().any(|it| *it != slots[0])
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_that_of_the_hash_tag_if_there_is_one() {
        // As CLUSTER KEYSLOT says.
        for (key, expected) in [
            ("123456789", 12739),
            ("", 0),
            ("foo", 12182),
            ("{foo}", 12182),
            ("a{foo}b", 12182),
            ("{foo}{bar}", 12182),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(slot(b"{gg}gray"), slot(b"{gg}prod"));
        assert_ne!(slot(b"gray"), slot(b"prod"));
    }

    #[test]
    fn keys_are_apart_when_one_of_them_alone_has_a_tag_or_another_one() {
        for (keys, expected) in [
            // No cluster, or one that says so itself.
            (["gray", "pre", "prod"], false),
            (["{gg}gray", "{gg}pre", "{gg}prod"], false),
            (["gray{gg}", "gg", "{gg}"], false),
            (["{gg}gray", "{gg}pre", "prod"], true),
            (["{gg}gray", "{gg}pre", "{g}prod"], true),
            (["gray", "{}pre", "pro}d{"], false),
        ] {
            assert_eq!(are_apart(&keys), expected, "{keys:?}");
        }
    }
}
