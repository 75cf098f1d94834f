//! One attempt to deliver a message, by `ureq`.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::message::{NotTaken, harmless, message, taken};
use super::notice::ReleaseNotice;
use crate::config::WebhookSettings;

/// What a receiver may answer, in bytes; what comes after that is not read.
const ANSWER: u64 = 16 << 10;

const USER_AGENT: &str = concat!("graygate/", env!("CARGO_PKG_VERSION"), " (webhook)");

/// What was answered to a message that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The status.
    pub(crate) status: u16,
    /// The body, without anything secret.
    pub(crate) answer: String,
}

/// Posts what is told, once, from the gateway called `node`; waits for `limit` at most.
///
/// # Errors
/// Why it was not taken.
pub(crate) fn post(
    settings: &WebhookSettings,
    notice: &ReleaseNotice,
    node: &str,
    limit: Duration,
) -> Result<Delivery, NotTaken> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let message = message(settings, notice, node, now.unwrap_or_default());
    let harmless = |text: &str| harmless(text, settings, &message.url);
    let failed = |error: ureq::Error| NotTaken {
        why: harmless(&error.to_string()),
        passes: true,
    };
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        // Nobody else is to get what is secret.
        .max_redirects(0)
        .max_idle_connections(0)
        .user_agent(USER_AGENT);
    let config = match settings.url.is_tls() {
        true => config.tls_config(tls(settings.ca.as_deref())?),
        false => config,
    };
    let agent = config.build().new_agent();
    let request = agent.post(&message.url);
    let request = request.header("Content-Type", "application/json; charset=utf-8");
    let request = request.header("Connection", "close");
    let headers = message.headers.iter();
    let request = headers.fold(request, |request, (name, value)| {
        request.header(*name, value)
    });
    let mut response = request.send(&message.body).map_err(failed)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let reader = response.body_mut().as_reader().take(ANSWER);
    // A status that says all does not need the rest.
    let _ = { reader }.read_to_end(&mut body);
    let answer = harmless(&String::from_utf8_lossy(&body));
    taken(settings.format, status, &answer)?;
    Ok(Delivery { status, answer })
}

/// With these authorities, or the system's; read anew each time: messages are rare, and authorities are
/// renewed.
fn tls(ca: Option<&Path>) -> Result<TlsConfig, NotTaken> {
    let found = match ca {
        Some(ca) => {
            let named = |why: String| format!("webhook_ca, {}: {why}", ca.display());
            let read = CertificateDer::pem_file_iter(ca).and_then(Iterator::collect);
            read.map_err(|error: pem::Error| named(error.to_string()))
                .and_then(|it: Vec<_>| match it.is_empty() {
                    true => Err(named("there are none in it".to_owned())),
                    false => Ok(it),
                })
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            let why = found.errors.first().map(ToString::to_string);
            let why = why.unwrap_or_else(|| "there are none".to_owned());
            match found.certs.is_empty() {
                true => Err(format!("the system's authorities: {why}")),
                false => Ok(found.certs),
            }
        }
    };
    let roots = found.map_err(|why| NotTaken { why, passes: true })?;
    let roots = roots.iter();
    let roots: Vec<_> = roots
        .map(|it| Certificate::from_der(it).to_owned())
        .collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = TlsConfig::builder().root_certs(RootCerts::from(roots));
    Ok(config.unversioned_rustls_crypto_provider(provider).build())
}
