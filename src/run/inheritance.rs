//! What a start goes on with, of processes that are there or have been: the gateway that it succeeds, and the
//! supervisor that has started it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::supervisor::{KeptDoor, Supervisor};
use super::upgrade::{Taking, VARIABLE};
use crate::config::Config;
use crate::process::handover::SupervisorMessage;
use crate::process::notices::Notices;
use crate::process::{self, Startup};

/// Nothing, for a gateway that is on its own.
#[derive(Default)]
pub(super) struct Inheritance {
    /// Of the gateway that this one succeeds.
    pub(super) taking: Option<Taking>,
    pub(super) supervisor: Option<Arc<Supervisor>>,
    /// Of a gateway that has died.
    kept: Vec<KeptDoor>,
}

impl Inheritance {
    /// What the supervisor has, if there is one.
    ///
    /// # Errors
    /// It has gone meanwhile; in words.
    pub(super) fn of_supervisor() -> Result<Self, String> {
        let found = Supervisor::find().map_err(|error| error.to_string())?;
        Ok(found.map_or_else(Self::default, |(supervisor, kept)| Self {
            taking: None,
            supervisor: Some(Arc::new(supervisor)),
            kept,
        }))
    }

    /// Asks the gateway that runs with this ini file for all that it has, if there is one to be succeeded. A
    /// supervisor's own may have lost its supervisor before.
    ///
    /// # Errors
    /// It refuses, or it is not there and should be; in words.
    pub(super) fn ask(&mut self, config: &Config, startup: &Startup) -> Result<(), String> {
        if std::env::var_os(VARIABLE).is_some() {
            // It outlives the terminal, or whatever else has started it.
            let _ = rustix::process::setsid();
            startup.at("asking the running gateway for a handover");
            self.taking = Some(Taking::begin(config, self.supervisor_pid())?);
        } else if let Some(supervisor) = &self.supervisor {
            startup.at("looking for a running gateway");
            self.taking = Taking::if_any(config, Some(supervisor.pid))?;
            if let (None, Some(path)) = (&self.taking, &config.gateway.pid_file) {
                process::is_free_but_for(path, supervisor.pid)
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn supervisor_pid(&self) -> Option<u32> {
        self.supervisor.as_ref().map(|it| it.pid)
    }

    /// Who is told how this gateway does.
    pub(super) fn notices(&self) -> Notices {
        let Some(supervisor) = self.supervisor.clone() else {
            return Notices::to_manager();
        };
        Notices::to(move |notice| supervisor.tell(SupervisorMessage::Notice(notice)))
    }

    /// The socket of this kind that listens at what the ini file calls `asked`, if there is one.
    pub(super) fn door(&mut self, kind: &str, asked: &str) -> Option<OwnedFd> {
        let taken = self.taking.as_mut().and_then(|it| it.door(kind, asked));
        taken.or_else(|| {
            let mut kept = self.kept.iter();
            let place = kept.position(|(of, at, _)| of == kind && at == asked)?;
            // In their order: several may be called the same.
            Some(self.kept.remove(place).2)
        })
    }

    /// What nobody has asked for closes.
    pub(super) fn close_the_rest(&mut self) {
        self.kept.clear();
    }

    /// The process whose pid file is not this one's to write, if there is such.
    pub(super) fn watches(&self, path: Option<&Path>) -> Option<process::PidFile> {
        self.supervisor.as_ref()?;
        // Without it, the gateway cannot be found should the supervisor die.
        let opened = process::PidFile::of_supervisor(path?);
        opened
            .inspect_err(|error| log::warn!("pid-file-unwatched error={:?}", error.to_string()))
            .ok()
    }
}
