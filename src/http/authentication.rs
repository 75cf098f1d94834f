//! Authentication that holds for a connection instead of a request.
//!
//! NTLM, and what Negotiate makes of it, authenticate the connection on which their handshake ended (RFC
//! 4559 section 6): every later request on it counts as that user's, without saying so. Elsewhere in
//! HTTP each request is authenticated by itself (RFC 9110 section 11.1).

use super::fields::{FieldKind, Fields};
use crate::http::bytes::is_token_byte;

/// Schemes that authenticate a connection; the last three are rare relatives of the first two.
const OF_CONNECTION: [&[u8]; 5] = [b"ntlm", b"negotiate", b"nego2", b"kerberos", b"credssp"];

/// True when credentials or challenges of a head are of a scheme that authenticates its connection.
pub(crate) fn is_of_connection(fields: &Fields, bytes: &[u8]) -> bool {
    let mut fields = fields.of_kind(FieldKind::Authentication);
    fields.any(|field| names_one(field.value.of(bytes)))
}

/// True when an element of a list of challenges, or of credentials, begins with such a scheme.
///
/// Quoted strings are not treated specially. Seeing a scheme where there is none only keeps a connection
/// from others without need; missing one would give a user's connection to somebody else.
fn names_one(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|element| {
        let element = element.trim_ascii_start();
        let end = element.iter().position(|byte| !is_token_byte(*byte));
        let scheme = &element[..end.unwrap_or(element.len())];
        let is_same = |known: &&[u8]| scheme.eq_ignore_ascii_case(known);
        OF_CONNECTION.iter().any(is_same)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_of_a_connection_are_found_anywhere_in_a_list_in_any_case() {
        for (value, expected) in [
            ("NTLM", true),
            ("ntlm TlRMTVNTUAABAAAAB4IIogAAAAA=", true),
            ("Negotiate", true),
            ("NEGOTIATE YIIJvwYGKwYBBQUCoIIJszCCCa+g", true),
            ("Negotiate\tYII=", true),
            ("Basic realm=\"a\", Negotiate, NTLM", true),
            ("Basic realm=\"a\",NTLM", true),
            ("Digest realm=\"a, b\", nonce=\"c\" , \t nTlM", true),
            (", ,NTLM", true),
            ("Basic realm=\"unbalanced, NTLM", true),
            ("Kerberos", true),
            ("CredSSP TlR=", true),
            ("Nego2", true),
            ("", false),
            ("Basic TlRMTSBuZWdvdGlhdGU=", false),
            ("Basic realm=\"NTLM\"", false),
            ("Basic realm=\"to Negotiate\"", false),
            ("Bearer ntlm", false),
            ("NTLMv2", false),
            ("XNTLM", false),
            ("Negotiated", false),
        ] {
            assert_eq!(names_one(value.as_bytes()), expected, "{value}");
        }
    }
}
