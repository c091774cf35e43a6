//! `db.coll`.

use std::fmt;

/// A collection's full name. The first dot divides: collection names may hold dots, database names cannot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace {
    /// Database.
    pub db: String,
    /// Collection.
    pub coll: String,
}

impl Namespace {
    /// From its parts.
    pub fn new(db: impl Into<String>, coll: impl Into<String>) -> Self {
        Self { db: db.into(), coll: coll.into() }
    }

    /// From `db.coll`.
    pub fn parse(full: &str) -> Option<Self> {
        let (db, coll) = full.split_once('.')?;
        (!db.is_empty() && !coll.is_empty()).then(|| Self::new(db, coll))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.db, self.coll)
    }
}
