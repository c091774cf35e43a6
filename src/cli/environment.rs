//! Defaults out of the environment: `CLUSTERSYNC_<name>`, else `PCSM_<name>`, which people who come from there have
//! set. What cannot be used is refused by the variable's name, not passed over.

use std::env::VarError;

use serde_json::{Map, Value, json};

use crate::service::request::{self, FIELDS, Kind};

/// A variable that cannot be used, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}: {1}")]
pub struct EnvironmentError(String, String);

/// A variable that is set and not empty.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its whole name.
    pub name: String,
    /// What it is set to.
    pub value: String,
}

impl Variable {
    /// Refuse it; `why` must not hold a secret.
    pub fn refuse(&self, why: impl Into<String>) -> EnvironmentError {
        EnvironmentError(self.name.clone(), why.into())
    }

    fn parse<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, EnvironmentError> {
        let shown = || self.value.escape_debug().take(64).collect::<String>();
        parse(self.value.trim()).map_err(|why| self.refuse(format!("invalid value '{}': {why}", shown())))
    }
}

fn variables(name: &str) -> Result<Vec<Variable>, EnvironmentError> {
    let mut found = Vec::new();
    for prefix in ["CLUSTERSYNC", "PCSM"] {
        let name = format!("{prefix}_{name}");
        match std::env::var(&name) {
            Ok(value) if value.is_empty() => {}
            Ok(value) => found.push(Variable { name, value }),
            Err(VarError::NotPresent) => {}
            Err(VarError::NotUnicode(_)) => {
                return Err(EnvironmentError(name, "is not valid UTF-8".to_owned()));
            }
        }
    }
    Ok(found)
}

/// The variable of a name, if it is set and not empty.
pub fn variable(name: &str) -> Result<Option<Variable>, EnvironmentError> {
    Ok(variables(name)?.into_iter().next())
}

/// The value of a name, if it is set.
pub fn parsed<T>(
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, EnvironmentError> {
    variable(name)?.map(|variable| variable.parse(parse)).transpose()
}

/// Whether a name is set to a yes.
pub fn flag(name: &str) -> Result<bool, EnvironmentError> {
    Ok(parsed(name, yes_or_no)?.unwrap_or(false))
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "yes" | "on" => Ok(true),
        "0" | "f" | "false" | "no" | "off" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// The port of the control API. In a cluster, a Service named like us makes Kubernetes set the same variable to
/// `tcp://…` in every pod of its namespace: not meant for us.
pub fn port() -> Result<Option<u16>, EnvironmentError> {
    let meant = variables("PORT")?.into_iter().find(|variable| !variable.value.starts_with("tcp://"));
    let parse = |text: &str| text.parse().map_err(|_| "expected a port, up to 65535".to_owned());
    meant.map(|variable| variable.parse(parse)).transpose()
}

/// Fields of `/start` that are filled in where a call does not give them.
pub fn start_defaults() -> Result<Map<String, Value>, EnvironmentError> {
    let mut defaults = Map::new();
    for &(field, kind, ..) in FIELDS {
        if !request::FROM_ENVIRONMENT.contains(&field) {
            continue;
        }
        let value = parsed(&screaming(field), |text| {
            let value = match kind {
                Kind::Count | Kind::UpTo(_) => {
                    json!(text.parse::<u64>().map_err(|_| "expected a whole number from 0".to_owned())?)
                }
                Kind::Flag => json!(yes_or_no(text)?),
                _ => json!(text),
            };
            request::check(field, &value).map(|()| value)
        })?;
        if let Some(value) = value {
            defaults.insert(field.to_owned(), value);
        }
    }
    Ok(defaults)
}

/// `cloneSegmentSize` → `CLONE_SEGMENT_SIZE`.
fn screaming(field: &str) -> String {
    let mut name = String::new();
    for character in field.chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_of_a_start_are_those_that_people_have_set() {
        let names: Vec<String> = request::FROM_ENVIRONMENT.iter().map(|field| screaming(field)).collect();
        assert_eq!(
            names,
            [
                "CLONE_NUM_PARALLEL_COLLECTIONS",
                "CLONE_NUM_READ_WORKERS",
                "CLONE_NUM_INSERT_WORKERS",
                "CLONE_SEGMENT_SIZE",
                "CLONE_READ_BATCH_SIZE",
                "REPL_NUM_WORKERS",
                "REPL_CHANGE_STREAM_BATCH_SIZE",
                "REPL_EVENT_QUEUE_SIZE",
                "REPL_WORKER_QUEUE_SIZE",
                "REPL_BULK_OPS_SIZE",
                "REPL_WORKER_FLUSH_INTERVAL",
                "REPL_WORKER_BULK_QUEUE_SIZE",
                "USE_COLLECTION_BULK_WRITE",
            ]
        );
        for field in request::FROM_ENVIRONMENT {
            assert!(FIELDS.iter().any(|known| known.0 == *field), "{field}");
        }
    }

    #[test]
    fn what_is_neither_yes_nor_no_is_neither() {
        assert_eq!((yes_or_no("TRUE"), yes_or_no("0")), (Ok(true), Ok(false)));
        assert!(yes_or_no("maybe").is_err() && yes_or_no("2").is_err());
    }
}
