//! TLS to Redis: which servers are trusted, and how the gateway identifies itself.

mod subject;
mod verifier;
mod words;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use self::verifier::Verifier;
use self::words::words;
pub(crate) use self::words::{in_words, no_answer};
use crate::config;

/// Reads the files, for each connection anew, so that renewed ones need no restart.
///
/// # Errors
/// Which of them cannot be used, and why.
pub(crate) fn client_config(files: &config::Tls) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (roots, named) = roots(files.ca.as_deref())?;
    let roots = Arc::new(roots);
    let authorities = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let authorities = authorities.build().map_err(io::Error::other)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { authorities, named }));
    let config = match &files.own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates("tls_cert", cert)?;
            let key_der = PrivateKeyDer::from_pem_file(key);
            let key_der = key_der.map_err(|error| unusable("tls_key", key, pem_words(&error)))?;
            builder
                .with_client_auth_cert(chain, key_der)
                .map_err(|error| unusable("tls_key", key, words(&error)))?
        }
    };
    Ok(Arc::new(config))
}

/// The authorities, and the certificates in `tls_ca`, which are trusted as themselves, too.
fn roots(ca: Option<&Path>) -> io::Result<(RootCertStore, Vec<CertificateDer<'static>>)> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let named = certificates("tls_ca", path)?;
        for cert in &named {
            roots
                .add(cert.clone())
                .map_err(|error| unusable("tls_ca", path, words(&error)))?;
        }
        return Ok((roots, named));
    }
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string);
        let why = why.unwrap_or_else(|| "there are none".to_owned());
        return Err(io::Error::other(format!("the system's authorities: {why}")));
    }
    Ok((roots, Vec::new()))
}

fn certificates(key: &str, path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certs: Vec<_> = read.map_err(|error: pem::Error| unusable(key, path, pem_words(&error)))?;
    if certs.is_empty() {
        return Err(unusable(key, path, "it holds no certificate".to_owned()));
    }
    Ok(certs)
}

fn unusable(key: &str, path: &Path, why: String) -> io::Error {
    io::Error::other(format!("{key} {}: {why}", path.display()))
}

fn pem_words(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it does not hold one".to_owned(),
        other => other.to_string(),
    }
}
