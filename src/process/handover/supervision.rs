//! What a supervisor and its gateways say to each other. The rules are those of the other messages: what
//! lacks has a default, and what is not known is ignored.
//!
//! Listening sockets go both ways as [`Message::Door`](super::Message::Door), and
//! [`Message::Offered`](super::Message::Offered) ends the set. A gateway that cannot start says so by
//! [`Message::Refused`](super::Message::Refused).

use serde_json::{Value, json};

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
        ]
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
