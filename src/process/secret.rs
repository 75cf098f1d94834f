//! A secret in a file of its own. Of one that others have to show, nothing but its hash is kept; one that
//! signs is kept as it is.
//!
//! The former is compared in constant time, and by its hash, so that nothing is learned from how long an
//! answer takes, not even the secret's length.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The shortest secret, in bytes: shorter ones could be guessed.
const SHORTEST: usize = 16;

/// The longest, in bytes. It has to fit into a field.
const LONGEST: usize = 1024;

/// What somebody must show; only its hash is kept.
#[derive(Clone)]
pub(crate) struct Secret {
    hash: [u8; 32],
    /// What its file was like before it was read.
    version: Option<SecretVersion>,
}

/// What tells one version of a file from another, for whoever may not read it: device, inode, size, and when
/// it was last changed.
type SecretVersion = (u64, u64, u64, (i64, i64));

fn version(path: &Path) -> Option<SecretVersion> {
    let found = fs::metadata(path).ok()?;
    let changed = (found.ctime(), found.ctime_nsec());
    Some((found.dev(), found.ino(), found.size(), changed))
}

impl Secret {
    /// That in the file at `path`, which is called `what`, if it `fits`.
    ///
    /// # Errors
    /// Why it cannot be used; without any of its content.
    pub(crate) fn read(
        path: &Path,
        what: &str,
        fits: impl Fn(&str) -> Result<(), &'static str>,
    ) -> io::Result<Self> {
        let version = version(path);
        let secret = read(path, what)?;
        fits(&secret).map_err(io::Error::other)?;
        Ok(Self {
            hash: hash(secret.as_bytes()),
            version,
        })
    }

    /// This one, of no file.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self {
            hash: hash(text.as_bytes()),
            version: None,
        }
    }

    /// Whether the file at `path` may hold another one by now.
    pub(crate) fn is_replaced(&self, path: &Path) -> bool {
        self.version.is_none() || version(path) != self.version
    }

    /// Whether what is `offered` is this one.
    pub(crate) fn is(&self, offered: &[u8]) -> bool {
        bool::from(self.hash.ct_eq(&hash(offered)))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// What others are shown a signature by; so it is kept itself.
#[derive(Clone)]
pub(crate) struct SigningSecret {
    text: String,
    /// What its file was like before it was read.
    version: Option<SecretVersion>,
}

impl SigningSecret {
    /// That in the file at `path`, which is called `what`.
    ///
    /// # Errors
    /// Why it cannot be used; without any of its content.
    pub(crate) fn read(path: &Path, what: &str) -> io::Result<Self> {
        let version = version(path);
        let text = read(path, what)?;
        Ok(Self { text, version })
    }

    /// This one, of no file.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            version: None,
        }
    }

    /// Whether the file at `path` may hold another one by now.
    pub(crate) fn is_replaced(&self, path: &Path) -> bool {
        self.version.is_none() || version(path) != self.version
    }

    /// For whoever signs.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for SigningSecret {
    fn eq(&self, other: &Self) -> bool {
        hash(self.text.as_bytes()) == hash(other.text.as_bytes())
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

fn hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The only line of the file at `path`, which is called `what`.
///
/// # Errors
/// As [`Secret::read`].
pub(crate) fn read(path: &Path, what: &str) -> io::Result<String> {
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
    plain(&bytes, what).map_err(io::Error::other)
}

fn plain(bytes: &[u8], what: &str) -> Result<String, String> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line {
        line if line.len() < SHORTEST => {
            Err("it has fewer than 16 bytes, which can be guessed".to_owned())
        }
        line if line.len() > LONGEST => Err("it has more than 1024 bytes".to_owned()),
        line if !line.iter().all(u8::is_ascii_graphic) => Err(format!(
            "it must hold the {what} on its only line, of visible ASCII without blanks"
        )),
        line => Ok(line.iter().copied().map(char::from).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    #[test]
    fn a_file_holds_the_secret_and_nothing_else() {
        let plain = |bytes: &[u8]| plain(bytes, "token");
        for end in ["", "\n", "\r\n"] {
            assert_eq!(
                plain(format!("{SECRET}{end}").as_bytes()).as_deref(),
                Ok(SECRET)
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
            ("0123456789abcdef\n\n", "it must hold the token"),
            ("0123456789 abcdef", "it must hold"),
            ("user\n0123456789abcdef", "it must hold"),
            ("0123456789abcdé\u{feff}", "it must hold"),
        ] {
            let error = plain(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn only_the_whole_secret_is_it_and_nobody_gets_to_see_it() {
        let secret = Secret::of(SECRET);
        assert!(secret.is(SECRET.as_bytes()));
        for other in [
            "",
            "0123456789abcde",
            "0123456789abcdeff",
            "0123456789abcdeF",
        ] {
            assert!(!secret.is(other.as_bytes()), "{other}");
        }
        assert_eq!(format!("{secret:?}"), "(hidden)");
    }
}
