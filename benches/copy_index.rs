//! Ceilings of a clone with indexes: built once the data are there, or before the first document.

use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};

use crate::bare::Work;
use crate::copy;

/// The indexes of `bench.NAME` but for `_id`, as createIndexes takes them.
pub async fn indexes(source: &Client, name: &str) -> Vec<Document> {
    let answer = source.database("bench").run_command(doc! {"listIndexes": name}).await.unwrap();
    let listed = answer.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
    let listed = listed.iter().filter_map(Bson::as_document);
    listed.filter(|index| !index.get_str("name").is_ok_and(|name| name == "_id_")).cloned().collect()
}

pub async fn create(target: &Client, name: &str, indexes: &[Document]) {
    let create = doc! {"createIndexes": name, "indexes": indexes.to_vec()};
    target.database("bench").run_command(create).await.unwrap();
}

/// `bench bare copy-then-index … NAME int|uuid`
pub async fn after(source: &Client, target: &Client, args: &[String]) -> Work {
    let work = copy::copy(source, target, args).await;
    create(target, &args[0], &indexes(source, &args[0]).await).await;
    work
}

/// `bench bare copy-in-transactions-then-index … NAME int|uuid`
pub async fn after_transactions(source: &Client, target: &Client, args: &[String]) -> Work {
    let work = copy::copy_in_transactions(source, target, args).await;
    create(target, &args[0], &indexes(source, &args[0]).await).await;
    work
}

/// `bench bare copy-into-indexes … NAME int|uuid`
pub async fn before(source: &Client, target: &Client, args: &[String]) -> Work {
    create(target, &args[0], &indexes(source, &args[0]).await).await;
    copy::copy(source, target, args).await
}

/// How many indexes of `bench` are ready to be used.
pub async fn ready(client: &Client) -> i64 {
    let ready = doc! {"$size": {"$filter": {"input": "$md.indexes", "cond": "$$this.ready"}}};
    let pipeline = [
        doc! {"$listCatalog": {}},
        doc! {"$match": {"db": "bench"}},
        doc! {"$group": {"_id": null, "ready": {"$sum": ready}}},
    ];
    let mut cursor = client.database("admin").aggregate(pipeline).await.unwrap();
    if !cursor.advance().await.unwrap() {
        return 0;
    }
    let found: Document = cursor.deserialize_current().unwrap();
    found.get_i32("ready").map(i64::from).or_else(|_| found.get_i64("ready")).unwrap()
}
