//! Defaults out of the environment: `CLUSTERSYNC_<name>`, else `PCSM_<name>`, which people who come from there have
//! set.

/// The value of a name, if it is set and not empty.
pub fn value(name: &str) -> Option<String> {
    ["CLUSTERSYNC", "PCSM"]
        .iter()
        .find_map(|prefix| std::env::var(format!("{prefix}_{name}")).ok().filter(|value| !value.is_empty()))
}

/// The value of a name, or `default`.
pub fn or(name: &str, default: &str) -> String {
    value(name).unwrap_or_else(|| default.to_owned())
}

/// Whether a name is set to a yes.
pub fn flag(name: &str) -> bool {
    value(name).is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
}
