//! The common name in a certificate's subject (RFC 5280 section 4.1), which the library leaves out.
//!
//! Just enough DER for that: lengths are checked, and anything unexpected means that there is no name.

/// The object identifier of the common name, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
/// `[0]` of a TBSCertificate, which a first version leaves out.
const VERSION: u8 = 0xa0;
/// UTF8String, PrintableString, TeletexString and IA5String: the same bytes for a host's name.
const STRINGS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];

/// The common name of the subject of this certificate, if it has one.
pub(crate) fn common_name(certificate: &[u8]) -> Option<String> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (mut rest, _) = expect(SEQUENCE, certificate)?;
    if rest.first() == Some(&VERSION) {
        rest = next(rest)?.2;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        rest = next(rest)?.2;
    }
    let (mut names, _) = expect(SEQUENCE, rest)?;
    while !names.is_empty() {
        let (set, after) = expect(SET, names)?;
        names = after;
        let (pair, _) = expect(SEQUENCE, set)?;
        let (oid, value) = expect(OID, pair)?;
        if oid != COMMON_NAME {
            continue;
        }
        let (tag, text, _) = next(value)?;
        let is_text = STRINGS.contains(&tag);
        return String::from_utf8(text.to_vec()).ok().filter(|_| is_text);
    }
    None
}

/// The content of the element that comes first, which must have this tag, and what follows it.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = next(bytes)?;
    (found == tag).then_some((content, rest))
}

/// The element that comes first: its tag, its content, and what follows it.
fn next(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, bytes) = bytes.split_first()?;
    let (first, mut bytes) = bytes.split_first()?;
    let mut length = usize::from(*first);
    if length >= 0x80 {
        let (digits, rest) = bytes.split_at_checked(length - 0x80)?;
        if digits.len() > 4 {
            return None;
        }
        length = digits.iter().fold(0, |sum, it| sum << 8 | usize::from(*it));
        bytes = rest;
    }
    let (content, rest) = bytes.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_is_found_among_others_and_only_in_a_whole_certificate() {
        let with = certificate(&[
            (DnType::OrganizationName, "an organization"),
            (DnType::CommonName, "redis.example"),
            (DnType::CountryName, "DE"),
        ]);
        assert_eq!(common_name(&with).as_deref(), Some("redis.example"));
        let without = certificate(&[(DnType::OrganizationName, "redis.example")]);
        assert_eq!(common_name(&without), None);
        for end in 0..with.len() {
            assert_eq!(common_name(&with[..end]), None);
        }
        for at in 0..with.len() {
            // Whatever a byte is changed to, it does no harm.
            let mut other = with.clone();
            other[at] ^= 0xff;
            let _ = common_name(&other);
        }
    }
}
