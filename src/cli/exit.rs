//! The exit codes: all that a command's caller learns without reading.

use std::process::ExitCode;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It is done.
    Done,
    /// It is not done, or not so.
    Failed,
    /// It was not understood.
    Usage,
    /// By `status --strict`: yes, but.
    Degraded,
}

impl Exit {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::Usage, Self::Degraded];

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage | Self::Degraded => 2,
        }
    }

    /// Its name, in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Degraded => "degraded",
        }
    }

    /// When it is given.
    pub fn text(self) -> &'static str {
        match self {
            Self::Done => {
                "it is done, or the answer is yes; the gateway was told to end, and has finished what was under way"
            }
            Self::Failed => {
                "it could not be done, or the answer is no: not serving, lists that differ, entries to look at; \
                 one line on standard error says why"
            }
            Self::Usage => "the command line is wrong, and nothing was done",
            Self::Degraded => {
                "status --strict only: the gateway serves, but lacks something, which the lines \"degraded\" name"
            }
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
