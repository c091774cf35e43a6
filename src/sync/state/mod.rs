//! The durable state, on the target, in a database of its own: who owns the sync, how far each partition and
//! each lane has come, what the catalogue was, what is deferred.
//!
//! | collection | one document per | changed by |
//! |---|---|---|
//! | `owners` | sync | taking, renewing and releasing ownership |
//! | `syncs` | sync | fenced transactions on itself: phase, checkpoint, handled requests |
//! | `collections`, `indexes`, `views` | source collection, index, view | fenced transactions on the sync |
//! | `slots` | partition, lane | the transaction that writes the slot's data |
//! | `claims` | target namespace | fenced transactions on the sync |
//! | `wishes` | sync without Kubernetes | its control API |

pub mod claims;
pub mod owner;
pub mod record;
pub mod slot;
pub mod store;
pub mod transaction;
pub mod wish;
pub mod writer;

pub use record::{CollectionRecord, CollectionState, IndexRecord, IndexState, Stage, SyncRecord, ViewRecord};
pub use slot::{Refusal, Slot};
pub use store::Store;
pub use transaction::Operation;
