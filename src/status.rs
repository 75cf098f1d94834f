//! `graygate status`: asks the admin listener of the running gateway.

use std::net::SocketAddr;

use serde_json::Value;

use crate::ask::Asker;

/// What the running gateway says of itself.
pub struct Report {
    /// A few lines for a person.
    pub text: String,
    /// It can serve requests.
    pub serves: bool,
}

/// Asks the gateway whose admin listener is at `admin`.
///
/// # Errors
/// When it cannot be asked, or does not answer.
pub fn ask(admin: Option<SocketAddr>) -> Result<Report, String> {
    let Some(admin) = admin else {
        return Err("[admin] listen is off, so the gateway cannot be asked".to_owned());
    };
    let asker = Asker::new(admin);
    let (health, word) = asker.get("/healthz")?;
    let lists = asker.page("/lists")?;
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
