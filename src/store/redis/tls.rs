//! TLS to Redis: which servers are believed, and who the gateway says that it is.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use crate::config;

/// Reads the files; that is done for each connection, so that renewed ones need no restart.
///
/// # Errors
/// Which of them cannot be used, and why.
pub(super) fn client_config(files: &config::Tls) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(files.ca.as_deref())?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let verifier = verifier.build().map_err(io::Error::other)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_webpki_verifier(verifier);
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

fn roots(ca: Option<&Path>) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        for cert in certificates("tls_ca", path)? {
            roots
                .add(cert)
                .map_err(|error| unusable("tls_ca", path, words(&error)))?;
        }
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string);
        let why = why.unwrap_or_else(|| "there are none".to_owned());
        return Err(io::Error::other(format!("the system's authorities: {why}")));
    }
    Ok(roots)
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
        pem::Error::NoItemsFound => "it holds nothing of the kind".to_owned(),
        other => other.to_string(),
    }
}

/// An error of TLS in words that stay the same from try to try, so that it is told once. The
/// library's own count the seconds since a certificate has expired.
pub(super) fn in_words(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<Error>());
    match inner {
        Some(inner) => io::Error::new(error.kind(), format!("TLS: {}", words(inner))),
        None => error,
    }
}

fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the server's certificate has expired".to_owned(),
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "the server's certificate is not valid yet".to_owned(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no known authority vouches for the server's certificate (UnknownIssuer)".to_owned()
        }
        other => other.to_string(),
    }
}
