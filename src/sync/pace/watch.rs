//! Measures both ends while a sync runs: a small read at the source, and what its members and the target's lack.

use std::future::IntoFuture;
use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};
use tokio::time::Instant;

use super::overdue::Overdue;
use super::{Measured, Pace, Room};
use crate::sync::context::Context;
use crate::sync::endpoint::Endpoint;
use crate::sync::endpoint::client::Side;
use crate::sync::endpoint::identity::last_writes;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Small reads in one look, of which the median counts: one slow answer is chance.
const READS: u32 = 5;

/// What takes longer counts as this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Let go of what is held back when nobody watches any more.
struct Release<'a>(&'a Pace);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Watch for ever. What cannot be measured is no error: whoever needs the server finds out.
pub async fn watch(ctx: &Context) {
    let limits = &ctx.config.limits;
    let _release = Release(&ctx.pace);
    let mut probe = None;
    let (mut source, mut target) = (Overdue::default(), Overdue::default());
    loop {
        let next = Instant::now() + EVERY;
        let copied = ctx.catalog.is_copied();
        let mut measured = Measured::default();
        if !limits.max_source_latency.is_zero() && !copied {
            measured.source_latency = latency(ctx, &mut probe, next).await;
        }
        if !limits.max_replication_lag.is_zero() {
            (measured.source_lag, measured.target_lag) =
                tokio::join!(source_lag(&ctx.source, &mut source), target_lag(&ctx.target, &mut target));
        }
        ctx.pace.observe(&measured, Room::of(!copied, ctx.progress.times()));
        tokio::time::sleep_until(next).await;
    }
}

/// How long the source takes for a read by `_id`, from here, the network included. On a client of its own: a connection
/// that the clone uses, or waits for, would measure the clone.
async fn latency(ctx: &Context, probe: &mut Option<Endpoint>, until: Instant) -> Option<Duration> {
    if probe.is_none() {
        *probe = Endpoint::connect(Side::Source, &ctx.config.source).await.ok();
        // Its first answer has the time in it that connecting took.
        read(ctx, probe.as_ref()?).await;
    }
    let endpoint = probe.as_ref()?;
    let mut took = Vec::new();
    for number in 1..=READS {
        took.extend(read(ctx, endpoint).await);
        if Instant::now() >= until {
            break;
        }
        let left = until.saturating_duration_since(Instant::now());
        tokio::time::sleep(left / (READS + 1 - number)).await;
    }
    took.sort();
    took.get(took.len().saturating_sub(1) / 2).copied()
}

async fn read(ctx: &Context, endpoint: &Endpoint) -> Option<Duration> {
    let collection = ctx.catalog.any_present()?.record().source_namespace();
    // No document has this `_id`: it goes through the index and sends nothing.
    let find = doc! {
        "find": &collection.coll,
        "filter": {"_id": Bson::MaxKey},
        "limit": 1,
        "singleBatch": true,
    };
    let began = Instant::now();
    match tokio::time::timeout(PATIENCE, by_preference(endpoint, &collection.db, find)).await {
        Ok(answer) => answer.map(|_| began.elapsed()),
        Err(_) => Some(PATIENCE),
    }
}

/// A command where the clone reads.
async fn by_preference(endpoint: &Endpoint, db: &str, command: Document) -> Option<Document> {
    let database = endpoint.client().database(db);
    database.run_command(command).selection_criteria(endpoint.read_criteria()).into_future().await.ok()
}

async fn hello_of_primary(endpoint: &Endpoint) -> Option<Document> {
    let hello = endpoint.command_anywhere("admin", doc! {"hello": 1});
    tokio::time::timeout(PATIENCE, hello).await.ok()?.ok()
}

/// Of the majority, and of the member that is read.
async fn source_lag(endpoint: &Endpoint, overdue: &mut Overdue) -> Option<Duration> {
    let (newest, majority) = last_writes(&hello_of_primary(endpoint).await?)?;
    let member = by_preference(endpoint, "admin", doc! {"hello": 1});
    let member = tokio::time::timeout(PATIENCE, member).await.ok().flatten();
    let (applied, _) = last_writes(&member?)?;
    Some(overdue.observe(newest, majority.min(applied), Instant::now()))
}

/// Of the majority: what fewer lack is neither waited for by our checkpoints nor lost in a failover.
async fn target_lag(endpoint: &Endpoint, overdue: &mut Overdue) -> Option<Duration> {
    let (newest, majority) = last_writes(&hello_of_primary(endpoint).await?)?;
    Some(overdue.observe(newest, majority, Instant::now()))
}
