//! An answer of an admin listener.

use std::io::{self, Write};

use crate::admin::pages::lists;
use crate::error::{AdminRefusal, Refusal};

/// The methods that a page knows.
pub(super) const READING: &str = "GET, HEAD";

/// What is answered.
pub(super) struct PageResponse {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    /// With 405: the methods that are allowed.
    pub(super) allow: &'static str,
    pub(super) body: Body,
}

pub(super) enum Body {
    Text(String),
    /// One that may be long, and is written piece by piece.
    Lists(Box<lists::PageWriter>),
}

impl Body {
    pub(super) fn len(&mut self) -> io::Result<u64> {
        match self {
            Self::Text(text) => Ok(text.len() as u64),
            Self::Lists(page) => page.len(),
        }
    }

    pub(super) fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Text(text) => out.write_all(text.as_bytes()),
            Self::Lists(page) => page.write(out),
        }
    }
}

impl PageResponse {
    pub(super) fn text(status: u16, body: impl Into<String>) -> Self {
        let kind = "text/plain; charset=utf-8";
        Self::page(status, kind, body.into())
    }

    pub(super) fn json(body: String) -> Self {
        Self::page(200, "application/json", body)
    }

    pub(super) fn page(status: u16, kind: &'static str, body: String) -> Self {
        let allow = READING;
        Self {
            status,
            kind,
            allow,
            body: Body::Text(body),
        }
    }

    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let answer = refused(Refusal::MethodNotAllowed);
        Self { allow, ..answer }
    }
}

/// The answer to a request that cannot be served.
pub(super) fn refused(refusal: Refusal) -> PageResponse {
    PageResponse::text(refusal.status(), format!("{}\n", refusal.name()))
}

/// The answer to a request that may not have what it asks for.
pub(super) fn forbidden(why: AdminRefusal) -> PageResponse {
    PageResponse::text(why.status(), format!("{}: {}\n", why.name(), why.text()))
}
