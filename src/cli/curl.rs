//! A curl command line as the request that it would send: people have it at hand, from a browser ("copy as
//! cURL") or from a colleague, and want to know who serves it.
//!
//! Options that change the head are understood, those that do not are passed over, and what would make
//! another request out of it than can be told from here (a file of options, of cookies, of data) is an error
//! that says so.

mod options;

use std::net::IpAddr;

use self::options::{ELSEWHERE, SWITCHES, WITH_VALUE};

/// What curl would send, as far as a decision may depend on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CurlRequest {
    /// The method.
    pub(super) method: String,
    /// Of the URL, with its port.
    pub(super) host: String,
    /// Path and query.
    pub(super) path: String,
    /// The header fields, each as `Name: value`, but for Host.
    pub(super) headers: Vec<String>,
    /// The address that it is sent from, if the command says so.
    pub(super) source: Option<IpAddr>,
}

/// Reads a command line: one word for each argument, the first of which may be `curl`; or a single one that
/// is the whole command as a shell has it.
///
/// # Errors
/// What about it is not understood.
pub(super) fn read(words: &[String]) -> Result<CurlRequest, String> {
    let split;
    let words = match words {
        [line] if line.contains(char::is_whitespace) => {
            let joined = line.replace("\\\r\n", " ").replace("\\\n", " ");
            if joined.contains(" $'") {
                return Err(
                    "$'…' is for a shell to read: leave out the quotes around the command".into(),
                );
            }
            split = shlex::split(&joined).ok_or("a quote in the command is not closed")?;
            &split[..]
        }
        words => words,
    };
    let words = match words {
        [curl, rest @ ..] if curl == "curl" || curl.ends_with("/curl") => rest,
        words => words,
    };
    let mut command = CurlCommand::default();
    command.take(words)?;
    command.request()
}

/// A command as far as it was read.
#[derive(Default)]
struct CurlCommand {
    url: Option<String>,
    method: Option<String>,
    is_head: bool,
    is_get: bool,
    uploads: bool,
    /// What is sent as a form, or with `--get` in the query; `None` is in a file.
    data: Vec<Option<String>>,
    content_type: Option<&'static str>,
    accepts_json: bool,
    is_compressed: bool,
    /// `.` and `..` stay in the path.
    keeps_dots: bool,
    user_agent: Option<String>,
    referer: Option<String>,
    user: Option<String>,
    bearer: Option<String>,
    cookies: Vec<String>,
    headers: Vec<String>,
    source: Option<IpAddr>,
}

impl CurlCommand {
    fn take(&mut self, words: &[String]) -> Result<(), String> {
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            match word.as_bytes() {
                [b'-', b'-'] => {
                    for url in words.by_ref() {
                        self.take_url(url)?;
                    }
                }
                [b'-', b'-', ..] => {
                    // curl has no `--name=value`, but many write it.
                    let (name, value) = match word.split_once('=') {
                        Some((name, value)) => (name, Some(value)),
                        None => (word, None),
                    };
                    self.option(name, value, &mut words)?;
                }
                // Several of one letter may be in one word, and the value of the last one behind it.
                [b'-', _, ..] => self.letters(word, &mut words)?,
                _ => self.take_url(word)?,
            }
        }
        Ok(())
    }

    fn letters<'a>(
        &mut self,
        word: &'a str,
        words: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        let mut rest = &word[1..];
        while let Some(letter) = rest.chars().next() {
            let (name, behind) = (format!("-{letter}"), &rest[letter.len_utf8()..]);
            if is_switch(&name) {
                self.switch(&name);
                rest = behind;
                continue;
            }
            let value = (!behind.is_empty()).then_some(behind);
            return self.option(&name, value, words);
        }
        Ok(())
    }

    fn switch(&mut self, name: &str) {
        match name {
            "-I" | "--head" => self.is_head = true,
            "-G" | "--get" => self.is_get = true,
            "--compressed" => self.is_compressed = true,
            "--path-as-is" => self.keeps_dots = true,
            _ => {}
        }
    }

    fn option<'a>(
        &mut self,
        name: &str,
        value: Option<&'a str>,
        words: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        if let Some((_, why)) = ELSEWHERE.iter().find(|it| it.0 == name) {
            return Err(format!("{name}: {why}"));
        }
        if is_switch(name) {
            self.switch(name);
            return Ok(());
        }
        let mut value = || {
            let value = value.or_else(|| words.next());
            value.ok_or_else(|| format!("{name}: its value is missing"))
        };
        match name {
            "--url" => self.take_url(value()?)?,
            "-X" | "--request" => self.method = Some(value()?.to_owned()),
            "-H" | "--header" => self.header(value()?)?,
            "-b" | "--cookie" => self.cookie(value()?)?,
            "-A" | "--user-agent" => self.user_agent = Some(value()?.to_owned()),
            "-e" | "--referer" => {
                self.referer = Some(value()?.trim_end_matches(";auto").to_owned())
            }
            "-u" | "--user" => self.user = Some(value()?.to_owned()),
            "--oauth2-bearer" => self.bearer = Some(value()?.to_owned()),
            "--interface" => {
                let value = value()?;
                let address = value.trim_start_matches("host!").parse();
                let only_addresses =
                    |_| format!("--interface {value}: only an address can be taken");
                self.source = Some(address.map_err(only_addresses)?);
            }
            "-d" | "--data" | "--data-ascii" | "--data-binary" | "--data-raw"
            | "--data-urlencode" => {
                let value = value()?;
                let data = match name {
                    "--data-raw" => Some(value.to_owned()),
                    "--data-urlencode" => urlencoded(value),
                    _ => (!value.starts_with('@')).then(|| value.to_owned()),
                };
                self.data.push(data);
                self.content_type
                    .get_or_insert("application/x-www-form-urlencoded");
            }
            "--json" => {
                value()?;
                self.data.push(None);
                self.content_type = Some("application/json");
                self.accepts_json = true;
            }
            "-F" | "--form" | "--form-string" => {
                value()?;
                self.data.push(None);
                self.content_type = Some("multipart/form-data");
            }
            "-T" | "--upload-file" => {
                value()?;
                self.uploads = true;
            }
            _ if WITH_VALUE.contains(&name) => {
                value()?;
            }
            _ => {
                return Err(format!(
                    "{name}: not understood; leave it out if it changes no header field"
                ));
            }
        }
        Ok(())
    }

    fn take_url(&mut self, url: &str) -> Result<(), String> {
        match self.url.replace(url.to_owned()) {
            None => Ok(()),
            Some(first) => Err(format!(
                "two URLs, {first} and {url}; explain one after the other"
            )),
        }
    }

    fn header(&mut self, value: &str) -> Result<(), String> {
        match value.strip_prefix('@') {
            Some(file) => Err(format!("-H @{file}: its header fields are in a file")),
            None => {
                self.headers.push(value.to_owned());
                Ok(())
            }
        }
    }

    fn cookie(&mut self, value: &str) -> Result<(), String> {
        // As curl itself tells the two apart.
        if !value.contains('=') {
            return Err(format!("-b {value}: its cookies are in a file"));
        }
        self.cookies.push(value.to_owned());
        Ok(())
    }

    /// What is sent, with the fields that curl adds unless the command gives them another value.
    fn request(self) -> Result<CurlRequest, String> {
        let url = self.url.as_deref().ok_or("it names no URL")?;
        let Parts {
            mut host,
            mut path,
            has_user,
        } = parts(url, self.keeps_dots)?;
        let has_data = !self.data.is_empty();
        let method = match () {
            () if self.method.is_some() => self.method.clone().unwrap_or_default(),
            () if self.is_head => "HEAD".to_owned(),
            () if self.uploads => "PUT".to_owned(),
            () if has_data && !self.is_get => "POST".to_owned(),
            () => "GET".to_owned(),
        };
        if self.is_get && has_data {
            let data: Option<Vec<&str>> = self.data.iter().map(Option::as_deref).collect();
            let data = data.ok_or("--get: what goes into the query is in a file")?;
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&data.join("&"));
        }
        // That it is there may make a difference; its value is a secret that nobody lists.
        let basic = || (self.user.is_some() || has_user).then(|| "Basic (hidden)".to_owned());
        let authorization = self.bearer.map(|it| format!("Bearer {it}")).or_else(basic);
        let mut own = vec![
            (
                "User-Agent",
                Some(self.user_agent.unwrap_or_else(|| "curl/8".to_owned())),
            ),
            (
                "Accept",
                Some(
                    if self.accepts_json {
                        "application/json"
                    } else {
                        "*/*"
                    }
                    .to_owned(),
                ),
            ),
            (
                "Accept-Encoding",
                self.is_compressed
                    .then(|| "deflate, gzip, br, zstd".to_owned()),
            ),
            ("Referer", self.referer),
            ("Authorization", authorization),
        ];
        if !self.is_get {
            own.push(("Content-Type", self.content_type.map(str::to_owned)));
        }
        if !self.cookies.is_empty() {
            own.push(("Cookie", Some(self.cookies.join("; "))));
        }
        let mut headers = Vec::new();
        for given in &self.headers {
            let Some((name, value)) = given
                .split_once(':')
                .or_else(|| Some((given.strip_suffix(';')?, "")))
            else {
                return Err(format!("-H {given:?}: not a header field"));
            };
            let is_removed = value.trim().is_empty() && given.contains(':');
            match name.trim() {
                name if name.eq_ignore_ascii_case("host") && !is_removed => {
                    value.trim().clone_into(&mut host)
                }
                _ if is_removed => {}
                name => headers.push(format!("{name}: {}", value.trim())),
            }
        }
        let is_given = |name: &str| {
            let names = self
                .headers
                .iter()
                .filter_map(|it| it.split([':', ';']).next());
            names.map(str::trim).any(|it| it.eq_ignore_ascii_case(name))
        };
        let own = own.into_iter().filter(|(name, _)| !is_given(name));
        let own = own.filter_map(|(name, value)| {
            Some(format!("{name}: {}", value.filter(|it| !it.is_empty())?))
        });
        let headers = own.chain(headers).collect();
        Ok(CurlRequest {
            method,
            host,
            path,
            headers,
            source: self.source,
        })
    }
}

fn is_switch(name: &str) -> bool {
    SWITCHES.contains(&name) || matches!(name, "-I" | "--head" | "-G" | "--get" | "--compressed")
}

/// What `--data-urlencode` makes of a value; `None` if that is in a file.
fn urlencoded(value: &str) -> Option<String> {
    let (name, text) = match value.find(['=', '@']) {
        Some(at) if value[at..].starts_with('@') => return None,
        Some(0) => ("", &value[1..]),
        Some(at) => value.split_at(at + 1),
        None => ("", value),
    };
    let encode = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    let encoded: String = text.bytes().map(encode).collect();
    Some(format!("{name}{encoded}"))
}

/// What a URL says.
struct Parts {
    /// With the port.
    host: String,
    /// With the query.
    path: String,
    /// It names a user.
    has_user: bool,
}

/// The parts of a URL.
fn parts(url: &str, keeps_dots: bool) -> Result<Parts, String> {
    let rest = match url.split_once("://") {
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" | "ws" | "wss" => rest,
            other => return Err(format!("{other}:// is not HTTP")),
        },
        None => url,
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if host.is_empty() {
        return Err(format!("{url:?}: it names no host"));
    }
    let end = rest.find('?').unwrap_or(rest.len());
    let (path, query) = rest.split_at(end);
    let path = match keeps_dots {
        true => path.to_owned(),
        false => without_dots(path),
    };
    let path = if path.is_empty() { "/" } else { &path };
    let encode = |it: char| match it.is_ascii() {
        true => it.to_string(),
        false => it
            .to_string()
            .bytes()
            .map(|it| format!("%{it:02x}"))
            .collect(),
    };
    Ok(Parts {
        host: host.to_owned(),
        path: format!("{path}{query}").chars().map(encode).collect(),
        has_user: user.is_some(),
    })
}

/// A path without `.` and `..` (RFC 3986 section 5.2.4).
fn without_dots(path: &str) -> String {
    let Some(path) = path.strip_prefix('/') else {
        return path.to_owned();
    };
    let mut kept = Vec::new();
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_dots = matches!(segment, "." | "..");
        if segment == ".." {
            kept.pop();
        }
        match (is_dots, segments.peek()) {
            (false, _) => kept.push(segment),
            // What ends in dots is a folder.
            (true, None) => kept.push(""),
            (true, Some(_)) => {}
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests;
