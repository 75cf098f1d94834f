//! A page of metrics in the Prometheus text format (version 0.0.4), read strictly.

use std::collections::BTreeMap;

/// The samples of a page by name and labels, the labels in alphabetical order:
/// `graygate_requests_total{pool="pre",status="2xx"}`.
pub(crate) type Samples = BTreeMap<String, f64>;

/// Reads a page.
///
/// # Panics
/// When a scraper might stumble over it, with the line.
#[track_caller]
pub(crate) fn read_metrics(page: &str) -> Samples {
    assert!(page.ends_with('\n'), "the last line has no end");
    let mut samples = Samples::new();
    let mut families: Vec<(&str, &str)> = Vec::new();
    let mut helped = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
            assert!(!text.is_empty() && !text.contains('\\'), "{line}");
            assert!(families.iter().all(|(it, _)| *it != name), "twice: {line}");
            helped = Some(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(helped.take(), Some(name), "no HELP right before: {line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            families.push((name, kind));
        } else {
            assert_eq!(helped, None, "no TYPE before: {line}");
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = read_series(series);
            // The samples of a family stand together, so it can only be the last one.
            let (family, kind) = *families.last().unwrap();
            let suffix = name.strip_prefix(family);
            let allowed: &[&str] = match kind {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(
                suffix.is_some_and(|it| allowed.contains(&it)),
                "in the family {family}: {line}"
            );
            let value: f64 = value.parse().unwrap();
            // Logarithms alone are below 0.
            let may_be_negative = kind == "gauge" && name.contains("_ln_");
            let is_sound = value.is_finite() && (value >= 0.0 || may_be_negative);
            assert!(is_sound, "{line}");
            let series = name.to_owned() + &labels;
            assert_eq!(samples.insert(series, value), None, "twice: {line}");
        }
    }
    assert_eq!(helped, None, "a HELP without a TYPE");
    for (family, _) in families.iter().filter(|(_, kind)| *kind == "histogram") {
        check_histogram(page, &samples, family);
    }
    samples
}

/// Name and labels of a series; the labels sorted.
#[track_caller]
fn read_series(series: &str) -> (&str, String) {
    let is_name = |text: &str| {
        let word = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
        !text.is_empty() && text.bytes().all(word) && !text.as_bytes()[0].is_ascii_digit()
    };
    let (name, labels) = match series.split_once('{') {
        None => (series, None),
        Some((name, rest)) => (name, Some(rest.strip_suffix('}').unwrap())),
    };
    let is_own = name.starts_with("graygate_") || name.starts_with("process_");
    assert!(is_name(name) && is_own, "{series}");
    let Some(labels) = labels else {
        return (name, String::new());
    };
    let mut labels: Vec<&str> = labels.split(',').collect();
    for label in &labels {
        let (key, value) = label.split_once('=').unwrap();
        let value = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
        let plain = value.is_some_and(|it| !it.contains(['"', '\\']));
        assert!(is_name(key) && plain, "{series}");
    }
    labels.sort_unstable();
    (name, format!("{{{}}}", labels.join(",")))
}

/// The buckets of a histogram are cumulative, and the last one holds everything; of a family with labels,
/// those of each histogram.
#[track_caller]
fn check_histogram(page: &str, samples: &Samples, family: &str) {
    let begin = format!("{family}_bucket{{");
    let mut histograms: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for line in page.lines().filter_map(|line| line.strip_prefix(&begin)) {
        // The bound comes last.
        let (labels, rest) = line.split_once("le=\"").unwrap();
        let (le, count) = rest.split_once("\"} ").unwrap();
        let labels = labels.strip_suffix(',').map(|it| format!("{{{it}}}"));
        let buckets = histograms.entry(labels.unwrap_or_default()).or_default();
        // Rust reads +Inf as Prometheus does.
        buckets.push((le.parse().unwrap(), count.parse().unwrap()));
    }
    assert!(!histograms.is_empty(), "{family}");
    for (labels, buckets) in histograms {
        for pair in buckets.windows(2) {
            let [(le, count), (next_le, next_count)] = pair else {
                unreachable!()
            };
            assert!(le < next_le && count <= next_count, "{family}: {buckets:?}");
        }
        let count = samples[&format!("{family}_count{labels}")];
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{family}");
        let sum = format!("{family}_sum{labels}");
        assert!(samples.contains_key(&sum), "{sum}");
    }
}
