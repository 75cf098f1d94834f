//! Passwords, and the files that hold them.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;
use redis::{ErrorKind, RedisError};

use crate::config::{Login, Password};

/// The longest password, in bytes.
const LONGEST: u64 = 4096;

/// The password of `login`, if there is one. A file is read anew each time, so that a new password
/// needs no restart.
///
/// # Errors
/// Which file cannot be used, and why; without any of its content.
pub(crate) fn read(login: &Login) -> io::Result<Option<String>> {
    match &login.password {
        Password::None => Ok(None),
        Password::Text(text) => Ok(Some(text.clone())),
        Password::File { key, path } => {
            let unusable = |why| io::Error::other(format!("{key} {}: {why}", path.display()));
            read_file(path).map(Some).map_err(unusable)
        }
    }
}

/// The error of a server that has refused `login`, with what is likely to help.
pub(crate) fn hinted(error: RedisError, login: &Login) -> RedisError {
    let hint = match (error.code(), &login.password) {
        (Some("NOAUTH"), Password::None) if login.user.is_some() => {
            "the URL has a user and no password; a password alone stands behind a colon: \
             redis://:password@host"
                .to_owned()
        }
        (Some("NOAUTH"), Password::None) => {
            "no password is given here: password_file in [redis]".to_owned()
        }
        (_, Password::File { key, path }) if error.kind() == ErrorKind::AuthenticationFailed => {
            format!("{key} {}", path.display())
        }
        _ => return error,
    };
    let detail = format!("{} ({hint})", error.detail().unwrap_or_default());
    match error.code() {
        Some(code) => redis::make_extension_error(code.to_owned(), Some(detail)),
        None => RedisError::from((error.kind(), "authentication failed", detail)),
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let in_words = |error: io::Error| error.to_string();
    let mut options = OpenOptions::new();
    // Reading a pipe would wait for a writer.
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = file.open(path);
    let file = file.map_err(in_words)?;
    if !file.metadata().map_err(in_words)?.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let read = file.take(LONGEST + 1).read_to_end(&mut bytes);
    read.map_err(in_words)?;
    plain(&bytes).map_err(str::to_owned)
}

/// The password in a file: its only line, without the line's end.
fn plain(bytes: &[u8]) -> Result<String, &'static str> {
    if bytes.len() as u64 > LONGEST {
        return Err("it is too long for a password");
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err("it is not UTF-8");
    };
    if text.starts_with('\u{feff}') {
        return Err("it begins with a byte order mark; save it without");
    }
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => Err("it is empty"),
        line if line.contains(['\n', '\r', '\0']) => {
            Err("it has more than one line; it must hold the password and nothing else")
        }
        line => Ok(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_the_password_and_nothing_else() {
        for (bytes, password) in [
            (&b"secret"[..], "secret"),
            (b"secret\n", "secret"),
            (b"secret\r\n", "secret"),
            (b" sec#ret; \n", " sec#ret; "),
            ("pässword\n".as_bytes(), "pässword"),
        ] {
            assert_eq!(plain(bytes).as_deref(), Ok(password));
        }
        for (bytes, why) in [
            (&b""[..], "it is empty"),
            (b"\n", "it is empty"),
            (b"secret\n\n", "it has more than one line"),
            (b"user\nsecret\n", "it has more than one line"),
            (b"sec\0ret", "it has more than one line"),
            (b"\xff\xfe", "it is not UTF-8"),
            (
                "\u{feff}secret".as_bytes(),
                "it begins with a byte order mark",
            ),
            (&[b'x'; 4097], "it is too long"),
        ] {
            let error = plain(bytes).unwrap_err();
            assert!(error.starts_with(why), "{error}");
        }
    }
}
