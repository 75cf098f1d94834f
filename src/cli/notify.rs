//! What the command line itself tells people: a test message (`graygate verdict notify --test`), and a
//! release that somebody has promoted or rolled back.
//!
//! The message is posted by this process, once, as the ini file says; a gateway need not run.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::thread::{self, JoinHandle};

use serde_json::json;

use crate::cli::report::{Report, complain};
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

/// People are being told of what somebody has done.
pub(super) struct Telling {
    /// Where.
    url: String,
    /// Ends with why they could not be told, if they could not.
    posting: JoinHandle<Option<String>>,
}

impl Telling {
    /// Waits until they are told; why they could not be.
    pub(super) fn end(self) -> Option<String> {
        // Whoever ends the wait should know what for.
        if !self.posting.is_finished() && io::stderr().is_terminal() {
            complain(&format!("all is done; {} is being told", self.url));
        }
        let outcome = self.posting.join();
        outcome.unwrap_or_else(|_| Some(failed("an internal error; see the line above")))
    }
}

fn failed(why: &str) -> String {
    format!("people were not told: {why}")
}

/// Begins to tell people of what somebody has done to a release, if that is theirs to know; the error says
/// why that cannot be.
pub(super) fn begin(
    config: &Config,
    service: &ServiceName,
    order: &Order,
) -> Result<Option<Telling>, String> {
    let Some(notice) = notice(service, order) else {
        return Ok(None);
    };
    let settings = with_secret(config).map_err(|why| failed(&why))?;
    let Some(settings) = settings else {
        return Ok(None);
    };
    let (node, url) = (webhook::node_of(config), settings.url.to_string());
    let posting = thread::Builder::new().name("telling".to_owned());
    let posting = posting.spawn(move || {
        let posted = webhook::post(&settings, &notice, &node, settings.timeout);
        posted.err().map(|it| failed(&it.why))
    });
    match posting {
        Ok(posting) => Ok(Some(Telling { url, posting })),
        Err(error) => Err(failed(&error.to_string())),
    }
}

/// What people are told of it, if anything.
fn notice(service: &ServiceName, order: &Order) -> Option<ReleaseNotice> {
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
    Some(notice.by(&order.by, order.reason.as_deref()))
}

/// The webhook of the file, ready to be used.
fn with_secret(config: &Config) -> Result<Option<WebhookSettings>, String> {
    let secret = run::webhook_secret::read(config.webhook.as_ref());
    let secret = secret.map_err(|error| error.to_string())?;
    let settings = config.webhook.clone();
    Ok(settings.map(|it| WebhookSettings { secret, ..it }))
}
