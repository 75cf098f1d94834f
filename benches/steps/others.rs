//! A hundred entries of a gray list that are more than addresses, of all kinds, and what a browser sends:
//! none of the entries selects it, so that all is looked at that may have to be. Of the standard library
//! only: the program that measures the whole gateway has it, too.

/// The entries, as a site may have them.
pub(crate) fn other_entries() -> Vec<String> {
    let of = |number: usize| {
        let by_part = match number % 4 {
            0 => format!("header:User-Agent=*Build{number}*"),
            1 => format!("path:/v{number}/* method:GET"),
            2 => format!("cookie:session=*x{number} host:*.h{number}.example"),
            _ => format!("header:X-App-Version>=9.{number}"),
        };
        let by_client = match number % 4 {
            0 => format!("percent:0.01:cookie:uid header:X-Beta-{number}"),
            1 => format!("10.{number}.0.0/16 cookie:beta"),
            2 => format!("!172.16.{number}.0/24 method:POST"),
            _ => format!("192.0.2.{number} until=2100-01-01T00:00Z"),
        };
        [
            format!("header:X-Tester-{number}=yes"),
            format!("cookie:uid=user{number}"),
            format!("query:release{number}=beta"),
            by_part,
            by_client,
        ]
    };
    (0..20).flat_map(of).collect()
}

/// The head of a browser's request for a `path`: with a query of four parameters, fifteen fields, and ten
/// cookies in one of them.
pub(crate) fn browser_head(path: &str) -> String {
    let fields: String = (0..12)
        .map(|it| format!("Accept-Thing-{it}: of usual length {it}\r\n"))
        .collect();
    let cookies: String = (0..9)
        .map(|it| format!("_name{it}=abcdef0123456789abcdef{it}; "))
        .collect();
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/131.0.0.0";
    format!(
        "GET {path}?a=1&b=2&c=some+thing&d=%41 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: {agent}\r\n\
         {fields}Cookie: {cookies}uid=alice\r\n\r\n"
    )
}
