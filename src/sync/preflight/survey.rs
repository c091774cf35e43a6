//! What the source is at the beginning of a new sync: a token, and the catalogue at that time. Nothing is written.

use futures::StreamExt;
use mongodb::bson::{Timestamp, doc};

use super::{Found, foreign, listed};
use crate::sync::catalog::bounds::{self, Early};
use crate::sync::catalog::{options, read};
use crate::sync::config::SyncConfig;
use crate::sync::endpoint::identity::last_writes;
use crate::sync::endpoint::{Endpoint, oplog};
use crate::sync::error::{Error, Reason, Result};
use crate::sync::namespace::Namespace;
use crate::sync::stream::reader;

/// Sizes that are asked for at a time.
const ESTIMATES: usize = 8;

/// The source as a plan needs it.
#[derive(Debug)]
pub struct Survey {
    /// From where the stream is read.
    pub token: String,
    /// The token's time.
    pub time: Timestamp,
    /// What is in scope, at that time.
    pub catalogue: read::SourceCatalog,
    /// How large each collection is.
    pub sizes: Vec<read::Size>,
    /// Where the catalogue was read piecemeal: its newest part is of this time.
    pub listed_until: Option<Timestamp>,
    /// Names the source's history at the token's time.
    pub witness: Option<oplog::Witness>,
    /// Databases in scope that hold the state of other syncs.
    pub reserved: Vec<String>,
    /// What a user should know.
    pub warnings: Vec<String>,
    /// Where the first large collection can be divided.
    pub early: Early,
}

/// Look at the source. Fails with `SyncLoop` if a sync writes to it from the target, with `Unsupported` if something
/// in scope cannot be followed.
pub async fn survey(config: &SyncConfig, source: &Endpoint, found: &Found) -> Result<Survey> {
    let mut warnings = Vec::new();
    let mut reserved = foreign::state_databases(source).await?;
    foreign::check_loop(source, &reserved, &found.target).await?;
    reserved.retain(|db| config.scope.may_contain_db(db));
    let scope = reserved.iter().fold(config.scope.clone(), |scope, db| scope.with_reserved(db));
    let (token, time) = reader::start(source, &scope).await?;
    let catalogue = read::read(source, &scope, time).await?;
    if !catalogue.unsupported.is_empty() {
        let names = catalogue.unsupported.iter().map(|one| format!("{} ({})", one.namespace, one.what));
        let names = listed(names);
        if !config.initial_sync.skip_unsupported {
            return Err(Error::new(Reason::Unsupported, format!("not supported: {names}")));
        }
        tracing::warn!("left out, since not supported: {names}");
        warnings.push(format!("left out, since not supported: {names}"));
    }
    if catalogue.piecemeal {
        warnings.push(
            "the source does not offer $listCatalog: its catalogue was read collection by collection"
                .to_owned(),
        );
    }
    let listed_until = if catalogue.piecemeal {
        let hello = source.command("admin", doc! {"hello": 1}).await?;
        last_writes(&hello).map(|(newest, _)| newest)
    } else {
        None
    };
    let witness = match oplog::witness_at(source, time).await {
        Ok(witness) => witness,
        Err(error) if error.reason() == Reason::NotAuthorized => {
            warnings.push(oplog::NOT_READABLE.to_owned());
            None
        }
        Err(error) => return Err(error),
    };
    let sizes = sizes(source, &catalogue).await;
    let early = first_large(source, &catalogue, &sizes);
    Ok(Survey { token, time, catalogue, sizes, listed_until, witness, reserved, warnings, early })
}

/// How large each collection is.
async fn sizes(source: &Endpoint, catalogue: &read::SourceCatalog) -> Vec<read::Size> {
    let names: Vec<Namespace> = catalogue.collections.iter().map(|found| found.namespace.clone()).collect();
    futures::stream::iter(names)
        .map(|namespace| {
            let source = source.clone();
            async move { read::estimate(&source, &namespace).await }
        })
        .buffered(ESTIMATES)
        .collect()
        .await
}

/// The clone begins with the first by name: its bounds are looked for while the state is created.
fn first_large(source: &Endpoint, catalogue: &read::SourceCatalog, sizes: &[read::Size]) -> Early {
    let large = catalogue
        .collections
        .iter()
        .zip(sizes.iter().copied())
        .filter(|(one, size)| bounds::is_divided(*size) && !options::is_capped(one.options.as_bytes()));
    match large.min_by_key(|(one, _)| one.namespace.to_string()) {
        Some((first, size)) => Early::look(source, first.uuid, first.namespace.clone(), size),
        None => Early::default(),
    }
}
