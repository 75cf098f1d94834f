//! The parts of longer messages: what is to be known of a connection, a gate, a peer.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

/// What is to be known of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionNote {
    /// The address that the ini file names, of the listener that it came to.
    pub(crate) listener: SocketAddr,
    /// Whose it is.
    pub(crate) client: IpAddr,
    /// Forwarding fields are believed if the other side is a trusted proxy.
    pub(crate) vouched: bool,
    /// Requests served.
    pub(crate) served: u64,
    /// For how many milliseconds it has been idle.
    pub(crate) idle_ms: u64,
    /// Bytes of an empty line that have arrived.
    pub(crate) line: u64,
    /// The PROXY protocol's header is still to come.
    pub(crate) header_due: bool,
}

impl ConnectionNote {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "listener": self.listener.to_string(),
            "client": self.client.to_string(),
            "vouched": self.vouched,
            "served": self.served,
            "idle_ms": self.idle_ms,
            "line": self.line,
            "header_due": self.header_due,
        })
    }

    pub(super) fn of_json(value: &Value) -> Option<Self> {
        Some(Self {
            listener: value["listener"].as_str()?.parse().ok()?,
            client: value["client"].as_str()?.parse().ok()?,
            vouched: flag(value, "vouched"),
            served: number(value, "served"),
            idle_ms: number(value, "idle_ms"),
            line: number(value, "line"),
            header_due: flag(value, "header_due"),
        })
    }
}

/// What is to be known of the lists besides their content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListsNote {
    /// How often the gateway has replaced them.
    pub(crate) generation: u64,
    /// When they last changed, in milliseconds since 1970.
    pub(crate) changed_ms: Option<u64>,
    /// How long ago the store was last read, in milliseconds.
    pub(crate) age_ms: Option<u64>,
    /// Why the old one cannot read its store at present, if it cannot.
    pub(crate) error: Option<String>,
    /// What is known of versions that were taken back, as text.
    pub(crate) trips: Option<String>,
}

impl ListsNote {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "message": "lists",
            "generation": self.generation,
            "changed_ms": self.changed_ms,
            "age_ms": self.age_ms,
            "error": self.error,
            "trips": self.trips,
        })
    }

    pub(super) fn of_json(value: &Value) -> Self {
        Self {
            trips: value["trips"].as_str().map(str::to_owned),
            generation: number(value, "generation"),
            changed_ms: value["changed_ms"].as_u64(),
            age_ms: value["age_ms"].as_u64(),
            error: value["error"].as_str().map(str::to_owned),
        }
    }
}

/// What is to be known of the lists of a service besides their content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceNote {
    /// The name of the service.
    pub(crate) service: String,
    /// How often the gateway has replaced them.
    pub(crate) generation: u64,
    /// When they last changed, in milliseconds since 1970.
    pub(crate) changed_ms: Option<u64>,
}

impl ServiceNote {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "service": self.service,
            "generation": self.generation,
            "changed_ms": self.changed_ms,
        })
    }

    pub(super) fn of_json(value: &Value) -> Option<Self> {
        Some(Self {
            service: value["service"].as_str()?.to_owned(),
            generation: number(value, "generation"),
            changed_ms: value["changed_ms"].as_u64(),
        })
    }
}

/// What a guarded list has to pass, as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GateNote {
    /// The list's name.
    pub(crate) list: String,
    /// The store was read, but did not give the list.
    pub(crate) doubtful: bool,
    /// How long ago the last change was let in, in milliseconds, if that is not long ago.
    pub(crate) changed_ms: Option<u64>,
    /// A change that waits; its entries come with the message.
    pub(crate) waiting: Option<WaitingNote>,
    /// The list before the latest changes comes with the message, after what waits.
    pub(crate) baseline: bool,
}

/// A change that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitingNote {
    /// Why it is held; none if it only has to settle.
    pub(crate) reason: Option<String>,
    /// Since when, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// For how many milliseconds the store has been seen to have it.
    pub(crate) stood_ms: Option<u64>,
}

impl GateNote {
    /// Of a service besides the default one: an older gateway must not take it for that one's.
    pub(super) fn to_json_of(&self, service: &str) -> Value {
        let mut value = self.to_json();
        value["message"] = "service-gate".into();
        value["service"] = service.into();
        value
    }

    pub(super) fn to_json(&self) -> Value {
        let waiting = self.waiting.as_ref().map(
            |it| json!({ "reason": it.reason, "since_ms": it.since_ms, "stood_ms": it.stood_ms }),
        );
        json!({
            "message": "gate",
            "list": self.list,
            "doubtful": self.doubtful,
            "changed_ms": self.changed_ms,
            "waiting": waiting,
            "baseline": self.baseline,
        })
    }

    pub(super) fn of_json(value: &Value) -> Self {
        let waiting = Some(&value["waiting"]).filter(|it| it.is_object());
        Self {
            list: text(value, "list"),
            doubtful: flag(value, "doubtful"),
            changed_ms: value["changed_ms"].as_u64(),
            waiting: waiting.map(|it| WaitingNote {
                reason: it["reason"].as_str().map(str::to_owned),
                since_ms: number(it, "since_ms"),
                stood_ms: it["stood_ms"].as_u64(),
            }),
            baseline: flag(value, "baseline"),
        }
    }
}

/// How a peer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerNote {
    /// Which.
    pub(crate) peer: SocketAddr,
    /// The name of its state.
    pub(crate) state: String,
    /// Since when it is so, in milliseconds before now; of one that is out, for how long it is to be so.
    pub(crate) state_ms: u64,
    /// Why it is out.
    pub(crate) why: String,
    /// Failures in a row, by their weight.
    pub(crate) in_a_row: u64,
    /// Responses in a row that it has cut short.
    pub(crate) cuts_in_a_row: u64,
    /// How often in a row it went out.
    pub(crate) strikes: u64,
    /// How long ago it went out, in milliseconds.
    pub(crate) out_ms: u64,
    /// It has answered since then.
    pub(crate) proven: bool,
    /// Its checks fail.
    pub(crate) check_failing: bool,
    /// Its last check.
    pub(crate) check: Option<CheckNote>,
}

/// A check of a peer that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckNote {
    /// How many milliseconds ago.
    pub(crate) ago_ms: u64,
    /// The name of its outcome.
    pub(crate) outcome: String,
    /// The status of the response, if one came.
    pub(crate) status: Option<u16>,
}

impl PeerNote {
    pub(super) fn to_json(&self) -> Value {
        let check = self
            .check
            .as_ref()
            .map(|it| json!({ "ago_ms": it.ago_ms, "outcome": it.outcome, "status": it.status }));
        json!({
            "peer": self.peer.to_string(),
            "state": self.state,
            "state_ms": self.state_ms,
            "why": self.why,
            "in_a_row": self.in_a_row,
            "cuts_in_a_row": self.cuts_in_a_row,
            "strikes": self.strikes,
            "out_ms": self.out_ms,
            "proven": self.proven,
            "check_failing": self.check_failing,
            "check": check,
        })
    }

    pub(super) fn of_json(value: &Value) -> Option<Self> {
        let check = Some(&value["check"]).filter(|it| it.is_object());
        Some(Self {
            peer: value["peer"].as_str()?.parse().ok()?,
            state: text(value, "state"),
            state_ms: number(value, "state_ms"),
            why: text(value, "why"),
            in_a_row: number(value, "in_a_row"),
            cuts_in_a_row: number(value, "cuts_in_a_row"),
            strikes: number(value, "strikes"),
            out_ms: number(value, "out_ms"),
            proven: flag(value, "proven"),
            check_failing: flag(value, "check_failing"),
            check: check.map(|it| CheckNote {
                ago_ms: number(it, "ago_ms"),
                outcome: text(it, "outcome"),
                status: it["status"].as_u64().and_then(|it| it.try_into().ok()),
            }),
        })
    }
}

/// Upgrades so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HistoryNote {
    /// When the first process of this gateway was started, in milliseconds since 1970.
    pub(crate) started_ms: Option<u64>,
    /// How often one has succeeded to another.
    pub(crate) upgrades: u64,
    /// The version of the program that hands over.
    pub(crate) program: String,
}

impl HistoryNote {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "message": "history",
            "started_ms": self.started_ms,
            "upgrades": self.upgrades,
            "program": self.program,
        })
    }

    pub(super) fn of_json(value: &Value) -> Self {
        Self {
            started_ms: value["started_ms"].as_u64(),
            upgrades: number(value, "upgrades"),
            program: text(value, "program"),
        }
    }
}

/// A process that has handed over, and finishes what is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DrainNote {
    /// Which process.
    pub(crate) pid: u64,
    /// The version of its program.
    pub(crate) program: String,
    /// Since when, in milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// What is left.
    pub(crate) connections: u64,
    /// When it cuts what is left then, in milliseconds since 1970.
    pub(crate) until_ms: u64,
}

impl DrainNote {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "message": "draining",
            "pid": self.pid,
            "program": self.program,
            "since_ms": self.since_ms,
            "connections": self.connections,
            "until_ms": self.until_ms,
        })
    }

    pub(super) fn of_json(value: &Value) -> Self {
        Self {
            pid: number(value, "pid"),
            program: text(value, "program"),
            since_ms: number(value, "since_ms"),
            connections: number(value, "connections"),
            until_ms: number(value, "until_ms"),
        }
    }
}

pub(super) fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

pub(super) fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

pub(super) fn flag(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or_default()
}
