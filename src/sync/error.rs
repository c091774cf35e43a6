//! One error type for the engine, each with a class and a reason that users and alerts can rely on.

use std::fmt;

/// What the engine does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Try again with backoff; nothing is lost.
    Transient,
    /// Stop and explain: only a person can change the outcome.
    Stop,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $class:ident, $remedy:literal;)*) => {
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

            /// What a person can do.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

reasons! {
    /// The configuration cannot be used.
    InvalidConfiguration => Stop, "Correct the named field.";
    /// A Secret, ConfigMap or key is missing.
    CredentialsMissing => Transient, "Create the named Secret, ConfigMap or key; it is looked at again within a minute.";
    /// Names resolve, but nothing answers.
    SourceUnreachable => Transient, "Check the host names, ports, TLS and network policies of the source.";
    /// As `SourceUnreachable`.
    TargetUnreachable => Transient, "Check the host names, ports, TLS and network policies of the target.";
    /// User name, password or mechanism refused.
    AuthenticationFailed => Transient, "Correct the credentials; they are tried again.";
    /// A right is missing.
    NotAuthorized => Stop, "Grant the named privilege, then change spec.requests.retry.";
    /// A standalone or a mongos.
    NotAReplicaSet => Stop, "Point to a replica set: standalones and mongos are not supported.";
    /// Server too old, or target older than source.
    UnsupportedVersion => Stop, "Use MongoDB 6.0 or newer, and a target not older than the source.";
    /// Both ends are one replica set.
    SameReplicaSet => Stop, "Point source and target to different replica sets.";
    /// Another sync writes from this target to this source.
    SyncLoop => Stop, "Complete or delete the sync of the opposite direction first.";
    /// Collections in scope exist on the target.
    TargetNotEmpty => Stop, "Drop them, exclude them, or set initialSync.onExistingData to Drop.";
    /// Another sync holds a target namespace.
    TargetInUse => Stop, "Complete or delete the sync that holds it, or change the scope.";
    /// Something in scope that is not supported.
    Unsupported => Stop, "Exclude it in spec.scope.";
    /// A fresh owner holds the sync.
    OwnedElsewhere => Transient, "Wait: it is taken over once the present owner stops or falls silent.";
    /// As many syncs as may are cloning in this process.
    Queued => Transient, "Wait: it begins when another clone has ended (the operator's --max-clones).";
    /// A new owner took over while we ran.
    OwnershipLost => Transient, "None: the other owner goes on.";
    /// The source's oplog no longer reaches back to the checkpoint.
    OplogLost => Stop, "Change spec.requests.restart to clone anew (with initialSync.onExistingData: Drop), and enlarge the source's oplog (replSetResizeOplog) so that it outlasts a pause.";
    /// The replica set behind the source is not the recorded one.
    SourceReplaced => Stop, "Point the source back to the recorded replica set, or create a new sync.";
    /// The source's history no longer holds the checkpoint.
    SourceRewound => Stop, "The source was restored or rolled back past the checkpoint: change spec.requests.restart to clone anew.";
    /// The replica set behind the target is not the recorded one.
    TargetChanged => Stop, "Point the target back to the recorded replica set, or create a new sync.";
    /// The scope differs from the recorded one.
    ScopeChanged => Stop, "Set the scope back, or create a new sync.";
    /// The durable state is missing, foreign or of a newer format.
    StateMismatch => Stop, "Use the sync id that wrote it, a clustersync that knows its format, or delete the state.";
    /// A DDL event that this version cannot follow.
    UnsupportedEvent => Stop, "Exclude the namespace in a new sync, or undo the change and clone anew.";
    /// The target does not hold what it must.
    TargetDiverged => Stop, "Something else wrote to the target, or dropped from it: clone anew.";
    /// The server refused a write in a way that no retry mends.
    WriteRefused => Stop, "See the server's message; correct the target, then change spec.requests.retry.";
    /// A primary changed, a connection broke, a transaction was aborted.
    Interrupted => Transient, "None: it is tried again.";
    /// A document is larger than can be handled.
    EventTooLarge => Stop, "A change does not fit into a message of the server even without its document (an _id of several MB): exclude the collection in a new sync.";
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
        format!("{} {}", sentence(&self.message), self.reason.remedy())
    }
}

fn sentence(message: &str) -> String {
    let trimmed = message.trim_end();
    if trimmed.ends_with(['.', '!', '?']) { trimmed.to_owned() } else { format!("{trimmed}.") }
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
