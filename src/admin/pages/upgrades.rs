//! The page `/upgrades`: the processes of this gateway, one after the other.

use std::time::SystemTime;

use serde_json::Value;

use crate::admin::pages::member::{Member, Page, object};
use crate::admin::view::View;
use crate::process::handover::DrainNote;
use crate::process::lineage::of_millis;

object! {
    /// What the page says.
    pub(crate) struct UpgradesPage {
        /// The process that answers.
        pid: Option<u64>,
        /// The version of its program.
        version: String,
        /// When the first process of this gateway was started.
        started_at: Option<String>,
        /// How often a process has taken over from another one since then.
        upgrades: u64,
        /// The last time.
        last: Option<UpgradeShown>,
        /// Processes that have handed over, and finish what is under way.
        draining: Vec<DrainingProcess>,
    }
}

object! {
    /// An upgrade.
    pub(crate) struct UpgradeShown {
        at: String,
        /// The version of the program before it.
        from: String,
    }
}

object! {
    /// A process that finishes what is under way.
    pub(crate) struct DrainingProcess {
        pid: u64,
        version: String,
        since: String,
        connections: u64,
        /// When it cuts what is left then.
        until: String,
    }
}

impl Page for UpgradesPage {
    const PATH: &'static str = "/upgrades";

    fn of(page: &Value) -> Option<Self> {
        Self::read(page)
    }
}

/// The page as text.
pub(crate) fn render(view: &View) -> String {
    let lineage = &view.lineage;
    let page = UpgradesPage {
        pid: Some(u64::from(std::process::id())),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Some(shown(lineage.started())),
        upgrades: lineage.upgrades(),
        last: lineage.last().map(|it| UpgradeShown {
            at: shown(it.at),
            from: it.from,
        }),
        draining: lineage.draining().iter().map(draining).collect(),
    };
    format!("{:#}\n", page.render())
}

fn draining(note: &DrainNote) -> DrainingProcess {
    DrainingProcess {
        pid: note.pid,
        version: note.program.clone(),
        since: shown(of_millis(note.since_ms)),
        connections: note.connections,
        until: shown(of_millis(note.until_ms)),
    }
}

fn shown(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
