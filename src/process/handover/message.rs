//! What two gateways say to each other at a handover. One of them may be older: what a message lacks has a
//! default, and what it has besides is ignored.

use serde_json::{Value, json};

use super::notes::{
    ConnectionNote, DrainNote, GateNote, HistoryNote, ListsNote, PeerNote, flag, text,
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

    /// As the released versions send them. Lines are added with a version, and never changed.
    const RELEASED: &[(&str, Message)] = &[
        (r#"{"message":"ready"}"#, Message::Ready),
        (r#"{"message":"yours"}"#, Message::Yours),
        (r#"{"message":"taken"}"#, Message::Taken),
        (r#"{"message":"streams"}"#, Message::Streams),
        (r#"{"message":"arriving"}"#, Message::Arriving),
        (r#"{"message":"welcome"}"#, Message::Welcome),
    ];

    fn with_values() -> Vec<(&'static str, Message)> {
        let listener = "127.0.0.1:80".parse().unwrap();
        vec![
            (
                r#"{"message":"take","program":"0.1.0","version":1}"#,
                Message::Take {
                    version: 1,
                    program: "0.1.0".to_owned(),
                },
            ),
            (
                r#"{"message":"refused","reason":"busy"}"#,
                Message::Refused {
                    reason: "busy".to_owned(),
                },
            ),
            (
                r#"{"asked":"127.0.0.1:80","kind":"gateway.listen","message":"door"}"#,
                Message::Door {
                    kind: "gateway.listen".to_owned(),
                    asked: "127.0.0.1:80".to_owned(),
                },
            ),
            (
                r#"{"has_lists":true,"message":"offered"}"#,
                Message::Offered { has_lists: true },
            ),
            (
                r#"{"connections":[{"client":"10.0.0.1","header_due":true,"idle_ms":7,"line":1,
                    "listener":"127.0.0.1:80","served":3,"vouched":true}],"message":"connections"}"#,
                Message::Connections(vec![ConnectionNote {
                    listener,
                    client: "10.0.0.1".parse().unwrap(),
                    vouched: true,
                    served: 3,
                    idle_ms: 7,
                    line: 1,
                    header_due: true,
                }]),
            ),
        ]
    }

    #[test]
    fn messages_of_all_released_versions_are_understood() {
        for (text, message) in RELEASED.iter().cloned().chain(with_values()) {
            assert_eq!(Message::of_bytes(text.as_bytes()), Some(message.clone()));
            assert_eq!(Message::of_bytes(&message.to_bytes()), Some(message));
        }
    }

    #[test]
    fn what_is_not_known_is_ignored_and_what_lacks_has_a_default() {
        let read = |text: &str| Message::of_bytes(text.as_bytes());
        assert_eq!(
            read(r#"{"message":"ready","later":[1]}"#),
            Some(Message::Ready)
        );
        let take = Message::Take {
            version: 1,
            program: String::new(),
        };
        assert_eq!(read(r#"{"message":"take"}"#), Some(take));
        assert_eq!(read(r#"{"message":"later"}"#), None);
        assert_eq!(read(r#"{}"#), None);
    }
}
