//! What a supervisor and its gateways say to each other. The rules are those of the other messages: what
//! lacks has a default, and what is not known is ignored.
//!
//! Listening sockets go both ways as [`Message::Door`](super::Message::Door), and
//! [`Message::Offered`](super::Message::Offered) ends the set. A gateway that cannot start says so by
//! [`Message::Refused`](super::Message::Refused).

use serde_json::{Value, json};

use crate::process::notices::{ManagerAddress, Notice};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SupervisorMessage {
    /// To a gateway, first of all.
    Supervised {
        /// The supervisor's.
        pid: u32,
        /// How often a gateway was started again since the supervisor was.
        restarts: u64,
        /// Why, the last time.
        reason: Option<String>,
        /// The gateway's share of the blame when memory is short (proc_pid_oom_score_adj(5)), if the
        /// supervisor has another one.
        oom: Option<i64>,
    },
    /// To a gateway: this process is to succeed it.
    Expect {
        /// The successor's.
        pid: u32,
    },
    /// To a gateway: the supervisor leaves, and the gateway is to serve on without.
    Left,
    /// Of a gateway: it serves.
    Serving,
    /// Of a gateway: what a service manager is to be told.
    Notice(Notice),
    /// To a successor that nobody supervises: the service manager of the gateway that it succeeds.
    Manager(ManagerAddress),
    /// Of a gateway that has given up root's rights: it needs a socket that listens at this address, as a
    /// [`Message::Door`](super::Message::Door) or a [`Message::Refused`](super::Message::Refused).
    Bind {
        /// As in a door.
        kind: String,
        /// As in a door.
        asked: String,
    },
    /// Of the command line: this program is to take the place of the gateway, and of the supervisor.
    Upgrade {
        /// Its path.
        program: String,
    },
    /// Of the command line: the supervisor is to leave.
    Leave,
    /// To the command line: it is done.
    Done {
        /// The gateway that serves now.
        pid: u32,
        /// What should be known besides.
        note: Option<String>,
    },
    /// To the supervisor's next program, with the channel to a gateway. Its doors come before.
    Gateway {
        /// The gateway's.
        pid: u32,
        /// It is the one that serves, and not on its way out.
        is_current: bool,
        /// For how many milliseconds it has served.
        serving_ms: Option<u64>,
    },
    /// To the next program, with the descriptor that has the lock.
    PidFile {
        /// Where it is.
        path: String,
    },
    /// To the next program, with the socket at which the command line asks.
    Desk,
    /// To the next program, with a connection of the command line, which waits for the word that an upgrade
    /// is done.
    Asker {
        /// The gateway that serves now.
        pid: u32,
    },
}

impl SupervisorMessage {
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Supervised {
                pid,
                restarts,
                reason,
                oom,
            } => json!({
                "message": "supervised",
                "pid": pid,
                "restarts": restarts,
                "reason": reason,
                "oom": oom,
            }),
            Self::Expect { pid } => json!({ "message": "expect", "pid": pid }),
            Self::Left => json!({ "message": "left" }),
            Self::Serving => json!({ "message": "serving" }),
            Self::Notice(notice) => {
                let (kind, text) = match notice {
                    Notice::Waits(what) => ("waits", Some(what)),
                    Notice::Ready => ("ready", None),
                    Notice::Reloading => ("reloading", None),
                    Notice::Reloaded => ("reloaded", None),
                    Notice::Turns => ("turns", None),
                    Notice::Ends => ("ends", None),
                    Notice::Successor(_) => ("successor", None),
                };
                json!({ "message": "notice", "kind": kind, "text": text })
            }
            Self::Manager(manager) => json!({
                "message": "manager",
                "socket": manager.socket,
                "watchdog_usec": manager.watchdog_usec,
            }),
            Self::Bind { kind, asked } => {
                json!({ "message": "bind", "kind": kind, "asked": asked })
            }
            Self::Upgrade { program } => json!({ "message": "upgrade", "program": program }),
            Self::Leave => json!({ "message": "leave" }),
            Self::Done { pid, note } => json!({ "message": "done", "pid": pid, "note": note }),
            Self::Gateway {
                pid,
                is_current,
                serving_ms,
            } => json!({
                "message": "gateway",
                "pid": pid,
                "current": is_current,
                "serving_ms": serving_ms,
            }),
            Self::PidFile { path } => json!({ "message": "pid-file", "path": path }),
            Self::Desk => json!({ "message": "desk" }),
            Self::Asker { pid } => json!({ "message": "asker", "pid": pid }),
        }
    }

    /// `None` for what this version does not know.
    pub(super) fn of_json(value: &Value) -> Option<Self> {
        let pid = || u32::try_from(value["pid"].as_u64().unwrap_or_default()).ok();
        Some(match value["message"].as_str()? {
            "supervised" => Self::Supervised {
                pid: pid()?,
                restarts: value["restarts"].as_u64().unwrap_or_default(),
                reason: value["reason"].as_str().map(str::to_owned),
                oom: value["oom"].as_i64(),
            },
            "expect" => Self::Expect { pid: pid()? },
            "left" => Self::Left,
            "serving" => Self::Serving,
            "notice" => Self::Notice(match value["kind"].as_str()? {
                "waits" => Notice::Waits(value["text"].as_str().unwrap_or_default().to_owned()),
                "ready" => Notice::Ready,
                "reloading" => Notice::Reloading,
                "reloaded" => Notice::Reloaded,
                "turns" => Notice::Turns,
                "ends" => Notice::Ends,
                _ => return None,
            }),
            "manager" => Self::Manager(ManagerAddress {
                socket: value["socket"].as_str()?.to_owned(),
                watchdog_usec: value["watchdog_usec"].as_u64(),
            }),
            "bind" => Self::Bind {
                kind: value["kind"].as_str()?.to_owned(),
                asked: value["asked"].as_str()?.to_owned(),
            },
            "upgrade" => Self::Upgrade {
                program: value["program"].as_str()?.to_owned(),
            },
            "leave" => Self::Leave,
            "done" => Self::Done {
                pid: pid()?,
                note: value["note"].as_str().map(str::to_owned),
            },
            "gateway" => Self::Gateway {
                pid: pid()?,
                is_current: value["current"].as_bool().unwrap_or_default(),
                serving_ms: value["serving_ms"].as_u64(),
            },
            "pid-file" => Self::PidFile {
                path: value["path"].as_str()?.to_owned(),
            },
            "desk" => Self::Desk,
            "asker" => Self::Asker { pid: pid()? },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the released versions send them. Lines are added with a version, and never changed.
    fn released() -> Vec<(&'static str, SupervisorMessage)> {
        vec![
            (
                r#"{"message":"supervised","oom":0,"pid":7,"reason":"signal 9","restarts":2}"#,
                SupervisorMessage::Supervised {
                    pid: 7,
                    restarts: 2,
                    reason: Some("signal 9".to_owned()),
                    oom: Some(0),
                },
            ),
            (
                r#"{"message":"expect","pid":7}"#,
                SupervisorMessage::Expect { pid: 7 },
            ),
            (r#"{"message":"left"}"#, SupervisorMessage::Left),
            (r#"{"message":"serving"}"#, SupervisorMessage::Serving),
            (
                r#"{"kind":"waits","message":"notice","text":"t"}"#,
                SupervisorMessage::Notice(Notice::Waits("t".to_owned())),
            ),
            (
                r#"{"kind":"ready","message":"notice","text":null}"#,
                SupervisorMessage::Notice(Notice::Ready),
            ),
            (
                r#"{"kind":"reloading","message":"notice","text":null}"#,
                SupervisorMessage::Notice(Notice::Reloading),
            ),
            (
                r#"{"kind":"reloaded","message":"notice","text":null}"#,
                SupervisorMessage::Notice(Notice::Reloaded),
            ),
            (
                r#"{"kind":"turns","message":"notice","text":null}"#,
                SupervisorMessage::Notice(Notice::Turns),
            ),
            (
                r#"{"kind":"ends","message":"notice","text":null}"#,
                SupervisorMessage::Notice(Notice::Ends),
            ),
            (
                r#"{"message":"manager","socket":"/s","watchdog_usec":9}"#,
                SupervisorMessage::Manager(ManagerAddress {
                    socket: "/s".to_owned(),
                    watchdog_usec: Some(9),
                }),
            ),
            (
                r#"{"asked":"127.0.0.1:80","kind":"gateway.listen","message":"bind"}"#,
                SupervisorMessage::Bind {
                    kind: "gateway.listen".to_owned(),
                    asked: "127.0.0.1:80".to_owned(),
                },
            ),
            (
                r#"{"message":"upgrade","program":"/p"}"#,
                SupervisorMessage::Upgrade {
                    program: "/p".to_owned(),
                },
            ),
            (r#"{"message":"leave"}"#, SupervisorMessage::Leave),
            (
                r#"{"message":"done","note":"n","pid":7}"#,
                SupervisorMessage::Done {
                    pid: 7,
                    note: Some("n".to_owned()),
                },
            ),
            (
                r#"{"current":true,"message":"gateway","pid":7,"serving_ms":9}"#,
                SupervisorMessage::Gateway {
                    pid: 7,
                    is_current: true,
                    serving_ms: Some(9),
                },
            ),
            (
                r#"{"message":"pid-file","path":"/p"}"#,
                SupervisorMessage::PidFile {
                    path: "/p".to_owned(),
                },
            ),
            (r#"{"message":"desk"}"#, SupervisorMessage::Desk),
            (
                r#"{"message":"asker","pid":7}"#,
                SupervisorMessage::Asker { pid: 7 },
            ),
        ]
    }

    #[test]
    fn messages_of_the_first_version_stay_as_they_are_in_the_copy_that_nobody_changes() {
        let copy = include_str!("../../../tests/released/supervisor-1.jsonl").lines();
        let own: Vec<&str> = released().into_iter().map(|(text, _)| text).collect();
        assert_eq!(copy.collect::<Vec<_>>(), own);
    }

    #[test]
    fn messages_of_all_released_versions_are_understood() {
        for (text, message) in released() {
            let read =
                |text: &str| SupervisorMessage::of_json(&serde_json::from_str(text).unwrap());
            assert_eq!(read(text), Some(message.clone()));
            assert_eq!(read(&message.to_json().to_string()), Some(message));
        }
    }

    #[test]
    fn what_lacks_has_a_default() {
        let read = SupervisorMessage::of_json(&json!({ "message": "supervised", "later": 1 }));
        let expected = SupervisorMessage::Supervised {
            pid: 0,
            restarts: 0,
            reason: None,
            oom: None,
        };
        assert_eq!(read, Some(expected));
        assert_eq!(
            SupervisorMessage::of_json(&json!({ "message": "later" })),
            None
        );
    }
}
