//! What a gateway tells others about itself: the content of its heartbeats. No I/O.

use serde_json::{Value, json};

/// The most characters of a text of a heartbeat that are shown.
const LONGEST: usize = 128;

/// A gateway, as it was at one of its heartbeats.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Its name among the gateways on one Redis.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// The digest of the lists in force; none before there are any.
    pub digest: Option<String>,
    /// The generation of the lists in force.
    pub generation: u64,
    /// Seconds since the lists were last read in full, if they were.
    pub age_seconds: Option<f64>,
    /// How changes are noticed: see [`Mode::name`](crate::store::Mode::name).
    pub mode: String,
    /// The names of the lists of which a change is held.
    pub held: Vec<String>,
    /// Identifies the process, beyond name and process id.
    pub instance: String,
    /// The process id.
    pub pid: u64,
    /// When it was started, as in RFC 3339.
    pub started_at: String,
    /// The time to live that goes with the heartbeat, in milliseconds.
    pub ttl_ms: u64,
}

impl Node {
    /// The text of a heartbeat.
    pub(crate) fn to_json(&self) -> String {
        self.members().to_string()
    }

    /// What a heartbeat says.
    pub(crate) fn members(&self) -> Value {
        json!({
            "node": self.name,
            "version": self.version,
            "digest": self.digest,
            "generation": self.generation,
            "age_seconds": self.age_seconds,
            "mode": self.mode,
            "held": self.held,
            "instance": self.instance,
            "pid": self.pid,
            "started_at": self.started_at,
            "ttl_ms": self.ttl_ms,
        })
    }

    /// Parses a heartbeat, which anybody may have written; `None` when it is something else. What only
    /// later versions know is ignored.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let page: Value = serde_json::from_slice(text).ok()?;
        let text = |name: &str| page[name].as_str().map(plain);
        let held = page["held"].as_array().into_iter().flatten();
        Some(Self {
            name: text("node")?,
            version: text("version")?,
            digest: text("digest"),
            generation: page["generation"].as_u64()?,
            age_seconds: page["age_seconds"].as_f64(),
            mode: text("mode")?,
            held: held.filter_map(Value::as_str).map(plain).collect(),
            instance: text("instance")?,
            pid: page["pid"].as_u64().unwrap_or_default(),
            started_at: text("started_at").unwrap_or_default(),
            ttl_ms: page["ttl_ms"].as_u64()?,
        })
    }
}

/// A text that is safe for a terminal, of bounded length.
pub(crate) fn plain(text: &str) -> String {
    let is_plain = |it: char| !it.is_control() && !it.is_whitespace();
    let shown = text.chars().map(|it| if is_plain(it) { it } else { '?' });
    shown.take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node {
            name: "a".to_owned(),
            version: "1.2.3".to_owned(),
            digest: Some("0123456789abcdef".to_owned()),
            generation: 7,
            age_seconds: Some(0.25),
            mode: "events".to_owned(),
            held: vec!["prod".to_owned()],
            instance: "i".to_owned(),
            pid: 1,
            started_at: "2026-11-25T19:16:26.123Z".to_owned(),
            ttl_ms: 6000,
        }
    }

    #[test]
    fn a_heartbeat_is_read_as_it_was_written() {
        let unread = Node {
            digest: None,
            age_seconds: None,
            held: Vec::new(),
            ..node()
        };
        for node in [node(), unread] {
            assert_eq!(Node::parse(node.to_json().as_bytes()), Some(node));
        }
    }

    #[test]
    fn what_is_no_heartbeat_is_none_and_what_is_later_is_ignored() {
        for text in ["", "x", "[]", "{}", "{\"node\":\"a\"}", "\u{7f}"] {
            assert_eq!(Node::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Node::parse(b"\xff"), None);
        let later = node().to_json().replacen('{', "{\"more\":[1],", 1);
        assert_eq!(Node::parse(later.as_bytes()), Some(node()));
    }

    #[test]
    fn nothing_in_a_heartbeat_commands_a_terminal() {
        let text = node().to_json().replace("events", "\\u001b[2Jx y");
        let mode = Node::parse(text.as_bytes()).unwrap().mode;
        assert_eq!(mode, "?[2Jx?y");
        assert_eq!(plain(&"x".repeat(1000)).len(), LONGEST);
    }
}
