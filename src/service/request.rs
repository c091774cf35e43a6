//! The body of `/start`: checked field by field, so that what is wrong is named.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::sync::config::OnExistingData;
use crate::sync::scope::Scope;

/// What `/start` asks for, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartRequest {
    /// Namespaces to copy.
    pub include: Vec<String>,
    /// Namespaces not to copy.
    pub exclude: Vec<String>,
    /// Rest once the initial sync is complete.
    pub pause_on_initial_sync: bool,
    /// What to do with collections in scope that exist on the target.
    pub on_existing_data: OnExistingData,
    /// Leave out what cannot be followed.
    pub skip_unsupported: bool,
    /// Collections cloned at a time; 0 is automatic.
    pub parallel_collections: usize,
    /// Partitions of one collection read at a time; 0 is automatic.
    pub readers: usize,
    /// Lanes; 0 is automatic.
    pub lanes: usize,
    /// Latency of the source above which the clone reads more slowly; 0 is none.
    pub max_source_latency: Duration,
    /// Replication lag of either end above which the sync slows down; 0 is none.
    pub max_replication_lag: Duration,
    /// Fields that were given and that this engine has no use for.
    pub without_use: Vec<&'static str>,
}

/// Why a body is refused: the field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RequestError(pub String);

/// How a field's value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// List of namespaces.
    Namespaces,
    /// `true` or `false`.
    Flag,
    /// Whole number from 0.
    Count,
    /// Whole number from 0 to this.
    UpTo(u64),
    /// `"500MB"`, `"1GiB"`, or a number of bytes.
    Size,
    /// `"1s"`, `"250ms"`.
    Duration,
    /// `"majority"` or a number.
    WriteConcern,
    /// `"Drop"` or `"Fail"`.
    OnExistingData,
}

/// The fields of `/start`: name, kind, whether the engine has a use for it, what it means.
pub const FIELDS: &[(&str, Kind, bool, &str)] = &[
    ("includeNamespaces", Kind::Namespaces, true, "Namespaces to copy: db.coll, db.*, db; default all"),
    ("excludeNamespaces", Kind::Namespaces, true, "Namespaces not to copy; exclude wins"),
    ("pauseOnInitialSync", Kind::Flag, true, "Pause once the initial sync is complete"),
    (
        "onExistingData",
        Kind::OnExistingData,
        true,
        "Drop (default) or Fail: collections in scope on the target",
    ),
    (
        "skipUnsupported",
        Kind::Flag,
        true,
        "Leave out time-series collections with a warning, rather than stop",
    ),
    ("cloneNumParallelCollections", Kind::Count, true, "Collections cloned at a time; 0: automatic"),
    ("cloneNumReadWorkers", Kind::Count, true, "Partitions of a collection read at a time; 0: automatic"),
    ("cloneNumInsertWorkers", Kind::Count, false, "Accepted; each reader has its writer"),
    ("cloneSegmentSize", Kind::Size, false, "Accepted; partitions are sized automatically"),
    ("cloneReadBatchSize", Kind::Size, false, "Accepted; batches are sized automatically"),
    ("cloneSkipPresplit", Kind::Flag, false, "Accepted; there is nothing to split in a replica set"),
    ("replNumWorkers", Kind::Count, true, "Lanes that apply events in parallel; 0: automatic"),
    (
        "maxSourceLatencyMs",
        Kind::UpTo(60_000),
        true,
        "Slow the clone down when a small read takes the source longer; 0: never",
    ),
    (
        "maxReplicationLagSeconds",
        Kind::UpTo(3_600),
        true,
        "Slow down when the majority of source or target is further behind its primary; 0: never",
    ),
    ("replChangeStreamBatchSize", Kind::Count, false, "Accepted; the server decides"),
    ("replEventQueueSize", Kind::Count, false, "Accepted; queues are bounded in bytes"),
    ("replWorkerQueueSize", Kind::Count, false, "Accepted; queues are bounded in bytes"),
    ("replBulkOpsSize", Kind::Count, false, "Accepted; a batch grows while its lane is busy"),
    ("replWorkerFlushInterval", Kind::Duration, false, "Accepted; a batch goes when its lane is free"),
    ("replWorkerBulkQueueSize", Kind::Count, false, "Accepted; queues are bounded in bytes"),
    ("useCollectionBulkWrite", Kind::Flag, false, "Accepted; batches are transactions"),
    ("targetWriteConcern", Kind::WriteConcern, false, "Accepted; a checkpoint is always majority-committed"),
];

/// Fields whose defaults are taken from the environment, as the users of this API set them.
pub const FROM_ENVIRONMENT: &[&str] = &[
    "cloneNumParallelCollections",
    "cloneNumReadWorkers",
    "cloneNumInsertWorkers",
    "cloneSegmentSize",
    "cloneReadBatchSize",
    "replNumWorkers",
    "replChangeStreamBatchSize",
    "replEventQueueSize",
    "replWorkerQueueSize",
    "replBulkOpsSize",
    "replWorkerFlushInterval",
    "replWorkerBulkQueueSize",
    "useCollectionBulkWrite",
];

/// Numbers beyond this are mistakes.
const MOST: u64 = 1 << 20;

/// Members that a replica set can have.
const MOST_MEMBERS: u64 = 50;

/// As many tasks at a time as a field that we follow may ask for.
const MOST_TASKS: u64 = 256;

/// Whether a field may have this value; else why not.
pub fn check(name: &str, value: &Value) -> Result<(), String> {
    match FIELDS.iter().find(|field| field.0 == name) {
        Some(field) => read(field, value).map(|_| ()),
        None => Err("unknown field".to_owned()),
    }
}

/// `body`, and from `defaults` what it does not give.
pub fn with_defaults(body: &Map<String, Value>, defaults: &Map<String, Value>) -> Map<String, Value> {
    let mut filled = defaults.clone();
    filled.extend(
        body.iter().filter(|field| !field.1.is_null()).map(|(name, value)| (name.clone(), value.clone())),
    );
    filled
}

/// Read a body; `lenient` ignores fields that are not known.
pub fn parse(body: &Map<String, Value>, lenient: bool) -> Result<StartRequest, RequestError> {
    let mut request = StartRequest { on_existing_data: OnExistingData::Drop, ..StartRequest::default() };
    for (name, value) in body {
        let Some(field @ (name, _, used, _)) = FIELDS.iter().find(|field| field.0 == name) else {
            if lenient {
                continue;
            }
            return Err(RequestError(format!("unknown field '{}'", printable(name))));
        };
        if value.is_null() {
            continue;
        }
        let read = read(field, value).map_err(|why| RequestError(format!("invalid {name}: {why}")))?;
        if !used && read != Read::Nothing {
            request.without_use.push(name);
        }
        match (*name, read) {
            ("includeNamespaces", Read::Texts(list)) => request.include = list,
            ("excludeNamespaces", Read::Texts(list)) => request.exclude = list,
            ("pauseOnInitialSync", Read::Flag(flag)) => request.pause_on_initial_sync = flag,
            ("skipUnsupported", Read::Flag(flag)) => request.skip_unsupported = flag,
            ("onExistingData", Read::Existing(existing)) => request.on_existing_data = existing,
            ("cloneNumParallelCollections", Read::Count(count)) => request.parallel_collections = count,
            ("cloneNumReadWorkers", Read::Count(count)) => request.readers = count,
            ("replNumWorkers", Read::Count(count)) => request.lanes = count,
            ("maxSourceLatencyMs", Read::Count(count)) => {
                request.max_source_latency = Duration::from_millis(count as u64);
            }
            ("maxReplicationLagSeconds", Read::Count(count)) => {
                request.max_replication_lag = Duration::from_secs(count as u64);
            }
            _ => {}
        }
    }
    scope(&request)?;
    Ok(request)
}

/// The namespaces of a request, checked.
pub fn scope(request: &StartRequest) -> Result<Scope, RequestError> {
    Scope::new(&request.include, &request.exclude).map_err(|error| {
        let text = error.to_string();
        let named = text.replacen("include:", "includeNamespaces:", 1);
        RequestError(format!("invalid {}", named.replacen("exclude:", "excludeNamespaces:", 1)))
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Read {
    Nothing,
    Texts(Vec<String>),
    Flag(bool),
    Count(usize),
    Existing(OnExistingData),
    Other,
}

fn read(&(_, kind, used, _): &(&str, Kind, bool, &str), value: &Value) -> Result<Read, String> {
    match kind {
        Kind::Namespaces => {
            let list = value.as_array().ok_or("expected a list of namespaces")?;
            let texts = list.iter().map(|one| one.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
            Ok(Read::Texts(texts.ok_or("expected a list of texts such as \"db.coll\"")?))
        }
        Kind::Flag => {
            let flag = value.as_bool().ok_or("expected true or false")?;
            Ok(if flag { Read::Flag(true) } else { Read::Nothing })
        }
        Kind::Count => {
            let count =
                value.as_u64().filter(|count| *count <= MOST).ok_or("expected a whole number from 0")?;
            if used && count > MOST_TASKS {
                return Err(format!("at most {MOST_TASKS}"));
            }
            Ok(if count == 0 { Read::Nothing } else { Read::Count(usize::try_from(count).unwrap_or(0)) })
        }
        Kind::UpTo(most) => {
            let count = value.as_u64().filter(|count| *count <= most);
            let count = count.ok_or_else(|| format!("expected a whole number from 0 to {most}"))?;
            Ok(if count == 0 { Read::Nothing } else { Read::Count(usize::try_from(count).unwrap_or(0)) })
        }
        Kind::Size => match value {
            Value::Number(number) if number.as_u64() == Some(0) => Ok(Read::Nothing),
            Value::Number(number) if number.as_u64().is_some() => Ok(Read::Other),
            Value::String(text) if text.is_empty() => Ok(Read::Nothing),
            Value::String(text) => {
                size(text).map(|bytes| if bytes == 0 { Read::Nothing } else { Read::Other })
            }
            _ => Err("expected a size such as \"500MB\" or \"1GiB\"".to_owned()),
        },
        Kind::Duration => match value {
            Value::Number(number) if number.as_u64() == Some(0) => Ok(Read::Nothing),
            Value::String(text) if text.is_empty() || text == "0" => Ok(Read::Nothing),
            Value::String(text) => {
                let duration = text.parse::<jiff::SignedDuration>().ok();
                let duration = duration
                    .filter(|duration| !duration.is_negative())
                    .ok_or("expected a duration such as \"1s\" or \"250ms\"")?;
                Ok(if duration.is_zero() { Read::Nothing } else { Read::Other })
            }
            _ => Err("expected a duration such as \"1s\" or \"250ms\"".to_owned()),
        },
        Kind::WriteConcern => match value {
            Value::String(text) if text.is_empty() => Ok(Read::Nothing),
            Value::String(text) if text == "majority" => Ok(Read::Other),
            Value::String(text) if text.parse().is_ok_and(|w: u64| w <= MOST_MEMBERS) => Ok(Read::Other),
            Value::Number(number) if number.as_u64() == Some(0) => Ok(Read::Nothing),
            Value::Number(number) if number.as_u64().is_some_and(|w| w <= MOST_MEMBERS) => Ok(Read::Other),
            _ => Err("expected \"majority\" or a number".to_owned()),
        },
        Kind::OnExistingData => match value.as_str() {
            Some("Drop") => Ok(Read::Existing(OnExistingData::Drop)),
            Some("Fail") => Ok(Read::Existing(OnExistingData::Fail)),
            _ => Err("expected \"Drop\" or \"Fail\"".to_owned()),
        },
    }
}

/// A size in bytes: a number with a unit of powers of 1000 (`KB`, `MB`, …) or of 1024 (`KiB`, `MiB`, …).
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "k" => 1000,
        "mb" | "m" => 1_000_000,
        "gb" | "g" => 1_000_000_000,
        "tb" | "t" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err("expected a size such as \"500MB\" or \"1GiB\"".to_owned()),
    };
    let wrong = || "expected a size such as \"500MB\" or \"1GiB\"".to_owned();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes = (number * factor as f64) as u64;
    (number.is_finite() && bytes < u64::MAX / 2).then_some(bytes).ok_or_else(wrong)
}

/// A name out of a body, for a message.
pub fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parsed(body: &Value) -> Result<StartRequest, String> {
        parse(body.as_object().unwrap(), false).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_body_means_everything_automatically() {
        let request = parsed(&json!({})).unwrap();
        assert_eq!(request.on_existing_data, OnExistingData::Drop);
        assert_eq!((request.lanes, request.without_use.len()), (0, 0));
    }

    #[test]
    fn every_field_is_known_and_zero_means_automatic() {
        let request = parsed(&json!({
            "includeNamespaces": ["a.*", "b"], "excludeNamespaces": ["a.x"], "pauseOnInitialSync": true,
            "cloneNumParallelCollections": 2, "cloneNumReadWorkers": 3, "cloneNumInsertWorkers": 4,
            "cloneSegmentSize": "500MB", "cloneReadBatchSize": "1GiB", "replNumWorkers": 5,
            "replChangeStreamBatchSize": 0, "replEventQueueSize": 0, "replWorkerQueueSize": 1, "replBulkOpsSize": 9,
            "replWorkerFlushInterval": "1s", "replWorkerBulkQueueSize": 0, "useCollectionBulkWrite": false,
            "targetWriteConcern": "majority", "cloneSkipPresplit": true, "onExistingData": "Fail", "maxSourceLatencyMs": 1000,
            "maxReplicationLagSeconds": 5,
        }))
        .unwrap();
        assert_eq!((request.parallel_collections, request.readers, request.lanes), (2, 3, 5));
        assert_eq!(request.max_source_latency, Duration::from_secs(1));
        assert_eq!(request.max_replication_lag, Duration::from_secs(5));
        assert!(request.pause_on_initial_sync && request.on_existing_data == OnExistingData::Fail);
        assert_eq!(
            request.without_use,
            [
                "cloneNumInsertWorkers",
                "cloneReadBatchSize",
                "cloneSegmentSize",
                "cloneSkipPresplit",
                "replBulkOpsSize",
                "replWorkerFlushInterval",
                "replWorkerQueueSize",
                "targetWriteConcern",
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, named) in [
            (json!({"includeNamespace": []}), "includeNamespace"),
            (json!({"includeNamespaces": "a.b"}), "includeNamespaces"),
            (json!({"includeNamespaces": [1]}), "includeNamespaces"),
            (json!({"includeNamespaces": [""]}), "includeNamespaces"),
            (json!({"excludeNamespaces": ["a."]}), "excludeNamespaces"),
            (json!({"pauseOnInitialSync": "yes"}), "pauseOnInitialSync"),
            (json!({"cloneNumReadWorkers": -1}), "cloneNumReadWorkers"),
            (json!({"cloneNumReadWorkers": 1.5}), "cloneNumReadWorkers"),
            (json!({"cloneNumReadWorkers": "4"}), "cloneNumReadWorkers"),
            (json!({"replNumWorkers": 100_000}), "replNumWorkers"),
            (
                json!({"maxSourceLatencyMs": 60_001}),
                "maxSourceLatencyMs: expected a whole number from 0 to 60000",
            ),
            (json!({"maxSourceLatencyMs": "5ms"}), "maxSourceLatencyMs"),
            (json!({"maxReplicationLagSeconds": -1}), "maxReplicationLagSeconds"),
            (json!({"cloneSegmentSize": "many"}), "cloneSegmentSize"),
            (json!({"cloneSegmentSize": -5}), "cloneSegmentSize"),
            (json!({"replWorkerFlushInterval": "soon"}), "replWorkerFlushInterval"),
            (json!({"targetWriteConcern": "most"}), "targetWriteConcern"),
            (json!({"targetWriteConcern": "51"}), "targetWriteConcern"),
            (json!({"onExistingData": "Merge"}), "onExistingData"),
        ] {
            let error = parsed(&body).unwrap_err();
            assert!(error.contains(named), "{body}: {error}");
        }
        assert!(parse(json!({"else": 1}).as_object().unwrap(), true).is_ok());
    }

    #[test]
    fn zero_means_automatic_for_every_kind() {
        let request = parsed(&json!({
            "cloneSegmentSize": 0, "cloneReadBatchSize": "0", "replWorkerFlushInterval": 0, "targetWriteConcern": 0,
            "replBulkOpsSize": 0, "replNumWorkers": 0, "useCollectionBulkWrite": false,
        }));
        assert_eq!(request.unwrap().without_use, Vec::<&str>::new());
        for zero in ["0", "0s", ""] {
            let request = parsed(&json!({"replWorkerFlushInterval": zero})).unwrap();
            assert!(request.without_use.is_empty(), "{zero}");
        }
    }

    #[test]
    fn defaults_fill_in_what_a_body_does_not_give() {
        let defaults = json!({"replNumWorkers": 3, "cloneNumReadWorkers": 2, "cloneSegmentSize": "1GiB"});
        let body = json!({"replNumWorkers": 0, "cloneNumReadWorkers": null, "includeNamespaces": ["a"]});
        let filled = with_defaults(body.as_object().unwrap(), defaults.as_object().unwrap());
        assert_eq!(
            Value::Object(filled),
            json!({"replNumWorkers": 0, "cloneNumReadWorkers": 2, "cloneSegmentSize": "1GiB", "includeNamespaces": ["a"]})
        );
        assert_eq!(check("replNumWorkers", &json!(300)), Err("at most 256".to_owned()));
        assert!(check("replEventQueueSize", &json!(300)).is_ok() && check("else", &json!(1)).is_err());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("500MB"), Ok(500_000_000));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("1.5 kib"), Ok(1536));
        assert_eq!(size("7"), Ok(7));
        for wrong in ["", "MB", "1XB", "-1MB", "99999999999TB", "1e400GB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_size_panic(text in ".{0,20}") {
            let _ = size(&text);
        }
    }
}
