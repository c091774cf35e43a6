//! The CEL rules that the apiserver enforces, in one place so that each has its accepted and its rejected
//! case in the tests.
//!
//! No field is nullable (see [`crd`](super::crd)), so `has()` is false for null as well.

use kube::core::Rule;

/// An expression and what the user reads when it is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CelRule {
    /// The CEL expression.
    pub expression: &'static str,
    /// The message; it says what to do.
    pub message: &'static str,
}

impl From<CelRule> for Rule {
    fn from(rule: CelRule) -> Self {
        Rule::new(rule.expression).message(rule.message)
    }
}

macro_rules! cel_rules {
    ($($(#[$doc:meta])* $name:ident = $expression:expr, $message:literal;)*) => {
        $($(#[$doc])* pub const $name: CelRule = CelRule { expression: $expression, message: $message };)*

        /// Every rule.
        pub const ALL: &[CelRule] = &[$($name,)*];
    };
}

cel_rules! {
    /// On the root, because a rule on the field itself is skipped when the field is sent as null.
    /// It forbids leaving `Completed` only: where the cutover was committed while the user had already gone
    /// back to `Running`, the status must stay writable.
    COMPLETED_IS_FINAL = "!has(oldSelf.status) || !has(oldSelf.status.completion) \
        || !has(oldSelf.status.completion.committedAt) || oldSelf.spec.state != 'Completed' \
        || self.spec.state == 'Completed'",
        "the cutover is committed (status.completion.committedAt): spec.state must stay Completed; create a new ClusterSync to sync again";

    /// The key of the durable state.
    SYNC_ID_IMMUTABLE = "(has(self.syncID) ? self.syncID : '') == (has(oldSelf.syncID) ? oldSelf.syncID : '')",
        "syncID is immutable: delete the resource and create one with the other syncID";

    /// Where the durable state is.
    METADATA_DATABASE_IMMUTABLE = "(has(self.metadataDatabase) ? self.metadataDatabase : 'clustersync') \
        == (has(oldSelf.metadataDatabase) ? oldSelf.metadataDatabase : 'clustersync')",
        "metadataDatabase is immutable: delete the resource and create another one";

    /// Include and exclude are compared apart, so that an absent list equals an empty one.
    SCOPE_IMMUTABLE = "(has(self.scope) && has(self.scope.include) ? self.scope.include : []) \
        == (has(oldSelf.scope) && has(oldSelf.scope.include) ? oldSelf.scope.include : []) \
        && (has(self.scope) && has(self.scope.exclude) ? self.scope.exclude : []) \
        == (has(oldSelf.scope) && has(oldSelf.scope.exclude) ? oldSelf.scope.exclude : [])",
        "scope is immutable: create another ClusterSync for other namespaces";

    /// Which set is written to. The engine checks in addition that the set behind the address stays the same.
    TARGET_IMMUTABLE = "(has(self.target.uri) ? self.target.uri : '') == (has(oldSelf.target.uri) ? oldSelf.target.uri : '') \
        && has(self.target.uriSecretRef) == has(oldSelf.target.uriSecretRef) \
        && (!has(self.target.uriSecretRef) || (self.target.uriSecretRef.name == oldSelf.target.uriSecretRef.name \
        && self.target.uriSecretRef.key == oldSelf.target.uriSecretRef.key))",
        "target.uri and target.uriSecretRef are immutable: create another ClusterSync for another target, or change the content of the Secret where only hosts or credentials change";

    /// How an endpoint is named.
    ONE_URI = "has(self.uri) != has(self.uriSecretRef)",
        "set exactly one of uri and uriSecretRef";

    /// Whoever may read the resource would read the password.
    NO_CREDENTIALS_IN_URI = "!self.contains('@')",
        "a uri here must not hold credentials ('@'): use credentialsSecretRef, or keep the whole string in a Secret and name it in uriSecretRef";

    /// Where a private CA comes from.
    ONE_CA = "has(self.secretRef) != has(self.configMapRef)",
        "set exactly one of secretRef and configMapRef";

    /// Databases that the server itself uses.
    METADATA_DATABASE_NOT_SYSTEM = "!(self.lowerAscii() in ['admin', 'local', 'config'])",
        "metadataDatabase must not be admin, local or config";

    /// Patterns that could never match.
    SCOPE_NOT_SYSTEM = "self.all(pattern, !(pattern.split('.')[0] in ['admin', 'local', 'config']))",
        "admin, local and config are never copied: remove them from scope";
}
