//! The history as a stream.

use redis::{Cmd, RedisResult};

use crate::release::history::{ChangeRecord, KEPT};
use crate::store::redis::link::Link;

/// The command that adds a record to the history under this key.
pub(crate) fn added(history: &str, record: &ChangeRecord) -> Cmd {
    let mut add = redis::cmd("XADD");
    add.arg(history).arg("MAXLEN").arg("~").arg(KEPT).arg("*");
    for (name, value) in record.fields() {
        add.arg(name).arg(value);
    }
    add
}

/// The newest records of the history under this key, the newest first: so many at most.
///
/// # Errors
/// They cannot be read.
pub(crate) fn newest(
    link: &mut Link,
    history: &str,
    count: usize,
) -> RedisResult<Vec<ChangeRecord>> {
    let mut range = redis::cmd("XREVRANGE");
    range.arg(history).arg("+").arg("-").arg("COUNT").arg(count);
    let page = link.ask(&range)?;
    let page: Vec<(String, Vec<(String, String)>)> = redis::from_redis_value(page)?;
    let records = page.iter().map(|(_, fields)| fields);
    Ok(records
        .filter_map(|it| ChangeRecord::of_fields(it))
        .collect())
}
