//! `graygate lists accept DIGEST`: makes the running gateway accept a held change.

use std::path::Path;

use serde_json::Value;

use crate::admin::pages::standing::ListsStanding;
use crate::admin::requests::{ACCEPT_PATH, COMMAND_ACCEPT, COMMAND_FIELD};
use crate::cli::admin_client::AdminClient;
use crate::cli::report::Report;
use crate::lists::{ListName, ServiceName};

/// The status with which the listener says that nothing of that digest is held.
const CONFLICT: u16 = 409;

/// Makes the gateway that runs with the file at `path` accept the held change of this digest. Returns
/// the outcome.
///
/// # Errors
/// One line: it cannot be asked, or the change is neither held nor in force; with what is held.
pub(crate) fn accept(path: &Path, digest: &str) -> Result<Report, String> {
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
    let line = match status {
        200 => text,
        // Somebody else has accepted it, or it did not have to be accepted.
        CONFLICT => in_force(&asker.lists()?.standing, &digest).ok_or(text)?,
        status => return Err(asker.refused(ACCEPT_PATH, status, &text)),
    };
    Ok(Report::new(format!("{line}\n"), members(&line)))
}

/// The words of an outcome as members: `accepted list=gray digest=… generation=7`.
fn members(line: &str) -> Value {
    let (pairs, words): (Vec<&str>, Vec<&str>) =
        line.split(' ').partition(|word| word.contains('='));
    let pairs = pairs.into_iter().filter_map(|it| it.split_once('='));
    let value = |(name, value): (&str, &str)| {
        // The digits of a digest may look like a number.
        let number = value.parse::<u64>().ok().filter(|_| name == GENERATION);
        (
            name.to_owned(),
            number.map_or_else(|| value.into(), Value::from),
        )
    };
    let outcome = ("outcome".to_owned(), words.join(" ").into());
    Value::Object([outcome].into_iter().chain(pairs.map(value)).collect())
}

/// The word whose value is a number.
const GENERATION: &str = "generation";

/// The answer if a list with this digest is in force already.
fn in_force(lists: &ListsStanding, digest: &str) -> Option<String> {
    let services = lists.services.iter();
    let services = services.filter(|it| it.service != ServiceName::DEFAULT);
    let services = services.map(|it| {
        let service = format!("service={} ", it.service);
        (service, it.generation, &it.digests)
    });
    let own = (String::new(), lists.generation, &lists.digests);
    let mut all = [own].into_iter().chain(services);
    all.find_map(|(service, generation, digests)| {
        let generation = Some(generation).filter(|it| *it > 0)?;
        let is_meant = |list: &ListName| digests.get(list.name()).is_some_and(|it| it == digest);
        let list = ListName::ALL.into_iter().find(is_meant)?.name();
        Some(format!(
            "in force already {service}list={list} digest={digest} generation={generation}"
        ))
    })
}
