//! The request that `graygate explain` is asked about, as it is written on the command line.

use std::net::{IpAddr, Ipv4Addr};

use clap::Args;

use super::curl;
use crate::route::explain::Question;

/// A request, by its parts or as a curl command.
#[derive(Args)]
pub(crate) struct Asked {
    /// The address that the connection comes from; without one it is 127.0.0.1, or curl's `--interface`
    ip: Option<IpAddr>,
    /// The method
    #[arg(
        long,
        value_name = "METHOD",
        default_value = "GET",
        conflicts_with = "curl"
    )]
    method: String,
    /// The host that is asked for
    #[arg(
        long,
        value_name = "NAME",
        default_value = "explain",
        hide_default_value = true,
        conflicts_with = "curl"
    )]
    host: String,
    /// Path and query
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/",
        conflicts_with = "curl"
    )]
    path: String,
    /// A header field of the request; may be given more than once
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A cookie of the request; may be given more than once
    #[arg(long = "cookie", value_name = "NAME=VALUE")]
    cookies: Vec<String>,
    /// A curl command, whose request is asked about; stands last, since all behind it belongs to it
    #[arg(
        long,
        value_name = "COMMAND",
        num_args = 1..,
        allow_hyphen_values = true
    )]
    curl: Vec<String>,
}

/// The request.
pub(crate) struct AskedRequest {
    socket: IpAddr,
    method: String,
    host: String,
    path: String,
    headers: Vec<String>,
}

impl Asked {
    /// The request.
    ///
    /// # Errors
    /// What is not understood of the curl command.
    pub(crate) fn request(self) -> Result<AskedRequest, String> {
        const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut request = AskedRequest {
            socket: self.ip.unwrap_or(NOBODY),
            method: self.method,
            host: self.host,
            path: self.path,
            headers: self.headers,
        };
        if !self.cookies.is_empty() {
            // As browsers send them: in one field.
            let cookies = self.cookies.join("; ");
            request.headers.push(format!("Cookie: {cookies}"));
        }
        if !self.curl.is_empty() {
            let sent = curl::read(&self.curl).map_err(|error| format!("--curl: {error}"))?;
            request.socket = self.ip.or(sent.source).unwrap_or(NOBODY);
            (request.method, request.host, request.path) = (sent.method, sent.host, sent.path);
            request.headers.splice(..0, sent.headers);
        }
        Ok(request)
    }
}

impl AskedRequest {
    /// The question who would serve it.
    pub(crate) fn question(&self) -> Question<'_> {
        Question {
            method: &self.method,
            host: &self.host,
            path: &self.path,
            ..Question::from(self.socket, &self.headers)
        }
    }
}
