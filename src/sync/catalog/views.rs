//! Views on the target: created once, then followed by their events.

use super::create::{self, Existing};
use crate::sync::config::OnExistingData;
use crate::sync::context::Context;
use crate::sync::error::Result;
use crate::sync::namespace::Namespace;
use crate::sync::state::ViewRecord;
use crate::sync::state::store::VIEWS;

/// Create what is recorded and not there yet. A view's base need not exist, so that any order will do.
pub async fn create_missing(ctx: &Context) -> Result<()> {
    let waiting: Vec<String> = {
        let views = ctx.catalog.views();
        views.values().filter(|view| !view.created).map(|view| view.namespace.clone()).collect()
    };
    let drops = ctx.config.initial_sync.on_existing_data == OnExistingData::Drop;
    for name in waiting {
        let _ddl = ctx.catalog.ddl.write().await;
        // Dropped or created by an event meanwhile.
        let Some(view) = ctx.catalog.views().get(&name).filter(|view| !view.created).cloned() else {
            continue;
        };
        let Some(namespace) = Namespace::parse(&name) else { continue };
        let found = create::existing(&ctx.target, &namespace).await?;
        if matches!(found, Existing::Collection(found) if drops && !ctx.catalog.is_ours(found)) {
            // After the look: what is found later may be a new owner's.
            ctx.store.prove().await?;
            tracing::warn!(%namespace, "dropping what stands on the target, as onExistingData: Drop asks: it is a view on the source");
            create::drop_existing(&ctx.target, &namespace, found).await?;
        }
        create::create_view(&ctx.target, &namespace, &view.options.bytes).await?;
        let view = ViewRecord { created: true, ..view };
        ctx.store.write(vec![ctx.store.put(VIEWS, std::slice::from_ref(&view))?]).await?;
        ctx.catalog.views().insert(name, view);
        tracing::info!(%namespace, "view created");
    }
    Ok(())
}
