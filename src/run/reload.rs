//! A reload: the ini file read anew, and the logs opened anew.

use super::lists::rules;
use super::logs::NewTargets;
use super::{Running, load};
use crate::config::{Config, REDIS_URL_VARIABLE};
use crate::logs::writer::{ERROR_LOG, Reopened};
use crate::process;
use crate::proxy::workers;

impl Running {
    /// Opens the log files anew. If one cannot be opened, its writer logs that. A process that still drains
    /// does so as well.
    pub(super) fn reopen_logs(&self) {
        self.arrivals.reopen_logs();
        let logs = [("access", &self.access_log), (ERROR_LOG, &self.error_log)];
        let outcomes = logs.map(|(name, log)| (name, log.reopen()));
        let outcomes = outcomes.map(|(name, reopening)| (name, reopening.wait()));
        if outcomes.iter().all(|(_, it)| *it == Reopened::Done) {
            log::info!("logs-reopened");
        }
        for (name, _) in outcomes.iter().filter(|(_, it)| *it == Reopened::Late) {
            log::warn!("log-reopen-late log={name} reason=\"its writer is busy\"");
        }
    }

    /// Reads the ini file anew. A bad one changes nothing.
    pub(super) fn reload(&mut self) {
        self.reloads.begin();
        let current = self.gateway.config.load();
        let outcome = load(&current.path).and_then(|new| self.apply(&current, new));
        if let Err(error) = &outcome {
            log::error!("reload-failed error={error:?}");
        }
        self.reloads.end(outcome);
    }

    /// Brings `new` into force; returns the keys for which that needs a restart.
    ///
    /// # Errors
    /// Why that is not possible; nothing has changed then.
    fn apply(&mut self, current: &Config, new: Config) -> Result<Vec<&'static str>, String> {
        let (mut config, fixed) = current.reload(new);
        let targets = NewTargets::open(current, &config).map_err(|error| error.to_string())?;
        for key in &config.masked {
            log::warn!("reload-masked key={key} reason=\"{REDIS_URL_VARIABLE} takes precedence\"");
        }
        for key in &fixed {
            log::warn!("reload-ignored key={key} reason=\"only a restart changes it\"");
        }
        log::set_max_level(config.log.level);
        let path = config.path.display().to_string();
        let settings = &config.gateway;
        match process::allow_connections(settings.max_connections, settings.workers) {
            Ok(allowed) => config.gateway.max_connections = allowed,
            Err(error) => log::warn!("descriptors-unknown error={:?}", error.to_string()),
        }
        self.move_logs(targets, &config);
        self.publisher.set_rules(rules(&config));
        self.checker.apply(&config);
        self.gateway.config.store(config);
        self.checker.tell();
        // The trusted proxies may be different now.
        self.publisher.tell_findings();
        log::info!("reloaded file={path:?} ignored={}", fixed.len());
        Ok(fixed)
    }

    /// From now on, logs go where the new `config` says.
    fn move_logs(&mut self, targets: NewTargets, config: &Config) {
        let NewTargets { access, error } = targets;
        if access.is_none() && error.is_none() {
            return;
        }
        if let Some(target) = access {
            log::info!("log-moved log=access");
            workers::flush_access_logs(&self.gateway);
            self.access_log.switch(target);
        }
        if let Some(target) = error {
            log::info!("log-moved log={ERROR_LOG}");
            self.error_log.switch(target);
        }
        if let Some(claims) = &mut self.claims {
            claims.change_logs(&config.log);
        }
    }
}
