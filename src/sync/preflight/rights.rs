//! Are the documented rights there? Asked of the server, which names what the user may do.

use std::collections::BTreeSet;

use mongodb::bson::{Document, doc};

use crate::sync::endpoint::Endpoint;
use crate::sync::error::{Error, Reason, Result};

/// Actions, and the built-in roles that hold them.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    actions: &'static [&'static str],
    roles: &'static str,
}

/// What reading needs.
pub const SOURCE: Needed = Needed {
    actions: &["find", "changeStream", "listCollections", "listIndexes", "listDatabases", "replSetGetConfig"],
    roles: "readAnyDatabase and clusterMonitor",
};

/// What writing needs.
pub const TARGET: Needed = Needed {
    actions: &[
        "find",
        "insert",
        "update",
        "remove",
        "createCollection",
        "dropCollection",
        "createIndex",
        "dropIndex",
        "collMod",
        "bypassDocumentValidation",
        "replSetGetConfig",
    ],
    roles: "readWriteAnyDatabase, clusterMonitor and restore",
};

/// Fail with `NotAuthorized`, naming what is missing. A server without access control passes.
pub async fn check(endpoint: &Endpoint, needed: Needed) -> Result<()> {
    let status =
        endpoint.command_anywhere("admin", doc! {"connectionStatus": 1, "showPrivileges": true}).await?;
    let Ok(auth) = status.get_document("authInfo") else { return Ok(()) };
    let missing = missing(auth, needed);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Reason::NotAuthorized,
        format!(
            "the user of the {} lacks the actions {}; the roles {} (on admin) hold them",
            endpoint.side(),
            missing.join(", "),
            needed.roles
        ),
    ))
}

fn missing(auth: &Document, needed: Needed) -> Vec<&'static str> {
    let users = auth.get_array("authenticatedUsers").map_or(0, Vec::len);
    if users == 0 {
        return Vec::new();
    }
    let held: BTreeSet<&str> = auth
        .get_array("authenticatedUserPrivileges")
        .into_iter()
        .flatten()
        .filter_map(|privilege| privilege.as_document()?.get_array("actions").ok())
        .flatten()
        .filter_map(|action| action.as_str())
        .collect();
    needed
        .actions
        .iter()
        .copied()
        .filter(|action| !held.contains(action) && !held.contains("anyAction"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let auth = doc! {"authenticatedUsers": [{"user": "u"}], "authenticatedUserPrivileges": [
            {"resource": {"db": "", "collection": ""}, "actions": ["find", "listCollections", "listIndexes", "changeStream"]},
            {"resource": {"cluster": true}, "actions": ["listDatabases"]},
        ]};
        assert_eq!(missing(&auth, SOURCE), ["replSetGetConfig"]);
    }

    #[test]
    fn without_access_control_nothing_is_missing() {
        assert!(
            missing(&doc! {"authenticatedUsers": [], "authenticatedUserPrivileges": []}, TARGET).is_empty()
        );
    }
}
