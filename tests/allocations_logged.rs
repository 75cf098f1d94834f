//! As `allocations.rs`, but with an access log: what a worker writes into it takes no new memory, either.

#![allow(clippy::unwrap_used)] // Clippy knows tests, but not their helpers.

mod counting;
mod support;

use graygate::config::LogTarget;

use counting::Served;
use support::Traffic;

#[test]
fn a_request_that_is_logged_allocates_nothing() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let served = Served::start(&LogTarget::File(log.path().to_owned()));
    let custom = "escape=json {\"e\":\"$entry $bucket\",\"a\":\"$http_accept\",\"t\":\"$time_iso8601\",\"h\":\"$host\",\"p\":\"$upstream_addr\",\"i\":\"$request_id\"}";
    for format in ["main", "combined", "json", custom] {
        println!("{format}");
        served.log_as(format);
        for traffic in Traffic::kinds().iter().chain([&Traffic::selected()]) {
            served.check(traffic);
        }
    }
    let lines = std::fs::read_to_string(log.path()).unwrap();
    let (entry, bucket) = (
        " entry=\"query:uid=\\x22a b\\x22 percent:100:cookie:uid\"",
        " bucket=67.26\n",
    );
    // The id stands before it, where there is one.
    assert!(lines.contains(&format!("{entry}{bucket}")));
}
