//! The token that changes over TCP require.

use std::io;
use std::path::Path;

use crate::process::secret::{self, Secret};

/// What its file is said to hold.
const WHAT: &str = "token";

/// What a request must show.
pub(crate) struct Token(Secret);

impl Token {
    /// The token in the file at `path`.
    ///
    /// # Errors
    /// Why it cannot be used; without any of its content.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Secret::read(path, WHAT, |_| Ok(())).map(Self)
    }

    /// Whether the file at `path` may hold another one by now.
    pub(crate) fn is_replaced(&self, path: &Path) -> bool {
        self.0.is_replaced(path)
    }

    /// Whether the value of a request's `Authorization` is this token (RFC 6750 section 2.1).
    pub(super) fn is_in(&self, authorization: &[u8]) -> bool {
        const SCHEME: &[u8] = b"Bearer ";
        let Some((scheme, offered)) = authorization.split_at_checked(SCHEME.len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(SCHEME) && self.0.is(offered)
    }
}

/// The only line of the file at `path`.
///
/// # Errors
/// As [`Token::read`].
pub(crate) fn read(path: &Path) -> io::Result<String> {
    secret::read(path, WHAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_after_bearer_is_it() {
        let token = Token(Secret::of("0123456789abcdef"));
        for (value, is_it) in [
            ("Bearer 0123456789abcdef", true),
            ("bearer 0123456789abcdef", true),
            ("Bearer 0123456789abcde", false),
            ("Bearer 0123456789abcdeff", false),
            ("Bearer 0123456789abcdeF", false),
            ("Bearer  0123456789abcdef", false),
            ("Bearer", false),
            ("Bearer ", false),
            ("Basic 0123456789abcdef", false),
            ("0123456789abcdef", false),
            ("", false),
        ] {
            assert_eq!(token.is_in(value.as_bytes()), is_it, "{value}");
        }
    }
}
