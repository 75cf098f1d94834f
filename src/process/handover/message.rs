//! What two gateways say to each other at a handover. One of them may be older: what a message lacks has a
//! default, and what it has besides is ignored.

use serde_json::{Value, json};

use super::notes::{
    ConnectionNote, DrainNote, GateNote, HistoryNote, ListsNote, PeerNote, ServiceNote, flag, text,
};
use super::supervision::SupervisorMessage;

/// The version of these messages. A change that an older version could misunderstand gets a new name instead.
pub(crate) const VERSION: u64 = 1;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The new one asks for all that can be handed over.
    Take {
        /// [`VERSION`] of the new one.
        version: u64,
        /// The version of its program, for the log.
        program: String,
    },
    /// The old one gives nothing.
    Refused {
        /// Why, in words.
        reason: String,
    },
    /// A listening socket, whose descriptor comes with it.
    Door {
        /// The key of the ini file that names it, with its section: `gateway.listen`.
        kind: String,
        /// The address or the path that the ini file names, with port 0 if it does so.
        asked: String,
    },
    /// Standard output and standard error, whose descriptors come with it.
    Streams,
    /// The lists in force; their content comes with it, in the form of a last-good copy, if there is any.
    Lists(ListsNote),
    /// What a list has to pass; the entries come with it, one a line.
    Gate(GateNote),
    /// What is to be known of services besides the default one; their lists come with it, in the form of a
    /// last-good copy, if there are any. There may be several of these messages, of which one has the lists.
    Services(Vec<ServiceNote>),
    /// As [`Self::Gate`], of a service besides the default one.
    ServiceGate(String, GateNote),
    /// How peers do. There may be several of these messages.
    Peers(Vec<PeerNote>),
    /// Upgrades so far.
    History(HistoryNote),
    /// That was all.
    Offered {
        /// The old one has lists, so the new one must not serve without.
        has_lists: bool,
    },
    /// The new one accepts connections.
    Ready,
    /// The other side is to say that it is alive.
    Ping,
    /// It is.
    Pong,
    /// A held change was accepted.
    Accepted {
        /// By this digest.
        digest: String,
    },
    /// The ini file is to be read anew: the old one was told so meanwhile.
    Reload,
    /// The old one has let go of what only one can have.
    Yours,
    /// The new one has it.
    Taken,
    /// An earlier process asks whether it may send its connections, since the one that it has sent them to
    /// takes no more.
    Arriving,
    /// It may.
    Welcome,
    /// How far the process is that says so, which has handed over.
    Draining(DrainNote),
    /// The logs are to be opened anew.
    Reopen,
    /// The gateway is to end: the old one was told so just before the new one had taken over.
    Stop,
    /// Connections between two requests, whose descriptors come with it in this order.
    Connections(Vec<ConnectionNote>),
    /// Between a supervisor and its gateways.
    Supervisor(SupervisorMessage),
}

impl Message {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let value = match self {
            Self::Take { version, program } => {
                json!({ "message": "take", "version": version, "program": program })
            }
            Self::Refused { reason } => json!({ "message": "refused", "reason": reason }),
            Self::Door { kind, asked } => {
                json!({ "message": "door", "kind": kind, "asked": asked })
            }
            Self::Streams => json!({ "message": "streams" }),
            Self::Lists(note) => note.to_json(),
            Self::Gate(note) => note.to_json(),
            Self::Services(notes) => {
                let notes: Vec<Value> = notes.iter().map(ServiceNote::to_json).collect();
                json!({ "message": "services", "services": notes })
            }
            Self::ServiceGate(service, note) => note.to_json_of(service),
            Self::Peers(notes) => {
                let notes: Vec<Value> = notes.iter().map(PeerNote::to_json).collect();
                json!({ "message": "peers", "peers": notes })
            }
            Self::History(note) => note.to_json(),
            Self::Offered { has_lists } => json!({ "message": "offered", "has_lists": has_lists }),
            Self::Ready => json!({ "message": "ready" }),
            Self::Ping => json!({ "message": "ping" }),
            Self::Pong => json!({ "message": "pong" }),
            Self::Accepted { digest } => json!({ "message": "accepted", "digest": digest }),
            Self::Reload => json!({ "message": "reload" }),
            Self::Yours => json!({ "message": "yours" }),
            Self::Taken => json!({ "message": "taken" }),
            Self::Arriving => json!({ "message": "arriving" }),
            Self::Welcome => json!({ "message": "welcome" }),
            Self::Draining(note) => note.to_json(),
            Self::Reopen => json!({ "message": "reopen" }),
            Self::Stop => json!({ "message": "stop" }),
            Self::Connections(notes) => {
                let notes: Vec<Value> = notes.iter().map(ConnectionNote::to_json).collect();
                json!({ "message": "connections", "connections": notes })
            }
            Self::Supervisor(message) => message.to_json(),
        };
        value.to_string().into_bytes()
    }

    /// `None` for what this version does not know.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let text = |key: &str| text(&value, key);
        Some(match value["message"].as_str()? {
            "take" => Self::Take {
                version: value["version"].as_u64().unwrap_or(VERSION),
                program: text("program"),
            },
            "refused" => Self::Refused {
                reason: text("reason"),
            },
            "door" => Self::Door {
                kind: text("kind"),
                asked: text("asked"),
            },
            "streams" => Self::Streams,
            "lists" => Self::Lists(ListsNote::of_json(&value)),
            "gate" => Self::Gate(GateNote::of_json(&value)),
            "services" => {
                let notes = value["services"].as_array().into_iter().flatten();
                Self::Services(notes.filter_map(ServiceNote::of_json).collect())
            }
            "service-gate" => Self::ServiceGate(text("service"), GateNote::of_json(&value)),
            "peers" => {
                let notes = value["peers"].as_array()?.iter();
                Self::Peers(notes.filter_map(PeerNote::of_json).collect())
            }
            "history" => Self::History(HistoryNote::of_json(&value)),
            "offered" => Self::Offered {
                has_lists: flag(&value, "has_lists"),
            },
            "ready" => Self::Ready,
            "ping" => Self::Ping,
            "pong" => Self::Pong,
            "accepted" => Self::Accepted {
                digest: text("digest"),
            },
            "reload" => Self::Reload,
            "yours" => Self::Yours,
            "taken" => Self::Taken,
            "arriving" => Self::Arriving,
            "welcome" => Self::Welcome,
            "draining" => Self::Draining(DrainNote::of_json(&value)),
            "reopen" => Self::Reopen,
            "stop" => Self::Stop,
            "connections" => {
                let notes = value["connections"].as_array()?.iter();
                // All or none: descriptors are told apart by their order.
                Self::Connections(notes.map(ConnectionNote::of_json).collect::<Option<_>>()?)
            }
            _ => Self::Supervisor(SupervisorMessage::of_json(&value)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the released versions send them, of each one line for each message, and more where a part can lack.
    /// A version adds a file, and none is ever changed.
    const RELEASED: &[&str] = &[include_str!("../../../tests/released/handover-1.jsonl")];

    fn released() -> impl Iterator<Item = &'static str> {
        RELEASED.iter().flat_map(|it| it.lines())
    }

    #[test]
    fn messages_of_all_released_versions_are_understood() {
        for line in released() {
            let Some(message) = Message::of_bytes(line.as_bytes()) else {
                panic!("nothing is understood of {line}");
            };
            // Nothing of it was lost: it can be said again. A member that came later is beside the point.
            let (old, new): (Value, Value) = (
                serde_json::from_str(line).unwrap(),
                serde_json::from_slice(&message.to_bytes()).unwrap(),
            );
            assert_has(&new, &old, line);
        }
    }

    /// What was read by the released versions is still there, by the same name and of the same kind.
    #[track_caller]
    fn assert_has(new: &Value, old: &Value, line: &str) {
        match (new, old) {
            (Value::Object(new), Value::Object(old)) => {
                for (name, value) in old {
                    let member = new.get(name).unwrap_or_else(|| panic!("no {name}: {line}"));
                    assert_has(member, value, line);
                }
            }
            (Value::Array(new), Value::Array(old)) => {
                assert_eq!(new.len(), old.len(), "{line}");
                for (new, old) in new.iter().zip(old) {
                    assert_has(new, old, line);
                }
            }
            (new, old) => assert_eq!(new, old, "{line}"),
        }
    }

    #[test]
    fn every_message_is_among_those_of_the_newest_version() {
        let kinds = |text: &str| {
            let of =
                |line: &str| std::mem::discriminant(&Message::of_bytes(line.as_bytes()).unwrap());
            let mut kinds = Vec::new();
            for kind in text.lines().map(of) {
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
            kinds.len()
        };
        let newest = RELEASED.last().unwrap();
        // Those of supervisors are tested beside them.
        assert_eq!(kinds(newest), 24);
        assert_eq!(RELEASED.len() as u64, VERSION);
        let text = include_str!("message.rs");
        let arms = text.split("pub(super) fn of_bytes").nth(1).unwrap();
        let arms = arms.split("#[cfg(test)]").next().unwrap();
        let names = arms
            .lines()
            .filter(|it| it.trim_start().starts_with('"') && it.contains("=>"));
        assert_eq!(names.count(), 24);
    }

    #[test]
    fn what_is_not_known_is_ignored_and_what_lacks_has_a_default() {
        for line in released() {
            let mut value: Value = serde_json::from_str(line).unwrap();
            let message = Message::of_bytes(line.as_bytes()).unwrap();
            value["later"] = json!({ "what": [1, null] });
            let read = Message::of_bytes(value.to_string().as_bytes());
            assert_eq!(read, Some(message), "{value}");
            // A message is known by its name, whatever lacks, but for those that are lists.
            let name = json!({ "message": value["message"] }).to_string();
            let is_known = Message::of_bytes(name.as_bytes()).is_some();
            let needs = ["connections", "peers"].contains(&value["message"].as_str().unwrap());
            assert_eq!(is_known, !needs, "{name}");
        }
        for nothing in [
            r#"{"message":"later"}"#,
            "{}",
            "[]",
            "later",
            r#"{"message":1}"#,
        ] {
            assert_eq!(Message::of_bytes(nothing.as_bytes()), None);
        }
    }

    #[test]
    fn a_member_of_another_kind_is_as_good_as_none() {
        let read = |text: &str| Message::of_bytes(text.as_bytes());
        let take = Message::Take {
            version: VERSION,
            program: String::new(),
        };
        assert_eq!(
            read(r#"{"message":"take","version":"x","program":1}"#),
            Some(take)
        );
        let gate = Message::Gate(GateNote::default());
        assert_eq!(
            read(r#"{"message":"gate","waiting":[],"baseline":"x"}"#),
            Some(gate)
        );
    }
}
