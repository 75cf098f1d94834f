//! The token that changes over TCP require.
//!
//! It is compared in constant time, and by its hash, so that nothing is learned from how long an answer
//! takes, not even the token's length.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The shortest token, in bytes: shorter ones could be guessed.
const SHORTEST: usize = 16;

/// The longest, in bytes. It has to fit into a field.
const LONGEST: usize = 1024;

/// What a request must show; only its hash is kept.
pub(crate) struct Token {
    hash: [u8; 32],
    /// What its file was like before it was read.
    version: Option<TokenFileVersion>,
}

/// What tells one version of a file from another, for whoever may not read it: device, inode, size, and when
/// it was last changed.
type TokenFileVersion = (u64, u64, u64, (i64, i64));

fn version(path: &Path) -> Option<TokenFileVersion> {
    let found = fs::metadata(path).ok()?;
    let changed = (found.ctime(), found.ctime_nsec());
    Some((found.dev(), found.ino(), found.size(), changed))
}

impl Token {
    /// The token in the file at `path`.
    ///
    /// # Errors
    /// Why it cannot be used; without any of its content.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let version = version(path);
        let token = read(path)?;
        Ok(Self {
            hash: hash(token.as_bytes()),
            version,
        })
    }

    /// Whether the file at `path` may hold another one by now.
    pub(crate) fn is_replaced(&self, path: &Path) -> bool {
        self.version.is_none() || version(path) != self.version
    }

    /// Whether the value of a request's `Authorization` is this token (RFC 6750 section 2.1).
    pub(super) fn is_in(&self, authorization: &[u8]) -> bool {
        const SCHEME: &[u8] = b"Bearer ";
        let Some((scheme, offered)) = authorization.split_at_checked(SCHEME.len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(SCHEME) && bool::from(self.hash.ct_eq(&hash(offered)))
    }
}

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The only line of the file at `path`.
///
/// # Errors
/// As [`Token::read`].
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut options = OpenOptions::new();
    // Reading a pipe would wait for a writer.
    let options = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST as u64 + 3).read_to_end(&mut bytes)?;
    plain(&bytes).map_err(io::Error::other)
}

fn plain(bytes: &[u8]) -> Result<String, &'static str> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line {
        line if line.len() < SHORTEST => Err("it has fewer than 16 bytes, which can be guessed"),
        line if line.len() > LONGEST => Err("it has more than 1024 bytes"),
        line if !line.iter().all(u8::is_ascii_graphic) => {
            Err("it must hold the token on its only line, of visible ASCII without blanks")
        }
        line => Ok(line.iter().copied().map(char::from).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn a_file_holds_the_token_and_nothing_else() {
        for end in ["", "\n", "\r\n"] {
            assert_eq!(
                plain(format!("{TOKEN}{end}").as_bytes()).as_deref(),
                Ok(TOKEN)
            );
        }
        let longest = "x".repeat(LONGEST);
        assert_eq!(
            plain(format!("{longest}\r\n").as_bytes()),
            Ok(longest.clone())
        );
        for (text, why) in [
            ("", "it has fewer"),
            ("0123456789abcde\n", "it has fewer"),
            (&*format!("{longest}x"), "it has more"),
            ("0123456789abcdef\n\n", "it must hold"),
            ("0123456789 abcdef", "it must hold"),
            ("user\n0123456789abcdef", "it must hold"),
            ("0123456789abcdé\u{feff}", "it must hold"),
        ] {
            let error = plain(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn only_the_whole_token_after_bearer_is_it() {
        let token = Token {
            hash: hash(TOKEN.as_bytes()),
            version: None,
        };
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
