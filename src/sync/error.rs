//! One error type for the engine, each with a class and a reason that users and alerts can rely on.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the people of this process steer it by hand. A process serves either resources or one sync, so that this is
/// known once, at its start.
static BY_HAND: AtomicBool = AtomicBool::new(false);

/// From now on errors of this process are explained to people who have the control API and the command line, and no
/// resource.
pub fn explain_by_hand() {
    BY_HAND.store(true, Ordering::Relaxed);
}

/// What the engine does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Try again with backoff; nothing is lost.
    Transient,
    /// Stop and explain: only a person can change the outcome.
    Stop,
}

const fn last(texts: &[&'static str]) -> &'static str {
    texts[texts.len() - 1]
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $class:ident, $remedy:literal $(, by hand $by_hand:literal)?;)*) => {
        /// Why a sync waits or stopped. The names are API: conditions, events, metrics and alerts use them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, for generated documentation and metrics.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The name as it appears in a condition.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Whether the engine tries again by itself.
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }

            /// What a person can do who steers by a resource.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }

            /// What a person can do who steers by the control API and the command line.
            pub const fn remedy_by_hand(self) -> &'static str {
                match self { $(Self::$name => last(&[$remedy $(, $by_hand)?]),)* }
            }
        }
    };
}

reasons! {
    /// The configuration cannot be used.
    InvalidConfiguration => Stop, "Correct the named field.",
        by hand "Correct what is named, and restart 'clustersync serve'.";
    /// A Secret, ConfigMap or key is missing.
    CredentialsMissing => Transient, "Create the named Secret, ConfigMap or key; it is looked at again within a minute.",
        by hand "Give 'clustersync serve' what is named.";
    /// Names resolve, but nothing answers.
    SourceUnreachable => Transient, "Check the host names, ports, TLS and network policies of the source.";
    /// As `SourceUnreachable`.
    TargetUnreachable => Transient, "Check the host names, ports, TLS and network policies of the target.";
    /// User name, password or mechanism refused.
    AuthenticationFailed => Transient, "Correct the credentials; they are tried again.",
        by hand "Correct the user or the password: on the server, where they are tried again, or by a restart of 'clustersync serve' with the right ones.";
    /// A right is missing.
    NotAuthorized => Stop, "Grant the named privilege, then change spec.requests.retry.",
        by hand "Grant the named privilege, then resume with fromFailure ('clustersync resume --from-failure').";
    /// A standalone or a mongos.
    NotAReplicaSet => Stop, "Point to a replica set: standalones and mongos are not supported.",
        by hand "Restart 'clustersync serve' with a replica set: standalones and mongos are not supported.";
    /// Server too old, or target older than source.
    UnsupportedVersion => Stop, "Use MongoDB 6.0 or newer, and a target not older than the source; then change spec.requests.retry.",
        by hand "Restart 'clustersync serve' with MongoDB 6.0 or newer, and a target not older than the source.";
    /// Both ends are one replica set.
    SameReplicaSet => Stop, "Point source and target to different replica sets.",
        by hand "Restart 'clustersync serve' with different replica sets as --source and --target.";
    /// Another sync writes from this target to this source.
    SyncLoop => Stop, "Complete the sync of the opposite direction, or delete it with deletionPolicy: Delete (if it is gone and its state stayed: 'clustersync reset', see docs/resource.md); then change spec.requests.retry.",
        by hand "Finalize the sync of the opposite direction, or forget it with 'clustersync reset', then resume with fromFailure ('clustersync resume --from-failure').";
    /// Collections in scope exist on the target.
    TargetNotEmpty => Stop, "Drop them, then change spec.requests.retry; or set initialSync.onExistingData to Drop; or create another ClusterSync whose scope excludes them.",
        by hand "Drop them, then resume with fromFailure ('clustersync resume --from-failure'); or restart 'clustersync serve' with --reset-state, and start with them in excludeNamespaces or with onExistingData Drop.";
    /// Another sync holds a target namespace.
    TargetInUse => Stop, "Complete the sync that holds it, or delete it with deletionPolicy: Delete (if it is gone and its state stayed: 'clustersync reset', see docs/resource.md), then change spec.requests.retry; or create another ClusterSync with another scope.",
        by hand "Finalize the sync that holds it, or forget it with 'clustersync reset --sync-id', then resume with fromFailure ('clustersync resume --from-failure'); or restart 'clustersync serve' with --reset-state, and start with other namespaces.";
    /// Something in scope that is not supported.
    Unsupported => Stop, "Create another ClusterSync whose scope excludes it; what initialSync.skipUnsupported names can be left out by that.",
        by hand "Restart 'clustersync serve' with --reset-state, and start with it in excludeNamespaces (time-series collections: or with skipUnsupported).";
    /// A fresh owner holds the sync.
    OwnedElsewhere => Transient, "Wait: it is taken over once the present owner stops or falls silent.",
        by hand "Ask the process that holds it, or wait: it is taken over once that one stops or falls silent.";
    /// As many syncs as may are cloning in this process.
    Queued => Transient, "Wait: it begins when another clone has ended (the operator's --max-clones).",
        by hand "Wait: it begins when another clone has ended.";
    /// A new owner took over while we ran.
    OwnershipLost => Transient, "None: the other owner goes on.";
    /// The source's oplog no longer reaches back to the checkpoint.
    OplogLost => Stop, "Change spec.requests.restart to clone anew (with initialSync.onExistingData: Drop), and enlarge the source's oplog (replSetResizeOplog) so that it outlasts a pause.",
        by hand "Restart 'clustersync serve' with --reset-state and start again, which clones anew; and enlarge the source's oplog (replSetResizeOplog) so that it outlasts a pause.";
    /// The replica set behind the source is not the recorded one.
    SourceReplaced => Stop, "Point the source back to the recorded replica set, or create a new sync.",
        by hand "Restart 'clustersync serve' with the recorded replica set as --source; or, for a new sync, with --reset-state, and start again.";
    /// The source's history no longer holds the checkpoint.
    SourceRewound => Stop, "The source was restored or rolled back past the checkpoint: change spec.requests.restart to clone anew.",
        by hand "The source was restored or rolled back past the checkpoint: restart 'clustersync serve' with --reset-state and start again, which clones anew.";
    /// The replica set behind the target is not the recorded one.
    TargetChanged => Stop, "Point the target back to the recorded replica set, or create a new sync.",
        by hand "Restart 'clustersync serve' with the recorded replica set as --target; or, for a new sync, with --reset-state, and start again.";
    /// The scope differs from the recorded one.
    ScopeChanged => Stop, "The syncID belongs to a sync with another scope: create the ClusterSync with that scope, or with another syncID.",
        by hand "Restart 'clustersync serve' with --reset-state and start again, which clones anew.";
    /// The durable state is missing, foreign or of a newer format.
    StateMismatch => Stop, "Use the sync id that wrote it, or a clustersync that knows its format; or remove the state ('clustersync reset', see docs/resource.md).",
        by hand "Use the --sync-id that wrote it or a clustersync that knows its format; or restart 'clustersync serve' with --reset-state and start again, which clones anew.";
    /// A DDL event that this version cannot follow.
    UnsupportedEvent => Stop, "Exclude the namespace in a new sync, or undo the change and clone anew.",
        by hand "Restart 'clustersync serve' with --reset-state and start again, which clones anew, with the namespace in excludeNamespaces or after the change was undone.";
    /// The target does not hold what it must.
    TargetDiverged => Stop, "Something else wrote to the target, or dropped from it: clone anew.",
        by hand "Something else wrote to the target, or dropped from it: restart 'clustersync serve' with --reset-state and start again, which clones anew.";
    /// The server refused a write in a way that no retry mends.
    WriteRefused => Stop, "See the server's message; correct the target, then change spec.requests.retry.",
        by hand "See the server's message; correct the target, then resume with fromFailure ('clustersync resume --from-failure').";
    /// A primary changed, a connection broke, a transaction was aborted.
    Interrupted => Transient, "None: it is tried again.";
    /// A document is larger than can be handled.
    EventTooLarge => Stop, "A change does not fit into a message of the server even without its document (an _id of several MB): exclude the collection in a new sync.",
        by hand "A change does not fit into a message of the server even without its document (an _id of several MB): restart 'clustersync serve' with --reset-state and start again, with the collection in excludeNamespaces.";
    /// The engine itself failed; a bug.
    Internal => Transient, "Report it with the log: https://github.com/clustersync/clustersync/issues";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of the engine: a reason and a sentence that names what it happened to. It never carries a
/// document, a URI or a password.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    reason: Reason,
    message: String,
    code: Option<i32>,
}

impl Error {
    /// `message` must not contain documents or secrets.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), code: None }
    }

    /// With the server's error code.
    #[must_use]
    pub fn with_code(mut self, code: Option<i32>) -> Self {
        self.code = code;
        self
    }

    /// Put what was being done before the message.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The same failure seen as another reason.
    #[must_use]
    pub fn as_reason(mut self, reason: Reason) -> Self {
        self.reason = reason;
        self
    }

    /// Why.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// What to do about it.
    pub const fn class(&self) -> Class {
        self.reason.class()
    }

    /// The server's code, if a server said it.
    pub const fn code(&self) -> Option<i32> {
        self.code
    }

    /// What happened and what to do, for a person.
    pub fn explain(&self) -> String {
        let by_hand = BY_HAND.load(Ordering::Relaxed);
        let remedy = if by_hand { self.reason.remedy_by_hand() } else { self.reason.remedy() };
        format!("{} {remedy}", sentence(&self.message))
    }
}

fn sentence(message: &str) -> String {
    let trimmed = message.trim_end();
    if trimmed.ends_with(['.', '!', '?']) { trimmed.to_owned() } else { format!("{trimmed}.") }
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_steers_by_hand_is_not_told_of_resources() {
        for reason in Reason::ALL {
            let remedy = reason.remedy_by_hand();
            for word in ["spec.", "requests.", "initialSync.", "Secret", "operator", "delete", "create a"] {
                assert!(!remedy.contains(word), "{reason}: {remedy}");
            }
            if reason.class() == Class::Stop {
                let ways = ["clustersync serve", "--from-failure", "--sync-id"];
                assert!(ways.iter().any(|way| remedy.contains(way)), "{reason} has no way out: {remedy}");
            }
        }
    }
}
