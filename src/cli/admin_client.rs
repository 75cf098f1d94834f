//! Asking the admin listener of a running gateway, for the command line.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::admin::pages::Page;
use crate::admin::pages::lists::ListsPage;
use crate::config::Config;

/// Time for each question.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// The longest page, in bytes: a list of a million entries is some tens of megabytes.
const LONGEST: u64 = 1 << 30;

/// Asks one gateway.
pub(crate) struct AdminClient {
    admin: SocketAddr,
    agent: ureq::Agent,
}

impl AdminClient {
    /// Will ask at `admin`.
    pub(crate) fn new(admin: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIME_LIMIT))
            .http_status_as_error(false)
            .proxy(None);
        let agent = config.build().into();
        Self { admin, agent }
    }

    /// Will ask the gateway that runs with the ini file at `config`.
    ///
    /// # Errors
    /// If the file does not say where, or that it cannot be asked.
    pub(crate) fn of(config: &Path) -> Result<Self, String> {
        let admin = Config::admin_of(config).map_err(|error| error.to_string())?;
        let off = "[admin] listen is off, so the gateway cannot be asked";
        admin.map(Self::new).ok_or_else(|| off.to_owned())
    }

    /// Gets the page at `path`: its status and its text.
    ///
    /// # Errors
    /// Nobody answers; with the URL.
    pub(crate) fn get(&self, path: &str) -> Result<(u16, String), String> {
        self.get_with(path, &[])
    }

    fn get_with(&self, path: &str, query: &[(&str, &str)]) -> Result<(u16, String), String> {
        let url = format!("http://{}{path}", self.admin);
        let failed = |error: ureq::Error| format!("{url}: {error}");
        let request = self.agent.get(&url).query_pairs(query.iter().copied());
        let mut response = request.call().map_err(failed)?;
        let body = response.body_mut().with_config().limit(LONGEST);
        let body = body.read_to_string().map_err(failed)?;
        Ok((response.status().as_u16(), body))
    }

    /// Posts to `path`, with one header field and no body. Returns the status and the text of the
    /// answer.
    ///
    /// # Errors
    /// Nobody answers; with the URL.
    pub(crate) fn post(&self, path: &str, field: (&str, &str)) -> Result<(u16, String), String> {
        let url = format!("http://{}{path}", self.admin);
        let failed = |error: ureq::Error| format!("{url}: {error}");
        let request = self.agent.post(&url).header(field.0, field.1);
        let mut response = request.send_empty().map_err(failed)?;
        let body = response.body_mut().read_to_string().map_err(failed)?;
        Ok((response.status().as_u16(), body))
    }

    /// Gets a page.
    ///
    /// # Errors
    /// Nobody answers, or the answer is something else; with the URL.
    pub(crate) fn page<P: Page>(&self) -> Result<P, String> {
        self.page_with(&[])
    }

    /// How the lists stand, without their entries.
    ///
    /// # Errors
    /// As [`AdminClient::page`].
    pub(crate) fn lists(&self) -> Result<ListsPage, String> {
        let none = ListsPage::part(0, 0);
        self.page_with(&none.each_ref().map(|(name, it)| (*name, it.as_str())))
    }

    /// As [`AdminClient::page`], with a query.
    ///
    /// # Errors
    /// As [`AdminClient::page`]; also what the gateway says is wrong with the query.
    pub(crate) fn page_with<P: Page>(&self, query: &[(&str, &str)]) -> Result<P, String> {
        let (status, text) = self.get_with(P::PATH, query)?;
        let place = format!("http://{}{}", self.admin, P::PATH);
        match status {
            200 => {}
            400 => return Err(text.trim_end().to_owned()),
            status => return Err(format!("{place}: status {status}")),
        }
        let page = serde_json::from_str(&text);
        let page = page.map_err(|error| format!("{place}: not understood: {error}"))?;
        P::of(&page).ok_or_else(|| format!("{place}: not understood: another page"))
    }
}
