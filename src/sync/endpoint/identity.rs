//! What an endpoint is: replica set, identity, versions.

use mongodb::bson::{Bson, Document, doc};

use super::client::Endpoint;
use crate::sync::error::{Error, Reason, Result};

/// The oldest patch level of 6.0 without a known replication flaw that matters here.
const RECOMMENDED_6_0_PATCH: u32 = 17;

/// A server version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
    /// Patch.
    pub patch: u32,
}

impl Version {
    /// From `6.0.27` or `6.0.27-rc0`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(['.', '-']).map(str::parse::<u32>);
        let mut next = || parts.next()?.ok();
        Some(Self { major: next()?, minor: next()?, patch: next().unwrap_or(0) })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Who answers at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Replica set name.
    pub set_name: String,
    /// The set's own id, given at its initiation: survives renames and moves of hosts.
    pub set_id: String,
    /// Binary version of the member that answered.
    pub version: Version,
    /// Feature compatibility version as `6.0`, where we may read it.
    pub compatibility: Option<String>,
}

/// Ask an endpoint who it is; refuses what is not a replica set.
pub async fn identify(endpoint: &Endpoint) -> Result<Identity> {
    let side = endpoint.side();
    let hello = endpoint.command_anywhere("admin", doc! {"hello": 1}).await?;
    if hello.get_str("msg").ok() == Some("isdbgrid") {
        return Err(Error::new(
            Reason::NotAReplicaSet,
            format!("the {side} at {} is a mongos", endpoint.hosts()),
        ));
    }
    let Ok(set_name) = hello.get_str("setName") else {
        return Err(Error::new(
            Reason::NotAReplicaSet,
            format!("the {side} at {} is a standalone server", endpoint.hosts()),
        ));
    };
    let build = endpoint.command_anywhere("admin", doc! {"buildInfo": 1}).await?;
    let text = build.get_str("version").unwrap_or_default();
    let version = Version::parse(text).ok_or_else(|| {
        Error::new(
            Reason::UnsupportedVersion,
            format!("the {side} says its version is '{text}', which is not understood"),
        )
    })?;
    let config = endpoint.command_anywhere("admin", doc! {"replSetGetConfig": 1}).await?;
    let set_id = config
        .get_document("config")
        .and_then(|config| config.get_document("settings"))
        .ok()
        .and_then(|settings| settings.get("replicaSetId"))
        .map(Bson::to_string)
        .unwrap_or_default();
    if set_id.is_empty() {
        return Err(Error::new(
            Reason::NotAReplicaSet,
            format!(
                "the {side} '{set_name}' has no replicaSetId in its configuration; it cannot be told from others"
            ),
        ));
    }
    let compatibility = compatibility(endpoint).await?;
    Ok(Identity {
        set_name: set_name.to_owned(),
        set_id: set_id.trim_matches('"').to_owned(),
        version,
        compatibility,
    })
}

async fn compatibility(endpoint: &Endpoint) -> Result<Option<String>> {
    let asked = doc! {"getParameter": 1, "featureCompatibilityVersion": 1};
    match endpoint.command_anywhere("admin", asked).await {
        Ok(reply) => Ok(reply
            .get_document("featureCompatibilityVersion")
            .and_then(|fcv| fcv.get_str("version"))
            .map(str::to_owned)
            .ok()),
        Err(error) if error.reason() == Reason::NotAuthorized => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a pair of versions is supported: an error, or what to warn of.
pub fn check_versions(source: &Identity, target: &Identity) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for (side, identity) in [("source", source), ("target", target)] {
        let version = identity.version;
        let old_features =
            identity.compatibility.as_deref().and_then(major_minor).is_some_and(|fcv| fcv < (6, 0));
        if version.major < 6 || old_features {
            let fcv = identity.compatibility.as_deref().unwrap_or("unknown");
            return Err(Error::new(
                Reason::UnsupportedVersion,
                format!(
                    "the {side} is MongoDB {version} with featureCompatibilityVersion {fcv}; 6.0 is the oldest supported"
                ),
            ));
        }
        if (version.major, version.minor) == (6, 0) && version.patch < RECOMMENDED_6_0_PATCH {
            warnings.push(format!(
                "the {side} is MongoDB {version}; 6.0.{RECOMMENDED_6_0_PATCH} or newer is recommended"
            ));
        }
    }
    let level = |identity: &Identity| {
        let binary = (identity.version.major, identity.version.minor);
        identity.compatibility.as_deref().and_then(major_minor).unwrap_or(binary)
    };
    if target.version.major < source.version.major || level(target) < level(source) {
        return Err(Error::new(
            Reason::UnsupportedVersion,
            format!(
                "the target (MongoDB {}, featureCompatibilityVersion {}) is older than the source (MongoDB {}, featureCompatibilityVersion {})",
                target.version,
                target.compatibility.as_deref().unwrap_or("unknown"),
                source.version,
                source.compatibility.as_deref().unwrap_or("unknown"),
            ),
        ));
    }
    Ok(warnings)
}

fn major_minor(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The time of the newest write that the primary knows, and of the newest that a majority has.
pub fn last_writes(hello: &Document) -> Option<(mongodb::bson::Timestamp, mongodb::bson::Timestamp)> {
    let last = hello.get_document("lastWrite").ok()?;
    let at = |name: &str| last.get_document(name).ok()?.get_timestamp("ts").ok();
    Some((at("opTime")?, at("majorityOpTime")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(version: &str, fcv: Option<&str>) -> Identity {
        Identity {
            set_name: "rs".into(),
            set_id: "x".into(),
            version: Version::parse(version).unwrap(),
            compatibility: fcv.map(Into::into),
        }
    }

    #[test]
    fn versions_are_parsed() {
        assert_eq!(Version::parse("6.0.27-rc1"), Some(Version { major: 6, minor: 0, patch: 27 }));
        assert_eq!(Version::parse("nonsense"), None);
    }

    #[test]
    fn old_majors_and_an_older_target_are_refused() {
        let refused = |source: (&str, Option<&str>), target: (&str, Option<&str>)| {
            check_versions(&identity(source.0, source.1), &identity(target.0, target.1)).is_err()
        };
        assert!(refused(("5.0.30", None), ("6.0.27", None)));
        assert!(refused(("6.0.27", Some("5.0")), ("6.0.27", Some("6.0"))));
        assert!(refused(("7.0.1", Some("7.0")), ("6.0.27", Some("6.0"))));
        assert!(refused(("7.0.1", Some("7.0")), ("7.0.2", Some("6.0"))));
        assert!(!refused(("6.0.27", Some("6.0")), ("8.0.1", Some("8.0"))));
    }

    #[test]
    fn an_old_patch_level_is_a_warning() {
        let warnings = check_versions(&identity("6.0.5", None), &identity("6.0.27", None)).unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }
}
