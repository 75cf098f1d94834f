use super::*;

fn asked(line: &str) -> Result<CurlRequest, String> {
    read(&[line.to_owned()])
}

#[test]
fn a_command_is_the_request_that_it_would_send() {
    const OWN: [&str; 2] = ["User-Agent: curl/8", "Accept: */*"];
    let table: &[(&str, &str, &str, &str, &[&str])] = &[
        ("curl example.com", "GET", "example.com", "/", &OWN),
        (
            "curl https://u:p@example.com:8443/a/b?c=d#e",
            "GET",
            "example.com:8443",
            "/a/b?c=d",
            &[
                "User-Agent: curl/8",
                "Accept: */*",
                "Authorization: Basic (hidden)",
            ],
        ),
        (
            "curl h/v2/../x/./y/..?z=../z",
            "GET",
            "h",
            "/x/?z=../z",
            &OWN,
        ),
        ("curl h/../..", "GET", "h", "/", &OWN),
        ("curl h/a/..", "GET", "h", "/", &OWN),
        ("curl h//a/.../b.", "GET", "h", "//a/.../b.", &OWN),
        ("curl --path-as-is h/v2/../x", "GET", "h", "/v2/../x", &OWN),
        ("curl h/é?é", "GET", "h", "/%c3%a9?%c3%a9", &OWN),
        (
            "curl -G h --data-urlencode 'q=a b&c' --data-urlencode '=x=~' --data-urlencode zé",
            "GET",
            "h",
            "/?q=a+b%26c&x%3d~&z%c3%a9",
            &OWN,
        ),
        (
            "curl 'http://[::1]:80?x=1'",
            "GET",
            "[::1]:80",
            "/?x=1",
            &OWN,
        ),
        ("curl -sSfI http://h/", "HEAD", "h", "/", &OWN),
        (
            "/usr/bin/curl -XDELETE --url h/x",
            "DELETE",
            "h",
            "/x",
            &OWN,
        ),
        (
            "curl h -H 'X-User: alice' -H'X-Other:1'",
            "GET",
            "h",
            "/",
            &[
                "User-Agent: curl/8",
                "Accept: */*",
                "X-User: alice",
                "X-Other: 1",
            ],
        ),
        (
            "curl h -H 'User-Agent: Mozilla/5.0 (X)' -H Accept:",
            "GET",
            "h",
            "/",
            &["User-Agent: Mozilla/5.0 (X)"],
        ),
        ("curl h -A '' -H 'Accept;'", "GET", "h", "/", &["Accept: "]),
        (
            "curl 127.0.0.1:8080/x -H 'Host: shop.example.com'",
            "GET",
            "shop.example.com",
            "/x",
            &OWN,
        ),
        (
            "curl h -b 'a=1' --cookie 'b=2; c=3'",
            "GET",
            "h",
            "/",
            &["User-Agent: curl/8", "Accept: */*", "Cookie: a=1; b=2; c=3"],
        ),
        (
            "curl h -d a=1 -d b=2",
            "POST",
            "h",
            "/",
            &[
                "User-Agent: curl/8",
                "Accept: */*",
                "Content-Type: application/x-www-form-urlencoded",
            ],
        ),
        (
            "curl -G h/?x=0 -d a=1 --data b=2",
            "GET",
            "h",
            "/?x=0&a=1&b=2",
            &OWN,
        ),
        (
            "curl h --json '{}'",
            "POST",
            "h",
            "/",
            &[
                "User-Agent: curl/8",
                "Accept: application/json",
                "Content-Type: application/json",
            ],
        ),
        ("curl -T file h", "PUT", "h", "/", &OWN),
        (
            "curl h -u me:secret --compressed",
            "GET",
            "h",
            "/",
            &[
                "User-Agent: curl/8",
                "Accept: */*",
                "Accept-Encoding: deflate, gzip, br, zstd",
                "Authorization: Basic (hidden)",
            ],
        ),
        (
            "curl -o /dev/null -w '%{http_code}' --max-time=5 --resolve h:80:127.0.0.1 -- h",
            "GET",
            "h",
            "/",
            &OWN,
        ),
        (
            "curl 'https://h/a' \\\n  -H 'X: 1' \\\n  --insecure",
            "GET",
            "h",
            "/a",
            &["User-Agent: curl/8", "Accept: */*", "X: 1"],
        ),
    ];
    for (line, method, host, path, headers) in table {
        let expected = CurlRequest {
            method: (*method).to_owned(),
            host: (*host).to_owned(),
            path: (*path).to_owned(),
            headers: headers.iter().map(|it| (*it).to_owned()).collect(),
            source: None,
        };
        assert_eq!(asked(line), Ok(expected), "{line}");
    }
    let words = ["curl", "-H", "X: a b", "--interface", "127.0.0.5", "h"].map(str::to_owned);
    let read = read(&words).unwrap();
    assert_eq!(read.source, Some([127, 0, 0, 5].into()));
    assert_eq!(read.headers.last().unwrap(), "X: a b");
}

#[test]
fn what_cannot_be_told_from_the_command_is_an_error_that_says_so() {
    for (line, said) in [
        ("curl", "no URL"),
        ("curl -H", "its value is missing"),
        ("curl 'h", "not closed"),
        ("curl a b", "two URLs"),
        ("curl ftp://h", "not HTTP"),
        ("curl http:///x", "no host"),
        ("curl h -b jar.txt", "in a file"),
        ("curl h -H @headers", "in a file"),
        ("curl -K options h", "in a file"),
        ("curl a --next b", "several requests"),
        ("curl h --interface eth0", "only an address"),
        ("curl h --no-such-option", "not understood"),
        ("curl h -H nonsense", "not a header field"),
        ("curl -G h -d @file", "in a file"),
        ("curl -G h --data-urlencode a@file", "in a file"),
        ("curl h -H $'X: 1'", "for a shell"),
    ] {
        let error = asked(line).unwrap_err();
        assert!(error.contains(said), "{line}: {error}");
    }
}
