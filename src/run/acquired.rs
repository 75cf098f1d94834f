//! What a start takes before the lists are read: above all what only root may.

use std::io;
use std::path::Path;

use super::doors::AdminListeners;
use super::folders;
use super::force_secret;
use super::inheritance::Inheritance;
use super::logs::{open_log, opening};
use super::neighbours::{self, Announcement};
use super::sockets::LISTEN;
use super::webhook_secret;
use crate::config::Config;
use crate::logs::events;
use crate::logs::writer::{ERROR_LOG, Log};
use crate::process::{self, Identity, PidFile, Startup};
use crate::proxy::listeners::{self, Entrance};

/// What only root may take, or must be there before the lists are read; nothing is served with it yet.
pub(super) struct Acquired {
    pub(super) listeners: Vec<Entrance>,
    pub(super) admin: AdminListeners,
    pub(super) pid_file: Option<PidFile>,
    /// The supervisor's.
    pub(super) watched: Option<PidFile>,
    pub(super) error_log: Log,
    pub(super) access_log: Log,
    pub(super) claims: Announcement,
}

impl Acquired {
    /// Takes it, and becomes the configured user.
    pub(super) fn take(
        config: &mut Config,
        own: &Config,
        inherited: &mut Inheritance,
        startup: &Startup,
    ) -> io::Result<Self> {
        config.gray.force_secret = force_secret::read(&config.gray)?;
        let signs = webhook_secret::read(config.webhook.as_ref())?;
        if let Some(webhook) = &mut config.webhook {
            webhook.secret = signs;
        }
        let settings = &mut config.gateway;
        startup.at("taking the addresses to listen on");
        let succeeds = inherited.taking.is_some();
        let mut door = |kind: &str, asked: &str| inherited.door(kind, asked);
        let listeners =
            listeners::bind(&settings.listen, |asked| door(LISTEN, &asked.to_string()))?;
        let mut admin = AdminListeners::take(&config.admin, &mut door)?;
        startup.at("looking up [gateway] user and group");
        let identity = Identity::find(settings.user.as_deref(), settings.group.as_deref())?;
        let identity = identity.as_ref();
        startup.at("making the pid file");
        let own_file = settings.pid_file.as_deref();
        // Otherwise it is the supervisor's.
        let own_file = own_file.filter(|_| inherited.supervisor.is_none());
        let pid_file = own_file.map(|path| match succeeds {
            true => PidFile::of_predecessor(path),
            false => PidFile::create(path),
        });
        let pid_file = pid_file.transpose()?;
        startup.at(opening("error", &config.log.error));
        let error_log = open_log(ERROR_LOG, &config.log.error, identity)?;
        events::install(error_log.queue(), config.log.level);
        process::log_panics();
        let watched = inherited.watches(settings.pid_file.as_deref());
        startup.at(opening("access", &config.log.access));
        let access_log = open_log("access", &config.log.access, identity)?;
        if let Some(path) = &config.lists.last_good {
            startup.at(format!("looking at the folder of {}", path.display()));
            make_folder_of_copy(path, identity);
        }
        startup.at("making the admin socket");
        admin.take_socket(&config.admin, identity)?;
        inherited.close_the_rest();
        // Another gateway may have the default one, which was told above.
        let mut used = own.clone();
        used.admin.socket = used.admin.socket.filter(|_| admin.has_socket());
        // In this order, so that of two gateways that start at once, at least one sees the other.
        let claims = Announcement::make(&used);
        neighbours::tell(&used);
        startup.at("starting the workers");
        settings.max_connections =
            process::allow_connections(settings.max_connections, settings.workers)?;
        if let Some(identity) = identity {
            identity.assume()?;
        }
        Ok(Self {
            listeners,
            admin,
            pid_file,
            watched,
            error_log,
            access_log,
            claims,
        })
    }
}

/// If the folder of the last-good copy has to be created, it will belong to the user who writes the
/// copy. Without it the gateway serves all the same.
fn make_folder_of_copy(path: &Path, owner: Option<&Identity>) {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if let Err(error) = folders::make_or_give(folder, ANY_MODE, owner) {
        let error = error.to_string();
        log::error!("copy-folder-failed path={folder:?} error={error:?}");
    }
}

/// Reduced by the umask only.
const ANY_MODE: u32 = 0o777;
