//! The page `/config`: the ini file, what has come of reading it again, where the gateway may be asked; and,
//! where lists of clients are shown, every setting. Secrets never are.

use serde_json::Value;

use crate::admin::pages::member::{Member, Page, object};
use crate::admin::pages::settings::SettingShown;
use crate::admin::view::View;

object! {
    /// What the page says.
    pub(crate) struct ConfigPage {
        /// The ini file.
        file: String,
        /// The process that answers.
        pid: Option<u64>,
        reloads: ReloadCounts,
        /// Why the last reload failed, if it did.
        error: Option<String>,
        /// Keys that the last reload could not change.
        ignored: Vec<String>,
        /// Keys over which the environment takes precedence.
        masked: Vec<String>,
        max_connections: u64,
        /// Who starts the gateway again should it die, if anybody does.
        supervisor: Option<SupervisorPart>,
        /// Where the gateway may be asked, and what is answered there.
        admin: AdminDoors,
        /// What is in force; none where it is not shown.
        settings: Option<Vec<SettingShown>>,
    }
}

object! {
    /// The process that has started this one.
    pub(crate) struct SupervisorPart {
        pid: u64,
        /// How often it has started a gateway again.
        restarts: u64,
        /// Why, the last time.
        reason: Option<String>,
    }
}

object! {
    /// The admin listeners.
    pub(crate) struct AdminDoors {
        /// The path of the Unix socket, if there is one.
        socket: Option<String>,
        /// Where the pages can be read, if anywhere.
        listen: Option<String>,
        /// What is shown there of lists of clients: `status` or `full`.
        expose: String,
        /// Changes are possible there, with a token.
        token: bool,
        /// Where `/metrics` and `/healthz` alone can be read, if anywhere.
        metrics: Option<String>,
    }
}

object! {
    /// What reloads have come to.
    pub(crate) struct ReloadCounts {
        ok: u64,
        failed: u64,
        /// One has begun, and not yet ended.
        under_way: bool,
    }
}

impl Page for ConfigPage {
    const PATH: &'static str = "/config";

    fn of(page: &Value) -> Option<Self> {
        Self::read(page)
    }
}

/// The page as text, with the settings or not.
pub(crate) fn render(view: &View, with_settings: bool) -> String {
    let config = view.gateway.config.load();
    let (reloads, doors) = (view.reloads.state(), view.doors.load());
    let owned = |keys: &[&str]| keys.iter().map(|it| (*it).to_owned()).collect();
    let page = ConfigPage {
        file: config.path.to_string_lossy().into_owned(),
        pid: Some(u64::from(std::process::id())),
        reloads: ReloadCounts {
            ok: reloads.ok,
            failed: reloads.failed,
            under_way: reloads.under_way,
        },
        error: reloads.error,
        ignored: owned(&reloads.ignored),
        masked: owned(&config.masked),
        max_connections: config.gateway.max_connections as u64,
        supervisor: view.supervision.as_ref().map(|it| SupervisorPart {
            pid: u64::from(it.pid),
            restarts: it.restarts,
            reason: it.reason.clone(),
        }),
        admin: AdminDoors {
            socket: doors.socket.as_ref().map(|it| it.display().to_string()),
            listen: doors.listen.map(|it| it.to_string()),
            expose: config.admin.expose.name().to_owned(),
            token: view.token.load().is_some(),
            metrics: doors.metrics.map(|it| it.to_string()),
        },
        settings: with_settings.then(|| SettingShown::all(&config)),
    };
    format!("{:#}\n", page.render())
}
