//! A message as each receiver wants it, and what its answer means. Pure: bytes out, bytes in.
//!
//! - `json`, the gateway's own. The header `X-Hub-Signature-256` has `sha256=` and HMAC-SHA256 of the body in
//!   hexadecimal digits, as GitHub has it ("Validating webhook deliveries").
//! - `slack`: `{"text"}`, in which `&`, `<` and `>` are escaped. The URL is the secret. ("Sending messages
//!   using incoming webhooks", "Formatting message text".)
//! - `dingtalk`: `timestamp` in milliseconds and `sign` are in the query; that is base64 of HMAC-SHA256, by
//!   the secret, of the timestamp, a line feed and the secret. ("Custom robot access", "Security settings".)
//! - `feishu`: `timestamp` in seconds and `sign` are in the body; that is base64 of HMAC-SHA256 of nothing,
//!   by the timestamp, a line feed and the secret. ("Custom bot usage guide", "Signature verification".)
//! - `wecom`: a text of 2048 bytes at most. The URL is the secret. ("Group robot configuration".)
//!
//! A status other than 2xx is a failure. The last three answer 200 whatever happens, with an `errcode`
//! (Feishu: `code`), which is 0 only for a message that was taken.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};

use super::notice::ReleaseNotice;
use crate::config::{WebhookFormat, WebhookSettings};

/// What is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebhookMessage {
    pub(super) url: String,
    /// Besides those that every message has.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// The message that a `notice` of the gateway called `node` makes, at a time since 1970.
pub(super) fn message(
    settings: &WebhookSettings,
    notice: &ReleaseNotice,
    node: &str,
    since_1970: Duration,
) -> WebhookMessage {
    let mut url = settings.url.as_str().to_owned();
    let mut headers = Vec::new();
    let secret = settings.secret.as_ref().map(|it| it.as_str());
    let text = || notice.text(node);
    let body = match settings.format {
        WebhookFormat::Json => {
            let body = notice.to_json(node).to_string();
            headers.push(("X-Graygate-Event", notice.kind.name().to_owned()));
            headers.push(("X-Graygate-Delivery", notice.id.clone()));
            if let Some(secret) = secret {
                let tag = sign(secret.as_bytes(), body.as_bytes());
                headers.push((
                    "X-Hub-Signature-256",
                    format!("sha256={}", hex(tag.as_ref())),
                ));
            }
            body
        }
        WebhookFormat::Slack => {
            let text = text();
            let text = text.replace('&', "&amp;");
            let text = text.replace('<', "&lt;").replace('>', "&gt;");
            json!({ "text": text }).to_string()
        }
        WebhookFormat::Dingtalk => {
            if let Some(secret) = secret {
                let timestamp = since_1970.as_millis();
                let tag = sign(
                    secret.as_bytes(),
                    format!("{timestamp}\n{secret}").as_bytes(),
                );
                let mut query = form_urlencoded::Serializer::new(String::new());
                query.append_pair("timestamp", &timestamp.to_string());
                query.append_pair("sign", &STANDARD.encode(tag));
                let mark = if url.contains('?') { '&' } else { '?' };
                url = format!("{url}{mark}{}", query.finish());
            }
            json!({ "msgtype": "text", "text": { "content": text() } }).to_string()
        }
        WebhookFormat::Feishu => {
            let mut body = json!({ "msg_type": "text", "content": { "text": text() } });
            if let Some(secret) = secret {
                let timestamp = since_1970.as_secs().to_string();
                let tag = sign(format!("{timestamp}\n{secret}").as_bytes(), b"");
                body["sign"] = json!(STANDARD.encode(tag));
                body["timestamp"] = json!(timestamp);
            }
            body.to_string()
        }
        WebhookFormat::Wecom => {
            json!({ "msgtype": "text", "text": { "content": text() } }).to_string()
        }
    };
    WebhookMessage { url, headers, body }
}

fn sign(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotTaken {
    /// In words, without anything secret.
    pub(crate) why: String,
    /// It may be taken later.
    pub(super) passes: bool,
}

/// Whether a receiver that answers so has taken the message.
///
/// # Errors
/// What it says instead.
pub(super) fn taken(format: WebhookFormat, status: u16, body: &str) -> Result<(), NotTaken> {
    /// What a receiver has to say, in characters.
    const SAID: usize = 200;
    let printable = |it: char| if it.is_control() { ' ' } else { it };
    let said: String = body.trim().chars().map(printable).take(SAID).collect();
    let refused = |why: String, passes| {
        let said = if said.is_empty() {
            ""
        } else {
            &*format!(": {said}")
        };
        Err(NotTaken {
            why: format!("{why}{said}"),
            passes,
        })
    };
    if !(200..300).contains(&status) {
        let passes = status >= 500 || matches!(status, 408 | 429);
        return refused(format!("it has answered {status}"), passes);
    }
    let name = match format {
        WebhookFormat::Json | WebhookFormat::Slack => return Ok(()),
        WebhookFormat::Dingtalk | WebhookFormat::Wecom => "errcode",
        WebhookFormat::Feishu => "code",
    };
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    match answer[name].as_i64() {
        Some(0) => Ok(()),
        Some(code) => {
            let what = format!("it has answered {status} with {name} {code}");
            refused(what, PASSING.contains(&code))
        }
        // Whoever has answered, it was not the receiver.
        None => refused(format!("it has answered {status} without {name}"), true),
    }
}

/// Codes by which a receiver is busy, or asked too often: of `DingTalk`, `WeCom` and Feishu.
const PASSING: [i64; 6] = [-1, 130_101, 410_100, 45_009, 11_232, 9_499];

/// A text without any part of what is secret, which an answer or an error may repeat.
pub(super) fn harmless(text: &str, settings: &WebhookSettings, url: &str) -> String {
    const HIDDEN: &str = "(hidden)";
    /// Shorter ones are words.
    const SHORTEST: usize = 6;
    let secret = settings.secret.iter().map(|it| it.as_str().to_owned());
    let behind_host = url.splitn(4, '/').nth(3).unwrap_or_default();
    let behind_host = match url.split_once('?') {
        // The query may stand right behind the host.
        Some((_, query)) if behind_host.is_empty() => query,
        _ => behind_host,
    };
    let pieces = behind_host.split(['/', '?', '&', '=']);
    let decoded = |it: &str| {
        let mut parsed = form_urlencoded::parse(it.as_bytes());
        parsed.next().map(|(it, _)| it.into_owned())
    };
    let all = pieces.flat_map(|it| [Some(it.to_owned()), decoded(it)].into_iter().flatten());
    let mut all: Vec<String> = all.chain(secret).collect();
    all.retain(|it| it.len() >= SHORTEST);
    // A piece may be a part of another one.
    all.sort_by_key(|it| std::cmp::Reverse(it.len()));
    all.iter()
        .fold(text.to_owned(), |text, it| text.replace(it, HIDDEN))
}
