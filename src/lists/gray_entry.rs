//! One entry of the gray list as text: an address or a net, or else a rule.

use std::fmt;

use ipnet::IpNet;

use super::entry::{WrongEntry, canonical, read_net};
use super::rule::Rule;

/// One entry of the gray list. Its `Display` is the canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrayEntry {
    /// An address or a net, without host bits.
    Net(IpNet),
    /// Anything else.
    Rule(Rule),
}

impl fmt::Display for GrayEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => f.write_str(&canonical(*net)),
            Self::Rule(rule) => rule.fmt(f),
        }
    }
}

/// Reads one entry of the gray list. Host bits in a net are cleared.
///
/// # Errors
/// What is wrong with it.
pub fn gray_entry(text: &str) -> Result<GrayEntry, WrongEntry> {
    // There may be a million addresses, and there are few others.
    match read_net(text) {
        Ok(net) => Ok(GrayEntry::Net(net.trunc())),
        Err(_) => other_entry(text),
    }
}

/// The same of a text that is no address or net alone.
///
/// # Errors
/// What is wrong with it.
pub(super) fn other_entry(text: &str) -> Result<GrayEntry, WrongEntry> {
    let rule = Rule::parse(text)?;
    Ok(rule.as_net().map_or(GrayEntry::Rule(rule), GrayEntry::Net))
}
