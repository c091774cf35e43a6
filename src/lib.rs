//! Keep a target MongoDB replica set in step with a source: clone once, then stream every change,
//! until the user cuts over.
//!
//! # What is promised
//! 1. **Exact.** While streaming, every document in scope on the target is at or after the reported time;
//!    drained to a fence, the target holds exactly the bytes that the source held then.
//! 2. **Nothing lost, nothing doubled.** Killed at any instruction, the sync goes on from durable state.
//! 3. **One writer.** The target's own server refuses a stale owner.
//! 4. **The source is only read.**
//! 5. **Nothing is dropped unasked.**
//! 6. **No silent gap.** What cannot be honoured stops the sync with a reason and what to do.
//! 7. **Bounded memory.** Queues are bounded in bytes.
//!
//! # Map
//! `cli` → `operator`, `service` → `resource` → `api`, [`sync`]. No other way round; [`sync`] is the engine
//! and knows neither Kubernetes nor HTTP. `docs/architecture.md` has the picture.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod api;
pub mod cli;
pub mod operator;
pub mod resource;
pub mod service;
pub mod sync;
pub mod telemetry;
