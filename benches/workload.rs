//! What the stream's rows write: a mix of inserts, updates and deletes whose every operation follows from its number, so
//! that the bare program does exactly what the source did.

use std::ops::Range;

use futures::future::try_join_all;
use mongodb::bson::{Document, RawDocumentBuf, doc, rawdoc};
use mongodb::{Client, ClientSession};
use serde::{Deserialize, Serialize};

/// Clients that write at a time.
pub const CLIENTS: u32 = 4;

/// The documents that all updates share in a hot workload.
const HOT: u32 = 10;

/// Where the `_id`s of documents begin that are deleted, and of those that are inserted.
const DOOMED: i32 = 5_000_000;
const INSERTED: i32 = 10_000_000;

/// 30 % inserts, 60 % updates of three fields, 10 % deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mix {
    /// Operations in all; a multiple of forty, so that each client has whole tens.
    pub operations: u32,
    /// Bytes of a document, about.
    pub bytes: u32,
    /// Documents that are there before, to be updated.
    pub base: u32,
    /// Collections over which all of it is spread.
    pub collections: u32,
    /// Percent of the updates that go to ten documents.
    pub hot: u32,
    /// Operations in a bulk.
    pub bulk: u32,
    /// Whether each bulk is one transaction.
    pub transactions: bool,
}

impl Mix {
    /// The plain backlog.
    pub const fn plain(operations: u32) -> Self {
        Self {
            operations,
            bytes: 900,
            base: 50_000,
            collections: 1,
            hot: 0,
            bulk: 1_000,
            transactions: false,
        }
    }

    fn document(&self, id: i32) -> RawDocumentBuf {
        let text = "x".repeat(self.bytes.saturating_sub(80) as usize);
        rawdoc! {"_id": id, "n": id % 1_000, "a": 1, "b": 2, "c": 3, "text": text}
    }

    fn collection(&self, tens: u32) -> u32 {
        tens % self.collections
    }

    /// The name of a collection.
    pub fn name(number: u32) -> String {
        format!("documents{number}")
    }

    /// The document that an update meets: of those that are its client's own, so that bulks do not conflict.
    fn met(&self, operation: u32, client: u32) -> i32 {
        let spread = mix(u64::from(operation));
        let id = if spread % 100 < u64::from(self.hot) {
            (spread >> 32) % u64::from(HOT)
        } else {
            let own = (self.base / self.collections / CLIENTS).max(1);
            (spread >> 32) % u64::from(own) * u64::from(CLIENTS) + u64::from(client)
        };
        i32::try_from(id).unwrap()
    }
}

/// Spread a number over 64 bits.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 32)
}

/// Write what is there before: documents to be updated, and documents to be deleted.
pub async fn fill(client: &Client, db: &str, mix: &Mix) {
    let at_a_time = (8_000_000 / mix.bytes as usize).max(1);
    for number in 0..mix.collections {
        let each = (mix.base / mix.collections).max(CLIENTS);
        let doomed = (0..mix.operations / 10).filter(|tens| mix.collection(*tens) == number);
        let ids: Vec<i32> = (0..i32::try_from(each).unwrap())
            .chain(doomed.map(|tens| DOOMED + i32::try_from(tens).unwrap()))
            .collect();
        let collection = client.database(db).collection::<RawDocumentBuf>(&Mix::name(number));
        for ids in ids.chunks(at_a_time) {
            collection.insert_many(ids.iter().map(|id| mix.document(*id))).ordered(false).await.unwrap();
        }
    }
}

/// All operations of the mix, in unordered bulks from four clients.
pub async fn write(client: &Client, db: &str, mix: &Mix) {
    let each = mix.operations / CLIENTS / 10 * 10;
    let clients = (0..CLIENTS).map(|number| {
        let (client, db, mix) = (client.clone(), db.to_owned(), *mix);
        tokio::spawn(async move {
            let mut session =
                if mix.transactions { Some(client.start_session().await.unwrap()) } else { None };
            let (mut start, end) = (number * each, (number + 1) * each);
            while start < end {
                let stop = (start + mix.bulk).min(end);
                bulk(&client, &db, &mix, number, start..stop, session.as_mut()).await;
                start = stop;
            }
        })
    });
    try_join_all(clients).await.unwrap();
}

/// What one bulk does to one collection.
#[derive(Default)]
struct Share {
    inserts: Vec<RawDocumentBuf>,
    updates: Vec<Document>,
    deletes: Vec<Document>,
}

async fn bulk(
    client: &Client,
    db: &str,
    mix: &Mix,
    number: u32,
    operations: Range<u32>,
    mut session: Option<&mut ClientSession>,
) {
    let mut shares: Vec<Share> = (0..mix.collections).map(|_| Share::default()).collect();
    for operation in operations {
        let tens = operation / 10;
        let share = &mut shares[mix.collection(tens) as usize];
        let value = i32::try_from(operation).unwrap();
        match operation % 10 {
            0..3 => share.inserts.push(mix.document(INSERTED + value)),
            3..9 => share.updates.push(doc! {
                "q": {"_id": mix.met(operation, number)},
                "u": {"$set": {"a": value, "b": value / 2, "c": value % 1_000}},
            }),
            _ => {
                let doomed = DOOMED + i32::try_from(tens).unwrap();
                share.deletes.push(doc! {"q": {"_id": doomed}, "limit": 1});
            }
        }
    }
    if let Some(session) = session.as_deref_mut() {
        session.start_transaction().await.unwrap();
    }
    let database = client.database(db);
    for (number, share) in shares.into_iter().enumerate() {
        let name = Mix::name(u32::try_from(number).unwrap());
        let collection = database.collection::<RawDocumentBuf>(&name);
        if !share.inserts.is_empty() {
            let insert = collection.insert_many(share.inserts).ordered(false);
            match session.as_deref_mut() {
                Some(session) => insert.session(session).await.unwrap(),
                None => insert.await.unwrap(),
            };
        }
        let updates = doc! {"update": &name, "updates": &share.updates, "ordered": false};
        let deletes = doc! {"delete": &name, "deletes": &share.deletes, "ordered": false};
        for (command, amount) in [(updates, share.updates.len()), (deletes, share.deletes.len())] {
            if amount == 0 {
                continue;
            }
            let run = database.run_command(command);
            let reply = match session.as_deref_mut() {
                Some(session) => run.session(session).await.unwrap(),
                None => run.await.unwrap(),
            };
            assert!(reply.get("writeErrors").is_none(), "{reply}");
            assert_eq!(reply.get_i32("n").unwrap(), i32::try_from(amount).unwrap(), "{name}");
        }
    }
    if let Some(session) = session {
        session.commit_transaction().await.unwrap();
    }
}

/// Updates of one document, as the source gets them: in bulks, which the oplog holds one by one.
pub async fn update_one(client: &Client, db: &str, updates: u32) {
    for start in (0..updates).step_by(1_000) {
        let updates: Vec<Document> = (start..(start + 1_000).min(updates))
            .map(|n| i32::try_from(n).unwrap())
            .map(|n| doc! {"q": {"_id": 0}, "u": {"$set": {"a": n, "b": n / 2, "c": n % 1_000}}})
            .collect();
        let update = doc! {"update": Mix::name(0), "updates": updates, "ordered": true};
        client.database(db).run_command(update).await.unwrap();
    }
}

/// The same on the target by one client, one by one: what the sequence costs without merging.
pub async fn update_one_by_one(client: &Client, db: &str, updates: u32) {
    let collection = client.database(db).collection::<Document>(&Mix::name(0));
    for n in (0..updates).map(|n| i32::try_from(n).unwrap()) {
        let set = doc! {"$set": {"a": n, "b": n / 2, "c": n % 1_000}};
        collection.update_one(doc! {"_id": 0}, set).await.unwrap();
    }
}

/// Whether both ends hold the same: the number of documents of each collection and the sums of what updates change.
pub async fn assert_equal(source: &Client, target: &Client, db: &str) {
    let mut names = source.database(db).list_collection_names().await.unwrap();
    names.sort();
    for name in names {
        let (source, target) = tokio::join!(sums(source, db, &name), sums(target, db, &name));
        assert_eq!(source, target, "{db}.{name}");
    }
}

async fn sums(client: &Client, db: &str, name: &str) -> Option<Document> {
    use futures::TryStreamExt;
    let sum = |field: &str| doc! {"$sum": {"$multiply": [format!("${field}"), {"$add": [{"$toLong": {"$ifNull": ["$n", 0]}}, 1]}]}};
    let group =
        doc! {"$group": {"_id": null, "count": {"$sum": 1}, "a": sum("a"), "b": sum("b"), "c": sum("c")}};
    let mut found = client.database(db).collection::<Document>(name).aggregate([group]).await.unwrap();
    found.try_next().await.unwrap()
}
