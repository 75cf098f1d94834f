//! `graygate lists accept DIGEST`: makes the running gateway accept a held change.

use std::path::Path;

use crate::admin::pages::standing::ListsStanding;
use crate::admin::requests::{ACCEPT_PATH, COMMAND_ACCEPT, COMMAND_FIELD};
use crate::cli::admin_client::AdminClient;
use crate::lists::ListName;

/// The status with which the listener says that nothing of that digest is held.
const CONFLICT: u16 = 409;

/// Makes the gateway that runs with the file at `path` accept the held change of this digest. Returns
/// one line: the outcome.
///
/// # Errors
/// One line: it cannot be asked, or the change is neither held nor in force; with what is held.
pub fn accept(path: &Path, digest: &str) -> Result<String, String> {
    let digest = digest.trim();
    // It becomes part of a URL.
    if digest.is_empty() || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("{digest:?} is not a digest: 16 hexadecimal digits"));
    }
    let digest = digest.to_ascii_lowercase();
    let target = format!("{ACCEPT_PATH}?digest={digest}");
    let asker = AdminClient::of(path)?;
    let (status, text) = asker.post(&target, (COMMAND_FIELD, COMMAND_ACCEPT))?;
    let text = text.trim_end().to_owned();
    match status {
        200 => Ok(text),
        // Somebody else has accepted it, or it did not have to be accepted.
        CONFLICT => in_force(&asker.lists()?.standing, &digest).ok_or(text),
        status => Err(asker.refused(ACCEPT_PATH, status, &text)),
    }
}

/// The answer if a list with this digest is in force already.
fn in_force(lists: &ListsStanding, digest: &str) -> Option<String> {
    let generation = Some(lists.generation).filter(|it| *it > 0)?;
    let is_meant = |list: &ListName| {
        lists
            .digests
            .get(list.name())
            .is_some_and(|it| it == digest)
    };
    let list = ListName::ALL.into_iter().find(is_meant)?;
    let list = list.name();
    Some(format!(
        "in force already list={list} digest={digest} generation={generation}"
    ))
}
