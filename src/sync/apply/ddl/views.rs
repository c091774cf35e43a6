//! Views: they have names and no UUIDs, and hold no data, so that one is simply made anew.

use std::sync::Arc;

use mongodb::bson::doc;

use super::Ddl;
use crate::sync::catalog::{create, read};
use crate::sync::error::Result;
use crate::sync::namespace::Namespace;
use crate::sync::state::record::binary;
use crate::sync::state::store::VIEWS;
use crate::sync::state::{ViewRecord, claims};
use crate::sync::stream::{Event, Kind};

impl Ddl {
    pub(super) async fn create_view(&mut self, event: &Event<'_>) -> Result<()> {
        let options = event.description.unwrap_or_default();
        if let Some(what) = read::unsupported(options) {
            return self.leave_out(event, what);
        }
        let namespace = event.namespace();
        let catalog = Arc::clone(&self.ctx.catalog);
        let _ddl = catalog.ddl.write().await;
        claims::check(&self.ctx.store, std::slice::from_ref(&namespace)).await?;
        let known = catalog.views().contains_key(&namespace.to_string());
        if !known {
            match create::existing(&self.ctx.target, &namespace).await? {
                create::Existing::Nothing => {}
                create::Existing::View if self.is_begun(event) => {}
                create::Existing::Collection(found) if catalog.is_ours(found) => {
                    return self.of_the_past(event).await;
                }
                found => self.clear(&namespace, found).await?,
            }
        }
        self.intend(event).await?;
        create::create_view(&self.ctx.target, &namespace, options).await?;
        let record =
            ViewRecord { created: true, ..ViewRecord::new(self.ctx.store.sync(), &namespace, options) };
        let mut operations = self.claim(&namespace)?;
        operations.push(self.ctx.store.put(VIEWS, std::slice::from_ref(&record))?);
        self.record_claim(event, operations, &namespace).await?;
        tracing::info!(%namespace, "view created");
        catalog.views().insert(record.namespace.clone(), record);
        Ok(())
    }

    pub(super) async fn of_view(&mut self, event: &Event<'_>) -> Result<()> {
        let namespace = event.namespace();
        let catalog = Arc::clone(&self.ctx.catalog);
        let _ddl = catalog.ddl.write().await;
        let Some(view) = catalog.views().get(&namespace.to_string()).cloned() else { return Ok(()) };
        if event.kind == Kind::Drop {
            return self.forget_views(event, vec![view]).await;
        }
        self.intend(event).await?;
        let options = event.description.unwrap_or_default();
        if view.created {
            create::create_view(&self.ctx.target, &namespace, options).await?;
        }
        let view = ViewRecord { options: binary(options), ..view };
        self.record(event, vec![self.ctx.store.put(VIEWS, std::slice::from_ref(&view))?]).await?;
        tracing::info!(%namespace, "view changed");
        catalog.views().insert(view.namespace.clone(), view);
        Ok(())
    }

    pub(super) async fn drop_views(&mut self, event: &Event<'_>) -> Result<()> {
        let catalog = Arc::clone(&self.ctx.catalog);
        let _ddl = catalog.ddl.write().await;
        let inside = |view: &&ViewRecord| {
            Namespace::parse(&view.namespace).is_some_and(|namespace| namespace.db == event.db)
        };
        let views: Vec<ViewRecord> = catalog.views().values().filter(inside).cloned().collect();
        if views.is_empty() {
            return Ok(());
        }
        self.forget_views(event, views).await?;
        create::drop_view_catalogue(&self.ctx.target, event.db).await
    }

    async fn forget_views(&mut self, event: &Event<'_>, views: Vec<ViewRecord>) -> Result<()> {
        self.intend(event).await?;
        let mut operations = Vec::new();
        for view in &views {
            let Some(namespace) = Namespace::parse(&view.namespace) else { continue };
            if create::existing(&self.ctx.target, &namespace).await? == create::Existing::View {
                self.ctx.store.prove().await?;
                create::drop_view(&self.ctx.target, &namespace).await?;
            }
            operations.push(self.ctx.store.remove(VIEWS, doc! {"_id": &view.id})?);
            operations.push(claims::release(&self.ctx.store, std::slice::from_ref(&namespace))?);
        }
        self.record(event, operations).await?;
        for view in &views {
            tracing::info!(namespace = view.namespace, "view dropped");
            self.ctx.catalog.views().remove(&view.namespace);
        }
        Ok(())
    }
}
