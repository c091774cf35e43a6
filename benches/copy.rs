//! The ceiling of a clone: four streams, each a range of `_id`, whole raw batches as they come.

use futures::StreamExt;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use mongodb::{Client, ClientSession};

use crate::bare::Work;

const STREAMS: usize = 4;

/// Documents in a batch of a stream.
pub const BATCH: u32 = 5_000;

/// Insert raw documents; how many, and their bytes. With a session, in a transaction of their own: what the server takes
/// for it tells what any fence in a transaction costs.
pub async fn insert(
    target: &Client,
    session: Option<&mut ClientSession>,
    name: &str,
    documents: RawArrayBuf,
) -> Work {
    let bytes = documents.as_bytes().len() as u64;
    let insert = rawdoc! {"insert": name, "ordered": false, "documents": documents};
    let database = target.database("bench");
    let insert = database.run_raw_command(insert);
    let answer = match session {
        None => insert.await.unwrap(),
        Some(session) => {
            session.start_transaction().await.unwrap();
            let answer = insert.session(&mut *session).await.unwrap();
            session.commit_transaction().await.unwrap();
            answer
        }
    };
    assert!(answer.get_array("writeErrors").is_err(), "{answer:?}");
    Work { amount: answer.get_i32("n").unwrap() as u64, bytes: Some(bytes) }
}

/// Read what `filter` says and insert it, batch by batch.
pub async fn stream(source: Client, target: Client, name: String, filter: Document) -> Work {
    pipe(&source, &target, None, &name, filter).await
}

/// As [`stream`], each batch in a transaction, which is smaller: it is held in memory until the commit.
async fn stream_in_transactions(source: Client, target: Client, name: String, filter: Document) -> Work {
    let session = target.start_session().causal_consistency(false).await.unwrap();
    pipe(&source, &target, Some(session), &name, filter).await
}

async fn pipe(
    source: &Client,
    target: &Client,
    mut session: Option<ClientSession>,
    name: &str,
    filter: Document,
) -> Work {
    let collection = source.database("bench").collection::<RawDocumentBuf>(name);
    let size = if session.is_some() { BATCH / 4 } else { BATCH };
    let mut batches = collection.find(filter).batch_size(size).batch().await.unwrap();
    let mut work = Work::default();
    while let Some(batch) = batches.next().await {
        let batch = batch.unwrap();
        let documents = batch.doc_slices().unwrap();
        if !documents.is_empty() {
            work += insert(target, session.as_mut(), name, documents.to_owned()).await;
        }
    }
    work
}

/// Where four ranges of `_id` begin, but for the first: of integers from 0 to `total`, or of UUIDs.
fn borders(kind: &str, total: u64) -> Vec<Bson> {
    let parts = 1..STREAMS as u64;
    match kind {
        "int" => parts.map(|part| Bson::Int32((total * part / STREAMS as u64) as i32)).collect(),
        "uuid" => parts
            .map(|part| {
                let bytes = [vec![(256 * part / STREAMS as u64) as u8], vec![0; 15]].concat();
                Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes })
            })
            .collect(),
        _ => panic!("no ranges of {kind}"),
    }
}

/// `bench bare copy … NAME int|uuid`: `bench.NAME` from the source to the target.
pub async fn copy(source: &Client, target: &Client, args: &[String]) -> Work {
    ranges(source, target, args, stream).await
}

/// `bench bare copy-in-transactions … NAME int|uuid`: as [`copy`], each batch in a transaction.
pub async fn copy_in_transactions(source: &Client, target: &Client, args: &[String]) -> Work {
    ranges(source, target, args, stream_in_transactions).await
}

async fn ranges<F: Future<Output = Work> + Send + 'static>(
    source: &Client,
    target: &Client,
    args: &[String],
    stream: impl Fn(Client, Client, String, Document) -> F,
) -> Work {
    let [name, kind] = args else { panic!("copy NAME int|uuid") };
    let database = source.database("bench");
    let total = database.collection::<Document>(name).estimated_document_count().await.unwrap();
    // It may have been made before, with indexes.
    let _ = target.database("bench").create_collection(name).await;
    let borders = borders(kind, total);
    let streams: Vec<_> = (0..STREAMS)
        .map(|number| {
            let mut range = Document::new();
            if number > 0 {
                range.insert("$gte", borders[number - 1].clone());
            }
            if number < borders.len() {
                range.insert("$lt", borders[number].clone());
            }
            tokio::spawn(stream(source.clone(), target.clone(), name.clone(), doc! {"_id": range}))
        })
        .collect();
    let mut work = Work::default();
    for stream in streams {
        work += stream.await.unwrap();
    }
    work
}
