//! What several commands take.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::lists::Whom;
use crate::cli::report::Form;
use crate::config::DEFAULT_PATH;
use crate::release::change::ShareBy;

/// In which form the answer is wanted.
#[derive(Args)]
pub(crate) struct Output {
    /// Answer in JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Output {
    pub(crate) fn form(&self) -> Form {
        match self.json {
            true => Form::Json,
            false => Form::Text,
        }
    }
}

/// Of which service.
#[derive(Args)]
pub(crate) struct ServiceAsked {
    /// Only of this service, or of `default`; without it, of all that there are
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
}

/// What every verb takes.
#[derive(Args)]
pub(crate) struct VerbFlags {
    /// Of this service; without it, of `default`
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Why, for the history; 1000 characters at most
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Who, for the history, in 200 characters at most; without it, the login name and the host
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// Wait until the gateways have it in force; on a terminal they are waited for without it
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) wait: bool,
    /// Wait for no gateway
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long to wait, such as 500ms or 2m; a day at most
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Ask nothing: also what the gateways would hold is meant
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    /// The ini file
    #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
    pub(crate) config: PathBuf,
}

/// By what it is told who is in a share.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct StageBy {
    /// By the value of this cookie; who has none is in no share
    #[arg(long, value_name = "NAME")]
    by_cookie: Option<String>,
    /// By the value of this header field; who has none is in no share
    #[arg(long, value_name = "NAME")]
    by_header: Option<String>,
    /// By a cookie that the gateway sets
    #[arg(long)]
    visitor: bool,
}

impl StageBy {
    /// What was said, if something was.
    pub(crate) fn key(self) -> Option<ShareBy> {
        let cookie = self.by_cookie.map(ShareBy::Cookie);
        let header = self.by_header.map(ShareBy::Header);
        cookie
            .or(header)
            .or(self.visitor.then_some(ShareBy::Visitor))
    }
}

/// Whose lists.
#[derive(Args)]
pub(crate) struct Of {
    /// Read the configured store instead of asking the running gateway
    #[arg(long)]
    pub(crate) offline: bool,
    /// The ini file
    #[arg(short = 'c', value_name = "FILE", default_value = DEFAULT_PATH)]
    pub(crate) config: PathBuf,
}

impl Of {
    pub(crate) fn whom(&self) -> Whom {
        match self.offline {
            true => Whom::Store,
            false => Whom::Gateway,
        }
    }
}
