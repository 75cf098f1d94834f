//! Lines of `json`: an object each, with the keys of `main`, in its order, and some more. What is `-` there
//! is null here. Whatever a client sends, each line is valid JSON in UTF-8.

use super::{
    ESCAPE, Record, TimeText, VALUE_LIMIT, address, escape, number, percent, put_ip, seconds,
};

impl Record<'_> {
    pub(super) fn render_json(&self, clock: &mut TimeText, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        clock.write(self.time, out);
        out.extend_from_slice(b"\",\"client\":\"");
        put_ip(out, self.client);
        out.push(b'"');
        word(out, b"pool", Some(self.pool));
        word(out, b"reason", Some(self.reason));
        key(out, b"peer");
        match self.peer {
            Some(peer) => {
                address(out, b"\"", peer);
                out.push(b'"');
            }
            None => out.extend_from_slice(b"null"),
        }
        number(out, b",\"attempts\":", self.attempts);
        number(out, b",\"status\":", self.status);
        number(out, b",\"received\":", self.received);
        number(out, b",\"sent\":", self.sent);
        number(out, b",\"body_sent\":", self.body_sent);
        seconds(out, b",\"request_time\":", self.request_time);
        match self.upstream_time {
            Some(time) => seconds(out, b",\"upstream_time\":", time),
            None => out.extend_from_slice(b",\"upstream_time\":null"),
        }
        number(out, b",\"generation\":", self.generation);
        text(out, b"method", present(self.method));
        text(out, b"target", present(self.target));
        text(out, b"host", present(self.host));
        text(out, b"user_agent", self.user_agent);
        // The only field that it asks for.
        text(out, b"referer", self.fields.get(0));
        text(out, b"request_id", self.request_id);
        word(out, b"error", self.error);
        word(out, b"close", self.close);
        word(out, b"denied", self.denied);
        number(out, b",\"sample\":", self.sample);
        if self.has_services {
            word(out, b"service", Some(self.service));
        }
        if self.entry.is_some() {
            text(out, b"entry", self.entry);
        }
        if let Some(bucket) = self.bucket {
            percent(out, b",\"bucket\":", bucket);
        }
        out.push(b'}');
    }
}

fn present(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
}

fn key(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key);
    out.extend_from_slice(b"\":");
}

/// A word of the gateway's own, which needs no escapes.
fn word(out: &mut Vec<u8>, name: &[u8], value: Option<&str>) {
    key(out, name);
    match value.filter(|it| *it != "-") {
        Some(value) => {
            out.push(b'"');
            out.extend_from_slice(value.as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// A value from outside.
fn text(out: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    key(out, name);
    match value {
        Some(value) => {
            out.push(b'"');
            put_text(out, value, VALUE_LIMIT);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// Writes what stands between the quotes of a JSON string, at most `limit` bytes of it, escapes included.
/// What is not UTF-8 becomes U+FFFD.
pub(super) fn put_text(out: &mut Vec<u8>, value: &[u8], limit: usize) {
    let end = out.len().saturating_add(limit);
    let mut put = |piece: &[u8]| {
        let fits = out.len() + piece.len() <= end;
        if fits {
            out.extend_from_slice(piece);
        }
        fits
    };
    for chunk in value.utf8_chunks() {
        for letter in chunk.valid().chars() {
            let fits = match letter {
                '"' => put(b"\\\""),
                '\\' => put(b"\\\\"),
                '\n' => put(b"\\n"),
                '\r' => put(b"\\r"),
                '\t' => put(b"\\t"),
                '\x08' => put(b"\\b"),
                '\x0c' => put(b"\\f"),
                // A terminal might obey it.
                letter if letter.is_control() => put(&unicode(letter)),
                letter => put(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            };
            if !fits {
                return;
            }
        }
        if !chunk.invalid().is_empty() && !put("\u{fffd}".as_bytes()) {
            return;
        }
    }
}

/// `\u001B` and the like, for what is below U+0100.
fn unicode(letter: char) -> [u8; 6] {
    let [_, _, high, low]: [u8; ESCAPE] = escape(letter as u8);
    [b'\\', b'u', b'0', b'0', high, low]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{record, rendered};
    use super::*;
    use crate::http::span::Span;
    use crate::logs::access::ShownFields;

    fn parsed(record: &Record<'_>) -> serde_json::Value {
        let line = rendered(record, "json");
        assert_eq!(memchr::memchr_iter(b'\n', &line).count(), 1);
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn a_line_is_an_object_with_the_keys_of_main_and_some_more() {
        let values = [Some(Span::new(0, 1))];
        let mut record = record();
        record.fields = ShownFields {
            bytes: b"r",
            values: &values,
        };
        let expected = serde_json::json!({
            "time": "2017-07-14T02:40:00.007Z", "client": "127.0.0.5", "pool": "pre",
            "reason": "listed", "peer": "127.0.0.1:9001", "attempts": 1, "status": 200,
            "received": 100, "sent": 200, "body_sent": 150, "request_time": 0.001_234,
            "upstream_time": 2.000_001, "generation": 3, "method": "GET", "target": "/x?y",
            "host": "h", "user_agent": "curl", "referer": "r", "request_id": null, "error": null, "close": null,
            "denied": null, "sample": 1,
        });
        assert_eq!(parsed(&record), expected);
        (record.pool, record.reason, record.peer) = ("-", "-", None);
        (record.upstream_time, record.user_agent) = (None, None);
        let parsed = parsed(&record);
        for key in ["pool", "reason", "peer", "upstream_time", "user_agent"] {
            assert!(parsed[key].is_null(), "{key}");
        }
    }

    #[test]
    fn whatever_a_client_sends_a_line_is_json_and_so_much_long() {
        let mut record = record();
        let all: Vec<u8> = (0..=255).collect();
        record.user_agent = Some(&all);
        record.target = "/\u{e9}\u{85}".as_bytes();
        let parsed = parsed(&record);
        let agent: String = (0..128_u8).map(char::from).collect();
        let shown = parsed["user_agent"].as_str().unwrap();
        assert!(shown.starts_with(&agent) && shown.ends_with('\u{fffd}'));
        assert_eq!(parsed["target"], "/\u{e9}\u{85}");
        for byte in [b'x', b'"', 0x1b, 0xff] {
            let mut out = Vec::new();
            put_text(&mut out, &[byte; 1000], 512);
            assert!((507..=512).contains(&out.len()), "{byte}: {}", out.len());
        }
    }
}
