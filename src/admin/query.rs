//! The query of a page's URL.

use crate::admin::view::SHOWN;

/// What is said of a part of a query that the page does not know; `example` has all that it knows.
pub(super) fn unknown(name: &str, example: &str) -> String {
    let shown: String = name.chars().take(SHOWN).collect();
    format!("{shown:?} is unknown in the query; as an example: {example}")
}
