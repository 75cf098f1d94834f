//! Which server is trusted: one whose certificate was issued by an authority in `tls_ca`, as usual, and
//! one whose certificate is itself in `tls_ca`.
//!
//! The second is what `openssl req -x509` makes: a self-signed certificate marked as an authority, which
//! the library never accepts as a server's. Whoever has put it into `tls_ca` trusts its key, so nothing
//! is gained by refusing it. Its validity period and its names are checked all the same.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::subject;

/// The library's verifier, and the certificates that are trusted as themselves.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) authorities: Arc<WebPkiServerVerifier>,
    pub(crate) named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match judged {
            Err(error) if self.is_named(end_entity) => {
                judge_as_itself(error, end_entity, server_name)
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

impl Verifier {
    /// Whether this very certificate stands in `tls_ca`.
    fn is_named(&self, certificate: &CertificateDer<'_>) -> bool {
        self.named
            .iter()
            .any(|it| it.as_ref() == certificate.as_ref())
    }
}

/// Judges a certificate that is trusted as itself. The library first checks its validity period, then
/// whether it is an authority, then its issuer, and last its names: so `error` shows how far the checks
/// have come.
fn judge_as_itself(
    error: Error,
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
) -> Result<ServerCertVerified, Error> {
    let nameless = match &error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => None,
        Error::InvalidCertificate(CertificateError::Other(_)) if is_authority(&error) => None,
        // Its names were checked; if it has none, there is still the one in its subject.
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented, ..
        }) if presented.is_empty() => Some(error),
        _ => return Err(error),
    };
    let judged = match nameless {
        Some(error) => Err(error),
        None => verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name),
    };
    match judged {
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented,
            expected,
        })) if presented.is_empty() => {
            let name = subject::common_name(certificate);
            if name
                .as_deref()
                .is_some_and(|it| is_name_of(it, server_name))
            {
                return Ok(ServerCertVerified::assertion());
            }
            let presented = name.into_iter().collect();
            let context = CertificateError::NotValidForNameContext {
                expected,
                presented,
            };
            Err(context.into())
        }
        judged => judged.map(|()| ServerCertVerified::assertion()),
    }
}

/// The library has no better error for this.
fn is_authority(error: &Error) -> bool {
    format!("{error:?}").contains("CaUsedAsEndEntity")
}

/// Whether a common name is that of the server, literally: there are no wildcards.
fn is_name_of(name: &str, server: &ServerName<'_>) -> bool {
    match ServerName::try_from(name) {
        Ok(name) => name == *server,
        Err(_) => false,
    }
}
