//! `graygate lists accept DIGEST`: lets a held change in at the running gateway.

use std::path::Path;

use crate::admin::{ACCEPT_PATH, COMMAND_ACCEPT, COMMAND_FIELD};
use crate::ask::Asker;

/// Makes the gateway that runs with the file at `path` accept the held change of this digest.
/// Returns one line: what came of it.
///
/// # Errors
/// One line: it cannot be asked, or it holds no such change; with what it holds.
pub fn accept(path: &Path, digest: &str) -> Result<String, String> {
    // It becomes part of a URL.
    if digest.is_empty() || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("{digest:?} is no digest: 16 hexadecimal digits"));
    }
    let target = format!("{ACCEPT_PATH}?digest={}", digest.to_ascii_lowercase());
    let (status, text) = Asker::of(path)?.post(&target, (COMMAND_FIELD, COMMAND_ACCEPT))?;
    let text = text.trim_end().to_owned();
    match status {
        200 => Ok(text),
        _ => Err(text),
    }
}
