//! What the parts of one run share.

use std::sync::Arc;

use super::catalog::Catalog;
use super::catalog::bounds::Early;
use super::catalog::build::Builder;
use super::config::SyncConfig;
use super::endpoint::Endpoint;
use super::lookups::Lookups;
use super::pace::Pace;
use super::progress::Progress;
use super::share::Budgets;
use super::state::Store;
use super::throttle::Throttle;
use super::writers::Writers;

/// Bytes that the clone's batches may hold. Apart from the stream's, since the stream waits for the clone.
pub const CLONE_BYTES: u64 = 32 << 20;

/// Bytes that the stream's batches may hold: what waits for a lane's turn, and makes its next batch a large one.
pub const STREAM_BYTES: u64 = 18 << 20;

/// Bytes that commands on their way to the target may hold.
pub const WRITE_BYTES: u64 = 64 << 20;

/// How often a command's bytes are in memory while it is sent: as built, as kept for a retry, and in the driver's
/// message, whose buffer grows by doubling.
pub const COPIES: u64 = 4;

/// One run of a sync, by its owner.
#[derive(Clone, Debug)]
pub struct Context {
    /// What was asked for.
    pub config: Arc<SyncConfig>,
    /// Where data comes from.
    pub source: Endpoint,
    /// Where data goes.
    pub target: Endpoint,
    /// The durable state.
    pub store: Store,
    /// What many ask at a time.
    pub lookups: Arc<Lookups>,
    /// The collections in scope.
    pub catalog: Arc<Catalog>,
    /// Where the first large collection can be divided.
    pub early: Arc<Early>,
    /// Index builds.
    pub builder: Arc<Builder>,
    /// Live numbers.
    pub progress: Arc<Progress>,
    /// What queues and commands on their way may hold: few large documents at a time, many small ones.
    pub budgets: Budgets,
    /// How much the target works on at a time.
    pub writers: Arc<Writers>,
    /// What the clone may read a second.
    pub throttle: Arc<Throttle>,
    /// Slows down what loads an end too much.
    pub pace: Arc<Pace>,
}
