//! What `graygate -t` says of the gateway that runs with the file: the keys that a reload could not change.

use std::path::Path;

use crate::admin::pages::config::ConfigPage;
use crate::admin::pages::settings::SettingShown;
use crate::cli::admin_client::{AdminClient, is_same_file};
use crate::config::{Config, KEYS};
use crate::process;

/// The full names of the keys of `config` that wait for a restart, in the order of the shipped file. None
/// if no gateway runs with this file, or it does not show its settings to this user.
pub(super) fn keys(config: &Config) -> Option<Vec<String>> {
    let ConfigPage {
        settings, ignored, ..
    } = page(config)?;
    let running = settings?;
    let waits = |new: &SettingShown| {
        let old = running.iter().find(|it| it.key == new.key);
        let is_same = old.is_some_and(|it| it.value == new.value);
        match KEYS.iter().find(|it| it.full_name == new.key)?.restart {
            true => (!is_same).then(|| new.key.clone()),
            // What the file names is as it was, but the last reload could not read it.
            false => (is_same && ignored.contains(&new.key)).then(|| new.key.clone()),
        }
    };
    Some(SettingShown::all(config).iter().filter_map(waits).collect())
}

/// What the gateway that runs with this file says: it listens where the file says, or, if that has changed
/// since, where the process with the pid file does.
fn page(config: &Config) -> Option<ConfigPage> {
    let ask = |asker: AdminClient| {
        let page: ConfigPage = asker.page().ok()?;
        is_same_file(&page.file, &config.path).then_some(page)
    };
    let named = AdminClient::with(&config.admin, &config.path).ok();
    named.and_then(ask).or_else(|| {
        let pid_file: &Path = config.gateway.pid_file.as_deref()?;
        let pid = process::find_gateway(pid_file).ok()?;
        AdminClient::all_of(pid).find_map(ask)
    })
}
