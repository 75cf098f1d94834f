//! What is wrong with TLS, in an operator's words, and what to do.
//!
//! The words stay the same from one attempt to the next, so that they are logged once: the library's own
//! messages count the seconds since a certificate has expired.

use std::io;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::store::redis::errors::closed;

const CLOCKS: &str = "renew it there; if it has been, look at the clock of this machine";

/// An error of TLS in words.
pub(crate) fn in_words(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<Error>());
    match inner {
        Some(inner) => io::Error::new(error.kind(), format!("TLS: {}", words(inner))),
        // Without close_notify, about which the library's message goes on.
        None if error.kind() == io::ErrorKind::UnexpectedEof => closed(),
        None => error,
    }
}

/// What came in place of an answer in a handshake. Silence is typical of a server without TLS: it waits
/// for the end of a line.
pub(crate) fn no_answer(error: io::Error) -> io::Error {
    let what = match error.kind() {
        io::ErrorKind::TimedOut => "timed out in the TLS handshake, without an answer",
        _ => "TLS: the server has closed the connection without an answer",
    };
    io::Error::other(format!(
        "{what}: does it speak TLS on this port? Without TLS the URL begins with redis://"
    ))
}

pub(crate) fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS on this port: use its port for TLS, or redis:// in the URL"
                .to_owned()
        }
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => old_version(),
        other => other.to_string(),
    }
}

fn old_version() -> String {
    "the server offers no version of TLS that the gateway speaks, 1.2 or 1.3: allow one there \
     (tls-protocols)"
        .to_owned()
}

fn of_certificate(error: &CertificateError) -> String {
    use CertificateError as It;
    match error {
        It::Expired | It::ExpiredContext { .. } => {
            format!("the server's certificate has expired: {CLOCKS}")
        }
        It::NotValidYet | It::NotValidYetContext { .. } => {
            format!("the server's certificate is not valid yet: {CLOCKS}")
        }
        It::UnknownIssuer => "no known authority vouches for the server's certificate \
                              (UnknownIssuer): name the file of its authority, or of the \
                              certificate itself, in tls_ca"
            .to_owned(),
        It::NotValidForNameContext {
            expected,
            presented,
        } => of_names(expected, presented),
        It::BadSignature => "the server's certificate is not signed by the authority that it \
                             names: is tls_ca an older one with the same name?"
            .to_owned(),
        It::InvalidPurpose | It::InvalidPurposeContext { .. } => {
            "the server's certificate is not for servers (extended key usage): make one with \
             serverAuth"
                .to_owned()
        }
        It::Other(_) if format!("{error:?}").contains("CaUsedAsEndEntity") => {
            "the server's certificate is that of an authority (CA:TRUE), as `openssl req -x509` \
             makes it: name this very file in tls_ca, or make one with basicConstraints=CA:FALSE"
                .to_owned()
        }
        It::Other(_) if format!("{error:?}").contains("UnsupportedCertVersion") => {
            "the server's certificate has version 1, which is not supported: make one with \
             `openssl req -x509`"
                .to_owned()
        }
        other => format!("the server's certificate cannot be used: {other}"),
    }
}

fn of_names(expected: &ServerName<'_>, presented: &[String]) -> String {
    let expected = expected.to_str();
    if presented.is_empty() {
        return format!(
            "the server's certificate has no subjectAltName, and so no name; {expected} is \
             expected: make one with it, or name this very certificate in tls_ca and the name in \
             its subject in tls_name"
        );
    }
    // DnsName("a"), IpAddress(10.0.0.1).
    let plain = |it: &String| {
        let inner = it.split_once('(').and_then(|(_, it)| it.strip_suffix(')'));
        inner.unwrap_or(it).trim_matches('"').to_owned()
    };
    let names: Vec<String> = presented.iter().map(plain).collect();
    let names = names.join(", ");
    format!(
        "the server's certificate is for {names}, and not for {expected}: write one of these \
         names in the URL or in tls_name, or add this one to the certificate"
    )
}

/// What the server says of us.
fn of_alert(alert: AlertDescription) -> String {
    use AlertDescription as It;
    match alert {
        It::CertificateRequired => {
            "the server asks for a certificate: set tls_cert and tls_key".to_owned()
        }
        It::UnknownCA => "the server does not know the authority of the certificate in tls_cert \
                          (its tls-ca-cert-file)"
            .to_owned(),
        It::CertificateExpired => {
            "the server says that the certificate in tls_cert has expired: renew it".to_owned()
        }
        It::BadCertificate
        | It::UnsupportedCertificate
        | It::CertificateRevoked
        | It::CertificateUnknown
        | It::AccessDenied
        | It::DecryptError => {
            format!("the server refuses the certificate in tls_cert ({alert:?})")
        }
        It::HandshakeFailure => "the server has ended the handshake (HandshakeFailure): does it \
                                 ask for a certificate (tls_cert), or for other ciphers?"
            .to_owned(),
        It::ProtocolVersion => old_version(),
        It::UnrecognisedName => {
            "the server does not know the name that it was asked for: set tls_name".to_owned()
        }
        other => format!("the server has ended the connection ({other:?})"),
    }
}
