//! Watches the source while a sync runs: its newest write, for the lag, and how far back its oplog reaches.

use std::time::Duration;

use mongodb::bson::doc;

use crate::sync::context::Context;
use crate::sync::endpoint::identity::last_writes;
use crate::sync::endpoint::oplog;
use crate::sync::error::{Reason, Result};

/// How often the newest write is asked for.
const EVERY: Duration = Duration::from_secs(1);

/// Rounds between two looks at the oplog's oldest entry.
const WINDOW_EVERY: u32 = 10;

/// Watch for ever; only an error ends it.
pub async fn watch(ctx: &Context) -> Result<()> {
    let mut may_read_oplog = true;
    for round in 0_u32.. {
        let hello = ctx.source.command_anywhere("admin", doc! {"hello": 1}).await?;
        if let Some((_, majority)) = last_writes(&hello) {
            ctx.progress.update_times(|times| times.source = Some(majority));
            if may_read_oplog && round % WINDOW_EVERY == 0 {
                match oplog::window(&ctx.source, majority).await {
                    Ok(window) => ctx.progress.update_times(|times| {
                        times.oplog_window_seconds =
                            window.and_then(|window| i64::try_from(window.as_secs()).ok());
                    }),
                    Err(error) if error.reason() == Reason::NotAuthorized => may_read_oplog = false,
                    Err(error) => return Err(error),
                }
            }
        }
        ctx.progress.queued_bytes.set(ctx.budgets.clone.used() + ctx.budgets.stream.used());
        tokio::time::sleep(EVERY).await;
    }
    Ok(())
}
