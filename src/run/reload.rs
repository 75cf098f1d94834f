//! A reload: the ini file read anew, and the logs opened anew.

mod doors;
mod listeners;
mod store;

use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, select};
use doors::NewDoors;
use listeners::NewListeners;
use store::{StoreChange, TrialOutcome};

use super::force_secret;
use super::lists::rules;
use super::logs::NewTargets;
use super::sockets::Sockets;
use super::{Running, load, webhook_secret};
use crate::config::{Config, REDIS_URL_VARIABLE};
use crate::lists::ListName;
use crate::logs::writer::{ERROR_LOG, Reopened};
use crate::process::{self, Command};
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
    pub(super) fn reload(&mut self, commands: &Receiver<Command>) {
        // However often it was asked for so far, this one is for all.
        let others = commands.try_iter().filter(|it| *it != Command::Reload);
        self.deferred.extend(others);
        self.deferred.retain(|it| *it != Command::Reload);
        if self.deferred.contains(&Command::Drain) {
            return;
        }
        self.reloads.begin();
        let current = self.gateway.config.load();
        let outcome = load(&current.path).and_then(|new| self.apply(&current, new, commands));
        if let Err(error) = &outcome {
            log::error!("reload-failed error={error:?}");
        }
        self.reloads.end(outcome);
    }

    /// Brings `new` into force; returns the keys for which that needs a restart.
    ///
    /// # Errors
    /// Why that is not possible; nothing has changed then.
    fn apply(
        &mut self,
        current: &Config,
        new: Config,
        commands: &Receiver<Command>,
    ) -> Result<Vec<&'static str>, String> {
        let in_words = |error: io::Error| error.to_string();
        let shared = self.sockets.clone();
        let mut sockets = shared.unless_upgrading().ok_or(UPGRADING)?;
        let (mut config, mut fixed) = current.reload(new);
        let store = StoreChange::between(current, &config, self.secrets);
        let servers = self.publisher.lists().len(ListName::Prod);
        let read = match store.try_it(&config, servers).map_err(in_words)? {
            Some(trial) => self.wait_for(&trial.outcome, trial.limit, commands)?,
            None => Vec::new(),
        };
        let targets = NewTargets::open(current, &config).map_err(in_words)?;
        let doors = NewDoors::open(&current.admin, &config.admin, &sockets, &self.view);
        let doors = doors.map_err(in_words)?;
        if doors.keeps_token {
            fixed.push(TOKEN_FILE);
        }
        if force_secret::renew(&current.gray, &mut config.gray).map_err(in_words)? {
            fixed.push(FORCE_SECRET_FILE);
        }
        let webhooks = (current.webhook.as_ref(), config.webhook.as_mut());
        if webhook_secret::renew(webhooks.0, webhooks.1).map_err(in_words)? {
            fixed.push(WEBHOOK_SECRET_FILE);
        }
        let listeners = NewListeners::open(&sockets, &config.gateway.listen);
        let mut listeners = listeners.map_err(in_words)?;
        let doors = doors.serve(&self.view).map_err(in_words)?;
        listeners.serve(&self.gateway).map_err(in_words)?;
        // Nothing that follows can fail.
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
        self.move_logs(targets);
        self.publisher.set_rules(rules(&config));
        self.publisher.set_services(&config.services, read);
        listeners.expect_fewer_proxies();
        self.gateway.config.store(config.clone());
        self.webhook.follow(&config);
        listeners.bring_into_force(&self.gateway, &mut sockets);
        doors.bring_into_force(&mut self.admin, &mut sockets, &self.view);
        store.bring_into_force(self, &config);
        self.announce();
        self.tell_supervisor(&sockets);
        // The trusted proxies may be different now.
        self.publisher.tell_findings();
        log::info!("reloaded file={path:?} ignored={}", fixed.len());
        Ok(fixed)
    }

    /// Waits until the lists were read by the new settings. Commands that come meanwhile are carried out
    /// afterwards, but for the one that ends the gateway.
    fn wait_for(
        &mut self,
        outcome: &Receiver<TrialOutcome>,
        limit: Duration,
        commands: &Receiver<Command>,
    ) -> TrialOutcome {
        let late = crossbeam_channel::after(limit);
        loop {
            let command = select! {
                recv(outcome) -> it => return it.unwrap_or_else(|_| Err(NO_OUTCOME.to_owned())),
                recv(late) -> _ => return Err(format!("the lists could not be read within {limit:?}")),
                recv(commands) -> command => command.unwrap_or(Command::Drain),
            };
            self.deferred.push_back(command);
            if command == Command::Drain {
                return Err("the gateway is shutting down".to_owned());
            }
        }
    }

    /// From now on, logs go where the new `config` says.
    fn move_logs(&mut self, targets: NewTargets) {
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
    }

    /// Has the supervisor keep what listens now, and nothing else.
    fn tell_supervisor(&self, sockets: &Sockets) {
        let Some(supervisor) = &self.supervisor else {
            return;
        };
        let told = sockets.all().and_then(|it| supervisor.doors_changed(&it));
        if let Err(error) = told {
            log::error!("supervisor-not-told error={:?}", error.to_string());
        }
    }

    /// Lets other gateways on this machine know what this one uses now.
    fn announce(&mut self) {
        let mut used = Config::clone(&self.gateway.config.load());
        // Another gateway may have the default one.
        used.admin.socket = used.admin.socket.filter(|_| self.admin.socket.is_some());
        if let Some(claims) = &mut self.claims {
            claims.change(used);
        }
    }
}

/// Why the lists could not be read.
const NO_OUTCOME: &str = "the lists could not be read: an internal error, see the line above";

/// Why a reload is refused meanwhile.
const UPGRADING: &str = "an upgrade is under way, by which the file is taken on";

/// A token that only root may read is read by a start only.
const TOKEN_FILE: &str = "admin.token_file";

/// So is a secret.
const FORCE_SECRET_FILE: &str = "gray.force_secret_file";
const WEBHOOK_SECRET_FILE: &str = "verdict.webhook_secret_file";
