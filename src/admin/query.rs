//! The query of a page's URL.

use crate::admin::view::SHOWN;
use crate::lists::ServiceName;

/// Of which service a page is.
pub(crate) const SERVICE: &str = "service";

/// What the answer begins with where a query names a service that is not there.
pub(crate) const NO_SERVICE: &str = "there is no service ";

/// What is said of a part of a query that the page does not know; `example` has all that it knows.
pub(super) fn unknown(name: &str, example: &str) -> String {
    let shown: String = name.chars().take(SHOWN).collect();
    format!("{shown:?} is unknown in the query; as an example: {example}")
}

/// The service that a query names, if it names one.
///
/// # Errors
/// What it names is no service's name.
pub(super) fn service(query: &[u8]) -> Result<Option<ServiceName>, String> {
    let mut pairs = form_urlencoded::parse(query);
    let Some((_, name)) = pairs.find(|(key, _)| key == SERVICE) else {
        return Ok(None);
    };
    let service = ServiceName::named(&name);
    let service = service.ok_or_else(|| format!("{name:?} is no name of a service"))?;
    Ok(Some(service))
}
