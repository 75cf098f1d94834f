//! The name of a service.

use std::fmt;
use std::sync::Arc;

/// The name of a service: a set of lists with what is released by them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// What the service is called whose keys are those of `[redis]`, or which a lists file without names
    /// is of.
    pub(crate) const DEFAULT: &'static str = "default";

    /// The longest name, in bytes.
    const LONGEST: usize = 63;

    /// The service of that name: letters, digits, `-`, `_` and `.`, 63 bytes at most, and not the name of the
    /// default one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = (1..=Self::LONGEST).contains(&text.len()) && text.bytes().all(is_plain);
        (is_name && text != Self::DEFAULT).then(|| Self(text.into()))
    }

    /// The service that somebody names, who may mean the default one, too.
    pub(crate) fn named(text: &str) -> Option<Self> {
        match text {
            Self::DEFAULT => Some(Self::default()),
            text => Self::parse(text),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for the service that is always there.
    pub(crate) fn is_default(&self) -> bool {
        *self.0 == *Self::DEFAULT
    }

    /// Where it stands in a line of the error log, after the name of the event: `service=NAME `, and nothing
    /// for the default one, whose lines are as they were before there were others.
    pub(crate) fn in_log(&self) -> InLog<'_> {
        InLog(self)
    }
}

/// See [`ServiceName::in_log`].
#[derive(Clone, Copy)]
pub(crate) struct InLog<'a>(&'a ServiceName);

impl fmt::Display for InLog<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_default() {
            true => Ok(()),
            false => write!(f, "service={} ", self.0),
        }
    }
}

/// The default service's.
impl Default for ServiceName {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
