//! What Redis has: the keys, the history of the release, and the memory.

use redis::RedisResult;

use crate::sample::{Numbers, Quantity, Series, State, quantity};
use crate::site::Redis;

/// Everything that is looked at. The history is full from the start, and must stay as long.
const QUANTITIES: [Quantity; 3] = [
    quantity("keys", State::Idle, 3.0, 0.0),
    quantity("records of the release", State::Idle, 20.0, 0.0),
    quantity("memory KiB", State::Idle, 512.0, 0.1),
];

/// The history of the release.
pub(crate) const HISTORY: &str = "basket:history";

/// So many records a history has when it is full.
const FULL: usize = 1000;

/// The numbers of Redis, without any yet.
pub(crate) fn series() -> Series {
    Series::new("Redis".to_owned(), &QUANTITIES)
}

/// In the quiet moment after a round.
pub(crate) fn take(series: &mut Series, redis: &Redis) -> Result<(), String> {
    let numbers = numbers(redis).map_err(|it| format!("redis: {it}"))?;
    series.note(State::Idle, &numbers);
    Ok(())
}

fn numbers(redis: &Redis) -> RedisResult<Numbers> {
    let mut connection = redis.connect()?;
    let keys: f64 = redis::cmd("DBSIZE").query(&mut connection)?;
    let records: f64 = redis::cmd("XLEN").arg(HISTORY).query(&mut connection)?;
    let info: redis::InfoDict = redis::cmd("INFO").arg("memory").query(&mut connection)?;
    let memory: f64 = info.get("used_memory").unwrap_or_default();
    Ok(Numbers::from([
        ("keys", keys),
        ("records of the release", records),
        ("memory KiB", memory / 1024.0),
    ]))
}

/// Fills the history with copies of its last record, as if the release had been moved for years.
pub(crate) fn fill(redis: &Redis) -> RedisResult<()> {
    type Record = (String, Vec<(String, String)>);
    let mut connection = redis.connect()?;
    let mut last = redis::cmd("XREVRANGE");
    last.arg(HISTORY).arg("+").arg("-").arg("COUNT").arg(1);
    let last: Vec<Record> = last.query(&mut connection)?;
    let mut records = redis::pipe();
    for (_, mut fields) in last.into_iter().cycle().take(FULL) {
        let number = fields.iter_mut().find(|(name, _)| name == "n");
        let so_far = records.len() + 3;
        number
            .into_iter()
            .for_each(|(_, it)| *it = so_far.to_string());
        records.cmd("XADD").arg(HISTORY).arg("*").arg(fields);
    }
    records.exec(&mut connection)
}
