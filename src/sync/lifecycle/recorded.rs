//! What is recorded against what is configured and found.

use crate::sync::config::{Desired, SyncConfig};
use crate::sync::endpoint::identity::Identity;
use crate::sync::error::{Error, Reason, Result};
use crate::sync::preflight::Found;
use crate::sync::report::{CompletionReport, Report};
use crate::sync::state::record::FORMAT;
use crate::sync::state::{Stage, SyncRecord};

/// Whether the user asks to clone anew and that was not done yet. A token of another resource, or none, is no request.
pub fn restart_asked(record: &SyncRecord, config: &SyncConfig, wanted: &Desired) -> bool {
    record.stage != Stage::Planning
        && record.resource_uid == config.resource_uid
        && !wanted.restart.is_empty()
        && wanted.restart != record.handled_restart
}

/// A newer version writes what this one does not know; what an older one wrote is understood.
pub fn check_format(record: &SyncRecord) -> Result<()> {
    if !(1..=FORMAT).contains(&record.format) {
        return Err(Error::new(
            Reason::StateMismatch,
            format!("the durable state has format {}, this version knows {FORMAT}", record.format),
        ));
    }
    Ok(())
}

/// Both ends must be the recorded ones.
pub fn check_identity(record: &SyncRecord, found: &Found) -> Result<()> {
    check_format(record)?;
    if record.source.set_id != found.source.set_id {
        return Err(Error::new(
            Reason::SourceReplaced,
            format!(
                "the source is replica set '{}' ({}), the recorded one was '{}' ({})",
                found.source.set_name, found.source.set_id, record.source.set_name, record.source.set_id
            ),
        ));
    }
    check_target(record, &found.target)
}

/// The target must be the recorded one.
pub fn check_target(record: &SyncRecord, found: &Identity) -> Result<()> {
    if record.target.set_id != found.set_id {
        return Err(Error::new(
            Reason::TargetChanged,
            format!(
                "the target is replica set '{}' ({}), the recorded one was '{}' ({})",
                found.set_name, found.set_id, record.target.set_name, record.target.set_id
            ),
        ));
    }
    Ok(())
}

/// Tell what is recorded.
pub fn fill(report: &mut Report, record: &SyncRecord) {
    report.handled_retry.clone_from(&record.handled_retry);
    report.handled_restart.clone_from(&record.handled_restart);
    report.initial_sync.started_at = record.started_at;
    report.initial_sync.cloned_at = record.cloned_at;
    report.initial_sync.completed_at = record.consistent_at;
    report.completion = record.completion.as_ref().map(|completion| CompletionReport {
        requested_at: completion.requested_at,
        fence: completion.fence.map(Into::into),
        committed_at: completion.committed_at,
        completed_at: completion.completed_at,
        unsuccessful_indexes: Vec::new(),
    });
}
