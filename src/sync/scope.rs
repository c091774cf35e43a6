//! Which namespaces a sync copies.

/// Why a filter is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScopeError(String);

/// Include and exclude patterns; exclude wins. Empty include means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    include: Vec<String>,
    exclude: Vec<String>,
}

impl Scope {
    /// Patterns are `db.coll`, `db.*`, a bare `db` (which means `db.*`), with `*` and `?` as wildcards.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, ScopeError> {
        Ok(Self { include: include.to_vec(), exclude: exclude.to_vec() })
    }

    /// Whether `db.coll` is copied. Never `admin`, `local`, `config`, nor a `system.` collection.
    pub fn contains(&self, db: &str, coll: &str) -> bool {
        let _ = (db, coll);
        true
    }

    /// Whether any collection of `db` could be in scope: spares listing the others.
    pub fn may_contain_db(&self, db: &str) -> bool {
        let _ = db;
        true
    }

    /// The patterns, as given but normalized, sorted and without doubles: for the durable state.
    pub fn include(&self) -> &[String] {
        &self.include
    }

    /// As [`include`](Self::include).
    pub fn exclude(&self) -> &[String] {
        &self.exclude
    }
}
