//! What the command line itself tells people: a test message (`graygate verdict notify --test`), and a
//! release that somebody has promoted or rolled back.
//!
//! The message is posted by this process, once, as the ini file says; a gateway need not run.

use std::path::Path;

use serde_json::json;

use crate::cli::report::Report;
use crate::config::{Config, WebhookSettings};
use crate::lists::ServiceName;
use crate::release::change::{RolloutVerb, Verb};
use crate::release::ledger::Order;
use crate::release::webhook::{self, NoticeKind, ReleaseNotice};
use crate::run;

/// Posts a test message, and says what was answered.
///
/// # Errors
/// One line: the settings cannot be used, or name no webhook.
pub(crate) fn test(path: &Path, by: &str) -> Result<Report, String> {
    let config = run::load(path)?;
    let node = webhook::node_of(&config);
    let Some(settings) = &with_secret(&config)? else {
        return Err("nobody is told: [verdict] webhook is empty".to_owned());
    };
    let notice = ReleaseNotice::test(by);
    let (url, format) = (settings.url.to_string(), settings.format.name());
    let mut json =
        json!({ "url": url, "format": format, "status": null, "answer": null, "error": null });
    Ok(
        match webhook::post(settings, &notice, &node, settings.timeout) {
            Ok(delivery) => {
                let (status, answer) = (delivery.status, delivery.answer.trim());
                (json["status"], json["answer"]) = (json!(status), json!(answer));
                let shown: String = answer.escape_debug().take(200).collect();
                let text = match &*shown {
                    "" => format!("{url} has taken it, and answered {status}\n"),
                    shown => format!("{url} has taken it, and answered {status}: {shown}\n"),
                };
                Report::new(text, json)
            }
            Err(refused) => {
                json["error"] = json!(refused.why);
                Report::new(String::new(), json).but(format!("{url}: {}", refused.why))
            }
        },
    )
}

/// Tells people of what somebody has done to a release; returns why they could not be told.
pub(super) fn done(config: &Config, service: &ServiceName, order: &Order) -> Option<String> {
    let notice = match order.verb {
        Verb::Promote { swap, .. } => ReleaseNotice::promoted(service, swap),
        Verb::Rollback(None) | Verb::Rollout(RolloutVerb::Abort) => {
            ReleaseNotice::rolled_back(service)
        }
        Verb::Rollback(Some(_)) => {
            let sentence = "the lists were rolled back to those of before an earlier change";
            ReleaseNotice::new(NoticeKind::RolledBack, service, sentence)
        }
        _ => return None,
    };
    let notice = notice.by(&order.by, order.reason.as_deref());
    let failed = |why: String| Some(format!("people were not told: {why}"));
    match with_secret(config) {
        Ok(None) => None,
        Ok(Some(settings)) => {
            let node = webhook::node_of(config);
            let posted = webhook::post(&settings, &notice, &node, settings.timeout);
            posted.err().and_then(|it| failed(it.why))
        }
        Err(why) => failed(why),
    }
}

/// The webhook of the file, ready to be used.
fn with_secret(config: &Config) -> Result<Option<WebhookSettings>, String> {
    let secret = run::webhook_secret::read(config.webhook.as_ref());
    let secret = secret.map_err(|error| error.to_string())?;
    let settings = config.webhook.clone();
    Ok(settings.map(|it| WebhookSettings { secret, ..it }))
}
