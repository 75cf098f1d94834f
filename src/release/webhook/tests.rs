use std::sync::Arc;

use serde_json::json;

use super::message::{WebhookMessage, harmless, message, taken};
use super::*;
use crate::config::WebhookFormat;
use crate::lists::ServiceName;
use crate::process::secret::SigningSecret;
use crate::release::state::{ResetNote, Trip};

const SECRET: &str = "SEC0123456789abcdef";

fn settings(format: &str, url: &str, secret: Option<&str>) -> WebhookSettings {
    let text = format!(
        "[redis]\nurl = redis://h\n[verdict]\nwebhook = {url}\nwebhook_format = {format}\n"
    );
    let config = Config::parse(std::path::Path::new("/g.ini"), &text, None).unwrap();
    let mut settings = config.webhook.unwrap();
    settings.secret = secret.map(|it| Arc::new(SigningSecret::of(it)));
    settings
}

fn trip(why: &str) -> Trip {
    Trip {
        service: "shop".to_owned(),
        by: "gw-1".to_owned(),
        at: "2026-11-25T19:16:26.123Z".to_owned(),
        why: why.to_owned(),
        pre: "0123456789abcdef".to_owned(),
        release: "0123456789abcdef/fe".to_owned(),
        numbers: json!({ "text": "3 of 41 requests to pre failed, 2 of 3,900 to prod" }),
        reason: None,
    }
}

/// One with an id that is always the same.
fn notice() -> ReleaseNotice {
    let shop = ServiceName::parse("shop").unwrap();
    ReleaseNotice {
        id: "00000000000000aa".to_owned(),
        ..ReleaseNotice::tripped(&shop, &trip("worse"), true)
    }
}

const TEXT: &str = "Graygate gw-1, service shop: pre was taken back, since it fails more often than prod; everybody \
     gets prod. 3 of 41 requests to pre failed, 2 of 3,900 to prod.";

fn posted(format: &str, secret: Option<&str>) -> WebhookMessage {
    let settings = settings(format, "https://h/hook?key=k", secret);
    message(
        &settings,
        &notice(),
        "gw-1",
        Duration::from_millis(1_700_000_000_123),
    )
}

#[test]
fn the_gateways_own_form_is_json_with_the_signature_in_a_header() {
    let body = format!(
        "{{\"at\":\"2026-11-25T19:16:26.123Z\",\"by\":\"gw-1\",\"event\":\"tripped\",\"id\":\"00000000000000aa\",\
         \"node\":\"gw-1\",\"numbers\":{{\"text\":\"3 of 41 requests to pre failed, 2 of 3,900 to prod\"}},\
         \"reason\":null,\"release\":\"0123456789abcdef/fe\",\"service\":\"shop\",\"text\":\"{TEXT}\"}}"
    );
    let mut headers = vec![
        ("X-Graygate-Event", "tripped".to_owned()),
        ("X-Graygate-Delivery", "00000000000000aa".to_owned()),
    ];
    let plain = WebhookMessage {
        url: "https://h/hook?key=k".to_owned(),
        headers: headers.clone(),
        body,
    };
    assert_eq!(posted("json", None), plain);
    let signed = posted("json", Some(SECRET));
    headers.push(("X-Hub-Signature-256", JSON_SIGNATURE.to_owned()));
    assert_eq!(signed, WebhookMessage { headers, ..plain });
}

/// By Python: `hmac.new(SECRET, body, sha256).hexdigest()`.
const JSON_SIGNATURE: &str =
    "sha256=056dff5337fd6be67c8f6c08d912a7581bf81ef32558501b9cf7d9f65e49143f";

#[test]
fn slack_gets_a_text_without_what_it_would_take_for_markup() {
    let body = format!("{{\"text\":\"{TEXT}\"}}");
    let plain = posted("slack", None);
    assert_eq!((plain.body, plain.headers), (body, Vec::new()));
    let shop = ServiceName::default();
    let notice = ReleaseNotice::new(NoticeKind::Worse, &shop, "a <b> & \"c\"");
    let settings = settings("slack", "https://h/x", None);
    let message = message(&settings, &notice, "gw-1", Duration::ZERO);
    assert_eq!(
        message.body,
        "{\"text\":\"Graygate gw-1: a &lt;b&gt; &amp; \\\"c\\\".\"}"
    );
}

#[test]
fn dingtalk_has_its_signature_in_the_query() {
    let body = format!("{{\"msgtype\":\"text\",\"text\":{{\"content\":\"{TEXT}\"}}}}");
    let plain = posted("dingtalk", None);
    assert_eq!(plain.url, "https://h/hook?key=k");
    assert_eq!((&plain.body, &plain.headers), (&body, &Vec::new()));
    let signed = posted("dingtalk", Some(SECRET));
    assert_eq!(
        signed.url,
        "https://h/hook?key=k&timestamp=1700000000123&sign=V9VP5gL2WDsEZvZQHnbd9k4n%2Bp56ibcLMh%2BWKMZRQas%3D"
    );
    assert_eq!(signed.body, body);
    let bare = settings("dingtalk", "https://h/hook", Some(SECRET));
    let bare = message(&bare, &notice(), "gw-1", Duration::ZERO);
    assert!(bare.url.starts_with("https://h/hook?timestamp=0&sign="));
}

#[test]
fn feishu_has_its_signature_in_the_body() {
    let content = format!("\"content\":{{\"text\":\"{TEXT}\"}},\"msg_type\":\"text\"");
    assert_eq!(posted("feishu", None).body, format!("{{{content}}}"));
    let signed = posted("feishu", Some(SECRET));
    assert_eq!(
        signed.body,
        format!(
            "{{{content},\"sign\":\"PiO7POLlSx/DM2qf8Dy/XCWeJK3exVnevp5G99LEN2M=\",\"timestamp\":\"1700000000\"}}"
        )
    );
    assert_eq!(signed.url, "https://h/hook?key=k");
}

#[test]
fn wecom_gets_no_more_than_it_takes() {
    let plain = posted("wecom", None);
    assert_eq!(
        plain.body,
        format!("{{\"msgtype\":\"text\",\"text\":{{\"content\":\"{TEXT}\"}}}}")
    );
    let shop = ServiceName::default();
    let notice = ReleaseNotice::new(NoticeKind::Worse, &shop, "é".repeat(3000));
    let text = notice.text("gw-1");
    assert!((1990..2048).contains(&text.len()), "{}", text.len());
    assert!(text.ends_with("é…"), "{text}");
}

#[test]
fn a_sentence_says_who_why_and_for_whom() {
    let default = ServiceName::default();
    let text = |notice: &ReleaseNotice| notice.text("gw-2");
    let by_hand = Trip {
        by: "ann@host".to_owned(),
        numbers: json!(null),
        reason: Some("it is slow".to_owned()),
        ..trip("by hand")
    };
    assert_eq!(
        text(&ReleaseNotice::tripped(&default, &by_hand, true)),
        "Graygate gw-2: pre was taken back, since somebody has said so; everybody gets prod. By: ann@host. \
         Reason: it is slow."
    );
    let alone = text(&ReleaseNotice::tripped(&default, &trip("slow"), false));
    assert!(alone.contains("since it is slower than prod; everybody gets prod from this gateway"));
    let note = ResetNote {
        epoch: "e".to_owned(),
        by: "ann@host".to_owned(),
        reason: Some("fixed".to_owned()),
    };
    assert_eq!(
        text(&ReleaseNotice::trip_reset(&default, Some(&note))),
        "Graygate gw-2: pre may be tried again: who is gray gets it, as before it was taken back. By: ann@host. \
         Reason: fixed."
    );
    let deleted = text(&ReleaseNotice::trip_reset(&default, None));
    assert!(deleted.ends_with("taken back. Reason: the key was deleted."));
    let test = text(&ReleaseNotice::test("ann@host"));
    assert!(test.starts_with("Graygate gw-2: this is a test"), "{test}");
}

#[test]
fn what_a_receiver_answers_says_whether_to_try_again() {
    for (format, status, body, why, passes) in [
        ("json", 200, "", "", false),
        ("json", 204, "", "", false),
        ("slack", 200, "ok", "", false),
        ("json", 302, "", "it has answered 302", false),
        (
            "slack",
            400,
            "invalid_payload\n",
            "it has answered 400: invalid_payload",
            false,
        ),
        (
            "slack",
            404,
            "no\tservice",
            "it has answered 404: no service",
            false,
        ),
        ("json", 408, "", "it has answered 408", true),
        ("slack", 429, "", "it has answered 429", true),
        ("json", 500, "", "it has answered 500", true),
        ("json", 503, "x", "it has answered 503: x", true),
        (
            "dingtalk",
            200,
            "{\"errcode\":0,\"errmsg\":\"ok\"}",
            "",
            false,
        ),
        (
            "dingtalk",
            200,
            "{\"errcode\":310000}",
            "it has answered 200 with errcode 310000: {\"errcode\":310000}",
            false,
        ),
        (
            "dingtalk",
            200,
            "{\"errcode\":130101}",
            "it has answered 200 with errcode 130101: {\"errcode\":130101}",
            true,
        ),
        ("wecom", 200, "{\"errcode\":0}", "", false),
        (
            "wecom",
            200,
            "{\"errcode\":93000}",
            "it has answered 200 with errcode 93000: {\"errcode\":93000}",
            false,
        ),
        ("feishu", 200, "{\"code\":0,\"msg\":\"success\"}", "", false),
        (
            "feishu",
            200,
            "{\"code\":19021}",
            "it has answered 200 with code 19021: {\"code\":19021}",
            false,
        ),
        (
            "feishu",
            200,
            "<html>",
            "it has answered 200 without code: <html>",
            true,
        ),
    ] {
        let format = settings(format, "https://h/", None).format;
        let expected = match why {
            "" => Ok(()),
            why => Err(NotTaken {
                why: why.to_owned(),
                passes,
            }),
        };
        assert_eq!(taken(format, status, body), expected, "{format:?}");
    }
    let long = taken(WebhookFormat::Json, 500, &"é".repeat(1000)).unwrap_err();
    assert_eq!(long.why.chars().filter(|it| *it == 'é').count(), 200);
}

#[test]
fn nothing_secret_is_repeated() {
    let settings = settings(
        "json",
        "https://h/hooks/hunter2?key=pass%2Fword",
        Some(SECRET),
    );
    for (text, shown) in [
        ("Cannot POST /hooks/hunter2", "Cannot POST /hooks/(hidden)"),
        ("bad key pass%2Fword", "bad key (hidden)"),
        ("bad key pass/word", "bad key (hidden)"),
        (&format!("{SECRET} is wrong"), "(hidden) is wrong"),
        ("connection refused", "connection refused"),
    ] {
        assert_eq!(harmless(text, &settings, settings.url.as_str()), shown);
    }
}

#[test]
fn the_pauses_grow_and_come_to_a_few_minutes() {
    let all: Vec<Duration> = (1..).map_while(|it| pause_after(it, 0.5)).collect();
    assert_eq!(all, PAUSES);
    assert!(all.iter().sum::<Duration>() < Duration::from_secs(240));
    for tries in 1..TRIES {
        let shortest = pause_after(tries, 0.0).unwrap();
        let longest = pause_after(tries, 1.0).unwrap();
        assert_eq!(shortest.mul_f64(5.0 / 3.0), longest);
    }
    assert_eq!(pause_after(TRIES, 0.5), None);
}
