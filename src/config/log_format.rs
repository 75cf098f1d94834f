//! The format of the access log: one of the known ones, or one of one's own, in the language of nginx's
//! `log_format`. It is parsed once, at the start or at a reload; a line then follows its pieces.

use super::error::{ValueResult, shown, wrong};

/// The name of a header field, in lower case.
pub type FieldName = Box<[u8]>;

/// How a line of the access log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    Main,
    /// An object with the keys of `main`, and some more, which may be fields of the request: these.
    Json(Vec<FieldName>),
    /// As its pieces say. nginx's `combined` is one.
    Custom(CustomFormat),
}

/// A format that is made of pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomFormat {
    pub(crate) pieces: Vec<FormatPiece>,
    /// The fields of requests that it shows, in lower case: [`Variable::Field`] counts them.
    pub(crate) fields: Vec<FieldName>,
    pub(crate) escape: Escape,
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FormatPiece {
    Text(Box<[u8]>),
    Variable(Variable),
}

/// How the values of variables are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// `\x22` for what could end quotes or the line, or confuse a terminal; `-` for what is not there.
    Default,
    /// For a place between the quotes of a JSON string; nothing for what is not there.
    Json,
    /// As they came.
    None,
}

/// What a format can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variable {
    RemoteAddr,
    /// The user of Basic authentication; with the place of its field.
    RemoteUser(usize),
    TimeLocal,
    TimeIso8601,
    Msec,
    Request,
    RequestMethod,
    RequestUri,
    Args,
    ServerProtocol,
    Scheme,
    Host,
    /// A field of the request, by its place among the format's fields.
    Field(usize),
    Status,
    BodyBytesSent,
    BytesSent,
    RequestLength,
    RequestTime,
    UpstreamAddr,
    UpstreamStatus,
    UpstreamResponseTime,
    RequestId,
    Pool,
    Reason,
    Generation,
    Attempts,
    Close,
    Error,
    Denied,
    Service,
    Entry,
    Bucket,
    Sample,
}

/// The variables that have one name, as they are named.
const VARIABLES: &[(&str, Variable)] = &[
    // As in nginx.
    ("remote_addr", Variable::RemoteAddr),
    ("time_local", Variable::TimeLocal),
    ("time_iso8601", Variable::TimeIso8601),
    ("msec", Variable::Msec),
    ("request", Variable::Request),
    ("request_method", Variable::RequestMethod),
    ("request_uri", Variable::RequestUri),
    ("args", Variable::Args),
    ("query_string", Variable::Args),
    ("server_protocol", Variable::ServerProtocol),
    ("scheme", Variable::Scheme),
    ("host", Variable::Host),
    ("status", Variable::Status),
    ("body_bytes_sent", Variable::BodyBytesSent),
    ("bytes_sent", Variable::BytesSent),
    ("request_length", Variable::RequestLength),
    ("request_time", Variable::RequestTime),
    ("upstream_addr", Variable::UpstreamAddr),
    ("upstream_status", Variable::UpstreamStatus),
    ("upstream_response_time", Variable::UpstreamResponseTime),
    ("request_id", Variable::RequestId),
    // The gateway's own.
    ("pool", Variable::Pool),
    ("reason", Variable::Reason),
    ("generation", Variable::Generation),
    ("attempts", Variable::Attempts),
    ("close", Variable::Close),
    ("error", Variable::Error),
    ("denied", Variable::Denied),
    ("service", Variable::Service),
    ("entry", Variable::Entry),
    ("bucket", Variable::Bucket),
    ("sample", Variable::Sample),
];

/// Variables of nginx that are fields of the request.
const FIELDS: [(&str, &str); 2] = [
    ("content_length", "content-length"),
    ("content_type", "content-type"),
];

/// Variables of nginx that people have in their logs and that are not here, or how their names begin, and
/// what to use instead.
const INSTEAD: &[(&str, &str)] = &[
    ("arg_", "$args has the whole query"),
    ("cookie_", "$http_cookie has all cookies"),
    ("uri", "$request_uri has what the client has sent"),
    ("document_uri", "$request_uri has what the client has sent"),
    ("server_name", "$host is what the request is for"),
    ("upstream_connect_time", "$upstream_response_time is there"),
    ("upstream_header_time", "$upstream_response_time is there"),
    (
        "proxy_add_x_forwarded_for",
        "$http_x_forwarded_for is what has come in",
    ),
    (
        "realip_remote_addr",
        "$remote_addr is the client, and $http_x_forwarded_for what was said",
    ),
    ("sent_http_", "fields of answers are not logged"),
    ("upstream_http_", "fields of answers are not logged"),
];

/// The one field of `json`.
const REFERER: &str = "referer";

/// The field that says who the user is.
const AUTHORIZATION: &str = "authorization";

/// nginx's, character by character.
const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                        \"$http_referer\" \"$http_user_agent\"";

/// Most fields of a request in one format.
const MOST_FIELDS: usize = 32;

impl LogFormat {
    /// The fields of a request that a line shows, besides Host and User-Agent in those that are not custom.
    pub(crate) fn fields(&self) -> &[FieldName] {
        match self {
            Self::Main => &[],
            Self::Json(fields) => fields,
            Self::Custom(custom) => &custom.fields,
        }
    }
}

/// Parses a format.
pub(super) fn log_format(text: &str) -> ValueResult<LogFormat> {
    match text {
        "main" => return Ok(LogFormat::Main),
        "json" => return Ok(LogFormat::Json(vec![REFERER.as_bytes().into()])),
        _ => {}
    }
    let text = if text == "combined" { COMBINED } else { text };
    match custom(text) {
        Ok(custom) => Ok(LogFormat::Custom(custom)),
        Err(what) => wrong(what, allowed()),
    }
}

/// What to use instead of a variable of nginx.
fn instead(name: &str) -> Option<&'static str> {
    let is_it = |it: &str| name == it || it.ends_with('_') && name.starts_with(it);
    let mut all = INSTEAD.iter();
    all.find(|(it, _)| is_it(it)).map(|(_, other)| *other)
}

fn allowed() -> String {
    let names: Vec<String> = VARIABLES.iter().map(|(it, _)| format!("${it}")).collect();
    format!(
        "main, combined, json, or text with variables, which may begin with escape=default, escape=json or \
         escape=none; variables: {}, $remote_user, $content_length, \
         $content_type, and $http_NAME for a field of the request",
        names.join(", ")
    )
}

/// A format of one's own; `Err` says what is wrong.
fn custom(text: &str) -> Result<CustomFormat, String> {
    let (escape, text) = match text.strip_prefix("escape=") {
        None => (Escape::Default, text),
        Some(rest) => {
            let (name, text) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
            let escape = match name {
                "default" => Escape::Default,
                "json" => Escape::Json,
                "none" => Escape::None,
                _ => return Err(format!("`escape={}` is unknown", shown(name))),
            };
            (escape, text.trim_start())
        }
    };
    let mut format = CustomFormat {
        pieces: Vec::new(),
        fields: Vec::new(),
        escape,
    };
    let mut parts = text.split('$');
    format.add_text(parts.next().unwrap_or_default());
    for part in parts {
        let (name, rest) = match part.strip_prefix('{') {
            Some(part) => part.split_once('}').ok_or("a ${ without its }")?,
            None => {
                let is_of_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
                let end = part.find(|it| !is_of_name(it)).unwrap_or(part.len());
                part.split_at(end)
            }
        };
        let variable = format.variable(name)?;
        format.pieces.push(FormatPiece::Variable(variable));
        format.add_text(rest);
    }
    let is_variable = |piece: &FormatPiece| matches!(piece, FormatPiece::Variable(_));
    match format.pieces.iter().any(is_variable) {
        true => Ok(format),
        false => Err("it is neither the name of a format nor has it variables".to_owned()),
    }
}

impl CustomFormat {
    fn add_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.pieces.push(FormatPiece::Text(text.as_bytes().into()));
        }
    }

    fn variable(&mut self, name: &str) -> Result<Variable, String> {
        if let Some((_, variable)) = VARIABLES.iter().find(|(it, _)| *it == name) {
            return Ok(*variable);
        }
        if let Some((_, field)) = FIELDS.iter().find(|(it, _)| *it == name) {
            return Ok(Variable::Field(self.field(field)?));
        }
        match name.strip_prefix("http_") {
            _ if name == "remote_user" => Ok(Variable::RemoteUser(self.field(AUTHORIZATION)?)),
            Some(field) if !field.is_empty() => {
                let field = field.to_ascii_lowercase().replace('_', "-");
                Ok(Variable::Field(self.field(&field)?))
            }
            _ => Err(match name {
                "" => "a $ without the name of a variable".to_owned(),
                name => match instead(name) {
                    Some(other) => format!("`${}` is not a variable here: {other}", shown(name)),
                    None => format!("`${}` is not a variable", shown(name)),
                },
            }),
        }
    }

    /// The place of a field among those that are shown.
    fn field(&mut self, name: &str) -> Result<usize, String> {
        let known = self.fields.iter().position(|it| **it == *name.as_bytes());
        if let Some(place) = known {
            return Ok(place);
        }
        if self.fields.len() == MOST_FIELDS {
            return Err(format!(
                "it shows more than {MOST_FIELDS} fields of the request"
            ));
        }
        self.fields.push(name.as_bytes().into());
        Ok(self.fields.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> CustomFormat {
        match log_format(text) {
            Ok(LogFormat::Custom(format)) => format,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_format_is_text_and_variables_in_their_order() {
        let format = parsed("escape=json  <${status}0> $http_X_Real_User$http_x_real_user!");
        assert_eq!(format.escape, Escape::Json);
        let text = |it: &str| FormatPiece::Text(it.as_bytes().into());
        let variable = FormatPiece::Variable;
        let expected = [
            text("<"),
            variable(Variable::Status),
            text("0> "),
            variable(Variable::Field(0)),
            variable(Variable::Field(0)),
            text("!"),
        ];
        assert_eq!(format.pieces, expected);
        assert_eq!(format.fields, [b"x-real-user".as_slice().into()]);
        assert_eq!(parsed("combined"), parsed(COMBINED));
    }

    #[test]
    fn every_variable_stands_in_the_docs() {
        let text = include_str!("../../docs/logs.md");
        for (name, _) in VARIABLES {
            assert!(text.contains(&format!("`${name}`")), "${name}");
        }
    }

    #[test]
    fn what_is_no_format_is_refused_with_what_is_allowed() {
        for (text, what) in [
            ("", "it is neither the name of a format"),
            ("combine", "it is neither the name of a format"),
            ("escape=none plain", "it is neither the name of a format"),
            ("$remote_adr", "`$remote_adr` is not a variable"),
            (
                "$cookie_uid",
                "`$cookie_uid` is not a variable here: $http_cookie has all cookies",
            ),
            (
                "$uri",
                "`$uri` is not a variable here: $request_uri has what the client has sent",
            ),
            ("$urin", "`$urin` is not a variable"),
            ("$status $", "a $ without the name"),
            ("${}", "a $ without the name"),
            ("${status", "a ${ without its }"),
            ("$http_", "`$http_` is not a variable"),
            ("escape=xml $status", "`escape=xml` is unknown"),
        ] {
            let error = log_format(text).unwrap_err();
            assert!(error.what.starts_with(what), "{text}: {}", error.what);
            assert!(error.allowed.contains("main, combined, json"));
            assert!(error.allowed.contains("$body_bytes_sent"));
        }
        let many: String = (0..33).map(|it| format!("$http_x{it}")).collect();
        assert!(log_format(&many).unwrap_err().what.contains("more than 32"));
    }
}
