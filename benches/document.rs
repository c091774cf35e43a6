//! The documents that rows are about, and filling a side with them.

use std::hash::{BuildHasher, RandomState};

use mongodb::Client;
use mongodb::bson::{RawBson, RawDocumentBuf, rawdoc};

/// Documents in an insert of a fill.
const BATCH: i32 = 5_000;

/// 0.9 KB with a small integer as `_id`.
pub fn document(id: i32) -> RawDocumentBuf {
    rawdoc! {"_id": id, "n": id % 1000, "a": 1, "b": 2, "c": 3, "text": "x".repeat(820)}
}

/// Fill `bench.NAME` with documents number 0 to `amount`, from four clients.
pub async fn fill(
    client: &Client,
    name: &str,
    amount: i32,
    make: impl Fn(i32) -> RawDocumentBuf + Clone + Send + 'static,
) {
    let clients = (0..4).map(|number| {
        let collection = client.database("bench").collection::<RawDocumentBuf>(name);
        let make = make.clone();
        tokio::spawn(async move {
            for start in (number * BATCH..amount).step_by(4 * BATCH as usize) {
                let batch = (start..(start + BATCH).min(amount)).map(&make);
                collection.insert_many(batch).ordered(false).await.unwrap();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

/// A number that nobody can foresee, without a dependency for it.
pub fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// A random UUID.
pub fn uuid() -> RawBson {
    let bytes = [random().to_le_bytes(), random().to_le_bytes()].concat();
    RawBson::Binary(mongodb::bson::Binary { subtype: mongodb::bson::spec::BinarySubtype::Uuid, bytes })
}

/// `amount`, or a part of it if `SCALE` (such as 0.1) says so.
pub fn scaled(amount: i32) -> i32 {
    let scale: f64 = std::env::var("SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1.0);
    ((f64::from(amount) * scale) as i32).max(1)
}
