//! `graygate status`: asks the admin listener of the running gateway.

use std::time::Duration;

use serde_json::Value;

use crate::config::Config;

/// What the running gateway says of itself.
pub struct Report {
    /// A few lines for a person.
    pub text: String,
    /// It can serve requests.
    pub serves: bool,
}

/// Time for each question.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Asks the gateway that runs with this configuration.
///
/// # Errors
/// When it cannot be asked, or does not answer.
pub fn ask(config: &Config) -> Result<Report, String> {
    let Some(admin) = config.admin else {
        return Err("[admin] listen is off, so the gateway cannot be asked".to_owned());
    };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIME_LIMIT))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let get = |path: &str| {
        let url = format!("http://{admin}{path}");
        let failed = |error: ureq::Error| format!("{url}: {error}");
        let mut response = agent.get(&url).call().map_err(failed)?;
        let body = response.body_mut().read_to_string().map_err(failed)?;
        Ok::<_, String>((response.status().as_u16(), body))
    };
    let (health, word) = get("/healthz")?;
    let (_, lists) = get("/lists")?;
    let lists: Value = serde_json::from_str(&lists)
        .map_err(|error| format!("http://{admin}/lists: not understood: {error}"))?;
    let count = |list: &str| lists[list].as_array().map_or(0, Vec::len);
    let plain = |key: &str| match &lists[key] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let text = format!(
        "health      {}\nsource      {} ({})\ngeneration  {}, digest {}, changed {}\n\
         entries     gray {}, pre {}, prod {}\nerror       {}\n",
        word.trim_end(),
        plain("source"),
        plain("mode"),
        plain("generation"),
        plain("digest"),
        plain("changed_at"),
        count("gray"),
        count("pre"),
        count("prod"),
        plain("error"),
    );
    Ok(Report {
        text,
        serves: health == 200,
    })
}
