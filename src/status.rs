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
    let mut text = format!(
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
    for held in lists["held"].as_array().into_iter().flatten() {
        let word = |key: &str| held[key].as_str().unwrap_or("-").to_owned();
        let (list, reason, digest) = (word("list"), word("reason"), word("digest"));
        let remedy = format!("graygate lists accept {digest}");
        text.push_str(&format!(
            "held        {list}: {reason}; to let it in: {remedy}\n"
        ));
    }
    if lists["copy"]["in_force"] == true {
        let written = lists["copy"]["written"].as_str().unwrap_or("-");
        text.push_str(&format!("copy        in force, of {written}\n"));
    }
    Ok(Report {
        text,
        serves: health == 200,
    })
}
