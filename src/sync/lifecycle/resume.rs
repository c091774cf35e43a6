//! How an attempt begins once the sync is owned: with what is recorded, or with a plan.

use mongodb::bson::doc;

use super::attempt::{Attempt, Ends};
use super::recorded::{check_identity, restart_asked};
use crate::sync::catalog::bounds::Early;
use crate::sync::config::Desired;
use crate::sync::endpoint::{Endpoint, oplog};
use crate::sync::error::{Error, Reason, Result};
use crate::sync::preflight::former::Former;
use crate::sync::preflight::plan;
use crate::sync::preflight::survey::{self, Survey};
use crate::sync::report::Phase;
use crate::sync::state::{Stage, Store, SyncRecord};

impl Attempt<'_> {
    /// Go on from what is recorded, or begin: anew, where the user asks for it.
    pub(super) async fn resume_or_plan(
        &self,
        ends: &Ends,
        store: &Store,
        wanted: &Desired,
        before: Option<SyncRecord>,
        survey: Option<Result<Survey>>,
    ) -> Result<(SyncRecord, Early)> {
        let mut warnings = ends.found.warnings.clone();
        let (record, early) = match before {
            Some(record) if restart_asked(&record, self.config, wanted) => {
                check_identity(&record, &ends.found)?;
                tracing::warn!("a restart was asked for: forgetting this sync's state and cloning anew");
                let former = Former::load(store, &record).await?;
                self.plan(ends, store, wanted, survey, &former, &mut warnings).await?
            }
            Some(record) if record.stage != Stage::Planning => {
                check_identity(&record, &ends.found)?;
                self.check_scope(&record)?;
                // Before its history is looked at: else a restart, which mends a lost one, could never be asked for.
                let record = self.adopt(store, record, wanted).await?;
                check_history(&ends.source, &record, &mut warnings).await?;
                (self.handle_retry(store, record, wanted).await?, Early::default())
            }
            _ => self.plan(ends, store, wanted, survey, &Former::default(), &mut warnings).await?,
        };
        self.publisher.update(|report| report.warnings = warnings);
        Ok((record, early))
    }

    /// The state was another resource's: its request tokens are recorded, not acted on.
    pub(super) async fn adopt(
        &self,
        store: &Store,
        mut record: SyncRecord,
        wanted: &Desired,
    ) -> Result<SyncRecord> {
        if record.resource_uid == self.config.resource_uid {
            return Ok(record);
        }
        tracing::info!(from = record.resource_uid, "going on with the state of another resource");
        record.resource_uid.clone_from(&self.config.resource_uid);
        wanted.retry.clone_into(&mut record.handled_retry);
        wanted.restart.clone_into(&mut record.handled_restart);
        let set = doc! {
            "resourceUid": &record.resource_uid, "handledRetry": &wanted.retry, "handledRestart": &wanted.restart,
        };
        store.write(vec![store.update_sync(set)?]).await?;
        Ok(record)
    }

    async fn plan(
        &self,
        ends: &Ends,
        store: &Store,
        wanted: &Desired,
        survey: Option<Result<Survey>>,
        former: &Former,
        warnings: &mut Vec<String>,
    ) -> Result<(SyncRecord, Early)> {
        let Ends { source, found, .. } = ends;
        self.publisher.enter(Phase::Preflight, "checking both ends");
        let survey = match survey {
            Some(survey) => survey?,
            None => survey::survey(self.config, source, found).await?,
        };
        let (record, more) = plan::plan(self.config, source, store, found, wanted, &survey, former).await?;
        warnings.extend(more);
        Ok((record, survey.early))
    }

    fn check_scope(&self, record: &SyncRecord) -> Result<()> {
        let scope = &self.config.scope;
        if record.include == scope.include() && record.exclude == scope.exclude() {
            return Ok(());
        }
        Err(Error::new(
            Reason::ScopeChanged,
            format!(
                "the scope is not the recorded one (include {:?}, exclude {:?})",
                record.include, record.exclude
            ),
        ))
    }

    pub(super) async fn handle_retry(
        &self,
        store: &Store,
        mut record: SyncRecord,
        wanted: &Desired,
    ) -> Result<SyncRecord> {
        if wanted.retry.is_empty() || record.handled_retry == wanted.retry {
            return Ok(record);
        }
        wanted.retry.clone_into(&mut record.handled_retry);
        let mut set = doc! {"handledRetry": &wanted.retry};
        if record.stage == Stage::Completed {
            record.stage = Stage::Restoring;
            set.insert("stage", "Restoring");
        }
        store.write(vec![store.update_sync(set)?]).await?;
        Ok(record)
    }
}

/// The history that the checkpoint belongs to must still be there.
async fn check_history(source: &Endpoint, record: &SyncRecord, warnings: &mut Vec<String>) -> Result<()> {
    let Some(witness) = record.witness else { return Ok(()) };
    match oplog::check_witness(source, oplog::Witness { time: witness.time, term: witness.term }).await {
        Err(error) if error.reason() == Reason::NotAuthorized => {
            warnings.push(oplog::NOT_READABLE.to_owned());
            Ok(())
        }
        other => other,
    }
}
