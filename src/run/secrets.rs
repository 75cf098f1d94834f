//! Whether a file with a secret, or for TLS, has another content than before.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::config::Store;

/// What the files held that Redis is reached with: a reload reads them anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Secrets([u8; 32]);

/// The longest such file, in bytes.
const LONGEST: u64 = 1 << 20;

impl Secrets {
    /// As they are now.
    pub(super) fn of(store: &Store) -> Self {
        let mut hash = Sha256::new();
        if let Store::Redis(settings) = store {
            let (passwords, tls) = (&settings.passwords, &settings.tls);
            let own = tls.own.as_ref();
            let files = [
                passwords.server.as_ref(),
                passwords.sentinels.as_ref(),
                tls.ca.as_ref(),
                own.map(|(cert, _)| cert),
                own.map(|(_, key)| key),
            ];
            for file in files {
                let content = file.and_then(|it| content(it));
                hash.update(Sha256::digest(content.unwrap_or_default()));
            }
        }
        Self(hash.finalize().into())
    }
}

/// Whatever else is wrong with the file is said where it is used.
fn content(path: &Path) -> Option<Vec<u8>> {
    let found = fs::metadata(path).ok()?;
    let is_usual = found.is_file() && found.len() <= LONGEST;
    is_usual.then(|| fs::read(path).ok()).flatten()
}
