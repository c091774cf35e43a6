//! What was deleted from capped collections while these were scanned: a document that comes back during the scan is in one
//! of two places of the copy, and nothing says in which.

use std::collections::{HashMap, HashSet};

use mongodb::bson::Uuid;

use crate::sync::stream::Kind;

/// Deletes of a collection that are remembered at a time. Most are evictions: what is evicted does not come back, and what
/// comes back after so many others is near its own eviction, wherever it stands.
const MOST: usize = 1_000_000;

/// Documents, by the hash of collection and key.
#[derive(Debug, Default)]
pub struct Deleted(HashMap<Uuid, HashSet<u64>>);

impl Deleted {
    /// Take note of an event of a capped collection; whether the order of its copy is not the source's any more, so that it
    /// has to be copied again. `replay` tells that the event may be in what was scanned.
    pub fn is_order_lost(&mut self, kind: Kind<'_>, collection: Uuid, hash: u64, replay: bool) -> bool {
        if !replay {
            self.0.remove(&collection);
            return false;
        }
        match kind {
            Kind::Delete => {
                let deleted = self.0.entry(collection).or_default();
                if deleted.len() >= MOST {
                    deleted.clear();
                }
                deleted.insert(hash);
                false
            }
            Kind::Insert if self.0.get(&collection).is_some_and(|deleted| deleted.contains(&hash)) => {
                // The next scan begins later than all of them.
                self.0.remove(&collection);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_during_the_scan_is_noticed_once() {
        let (one, other) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        let mut deleted = Deleted::default();
        assert!(!deleted.is_order_lost(Kind::Insert, one, 7, true), "it was there first");
        assert!(!deleted.is_order_lost(Kind::Delete, one, 7, true));
        assert!(!deleted.is_order_lost(Kind::Update, one, 7, true));
        assert!(!deleted.is_order_lost(Kind::Insert, other, 7, true), "of another collection");
        assert!(deleted.is_order_lost(Kind::Insert, one, 7, true));
        assert!(!deleted.is_order_lost(Kind::Insert, one, 7, true), "it is copied again");
    }

    #[test]
    fn what_was_scanned_before_it_was_deleted_is_in_one_place() {
        let one = Uuid::from_bytes([1; 16]);
        let mut deleted = Deleted::default();
        deleted.is_order_lost(Kind::Delete, one, 7, true);
        assert!(!deleted.is_order_lost(Kind::Delete, one, 8, false));
        assert!(!deleted.is_order_lost(Kind::Insert, one, 7, true), "the scan is over");
        assert!(deleted.0.is_empty());
    }

    #[test]
    fn evictions_are_remembered_in_bounded_memory() {
        let one = Uuid::from_bytes([1; 16]);
        let mut deleted = Deleted::default();
        for hash in 0..=MOST as u64 {
            deleted.is_order_lost(Kind::Delete, one, hash, true);
        }
        assert_eq!(deleted.0[&one].len(), 1);
    }
}
