//! Writing a partition's batches: each one transaction that also moves the partition's slot.

use std::collections::BTreeSet;

use mongodb::bson::{Bson, Document, RawDocumentBuf, Uuid, doc};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::partition::{Chunk, Message};
use crate::sync::catalog::Collection;
use crate::sync::context::{COPIES, Context};
use crate::sync::endpoint::failure;
use crate::sync::endpoint::raw::{self, Writer};
use crate::sync::error::{Class, Error, Reason, Result};
use crate::sync::namespace::Namespace;
use crate::sync::state::record::{Copied, binary};
use crate::sync::state::slot::{PartitionRecord, Slot, any_reply};
use crate::sync::state::store::SLOTS;
use crate::sync::state::transaction::{Durability, WriteError, write_error, write_failure};
use crate::sync::state::{Operation, Refusal};

/// Bytes of documents in one command: a command is at most 16 MB and 16 KB, a document at most 16 MB.
const COMMAND_BYTES: usize = 12 << 20;

/// What an insert has before its documents, the longest name included: a buffer that is a byte too small would be copied
/// into one of twice the size.
const HEAD_BYTES: usize = 512;

/// How writing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All that the reader sent is on the target.
    All,
    /// All of the collection is on the target, without a partition's record.
    Whole(Copied),
    /// A capped collection's scan met a document twice, which was deleted and inserted again: its order is lost.
    Twice,
}

/// Write what the reader sends until it says that that was all; then mark the partition done.
pub async fn write(
    ctx: &Context,
    collection: &Collection,
    partition: &PartitionRecord,
    writers: &Semaphore,
    mut chunks: mpsc::Receiver<Message>,
) -> Result<Written> {
    let Some(mut message) = chunks.recv().await else { return Ok(Written::All) };
    if partition.unrecorded {
        match &message {
            Message::End => return Ok(Written::Whole(Copied { documents: 0, bytes: 0 })),
            Message::Chunk(chunk) if chunk.ends() => {
                if let Some(copied) = write_whole(ctx, collection, chunk).await? {
                    return Ok(Written::Whole(copied));
                }
            }
            Message::Chunk(_) => {}
        }
        ctx.store.write(vec![ctx.store.put(SLOTS, std::slice::from_ref(partition))?]).await?;
    }
    let mut slot = Slot::open(&ctx.store, &partition.id, partition.seq).await?;
    loop {
        match message {
            Message::Chunk(chunk) => {
                if write_chunk(ctx, collection, &mut slot, writers, &chunk).await? == Written::Twice {
                    return Ok(Written::Twice);
                }
                if chunk.ends() && !collection.is_capped() {
                    return Ok(Written::All);
                }
            }
            Message::End => {
                let done = slot
                    .commit(doc! {"done": true}, Document::new(), Vec::new, Durability::Majority, &any_reply)
                    .await;
                done.map_err(|refusal| engine_error(&collection.target(), refusal))?;
                return Ok(Written::All);
            }
        }
        message = match chunks.recv().await {
            Some(next) => next,
            None => return Ok(Written::All),
        };
    }
}

/// Insert all of a small collection outside of a transaction, which costs a small one as much as its data. What fences
/// it is the collection's UUID: until the collection is recorded as copied, nobody goes on with what is in it, but drops
/// it and makes another (`begin`). None if the server refuses a document: what is there by then is met again.
async fn write_whole(ctx: &Context, collection: &Collection, chunk: &Chunk) -> Result<Option<Copied>> {
    let documents: Vec<&[u8]> = chunk.batch.documents().collect();
    let size: usize = documents.iter().map(|document| document.len()).sum();
    let (count, size) = (documents.len() as u64, size as u64);
    let namespace = collection.target();
    let uuid = collection.record().target_uuid;
    let began = Instant::now();
    let _writing = ctx.budgets.write.reserve(size * COPIES).await;
    for operation in inserts(&namespace, uuid, &documents) {
        let reply = ctx.target.raw_command(&operation.db, operation.for_majority()).await?;
        if write_error(&reply).is_some() {
            return Ok(None);
        }
    }
    ctx.progress.write_micros.set(u64::try_from(began.elapsed().as_micros()).unwrap_or(0));
    note(ctx, collection, count, size);
    let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
    Ok(Some(Copied { documents: signed(count), bytes: signed(size) }))
}

fn note(ctx: &Context, collection: &Collection, documents: u64, bytes: u64) {
    collection.add_copied(documents, bytes);
    ctx.progress.documents.add(documents);
    ctx.progress.bytes.add(bytes);
    ctx.progress.documents_copied.add(documents);
    ctx.progress.bytes_copied.add(bytes);
}

async fn write_chunk(
    ctx: &Context,
    collection: &Collection,
    slot: &mut Slot,
    writers: &Semaphore,
    chunk: &Chunk,
) -> Result<Written> {
    let documents: Vec<&[u8]> = chunk.batch.documents().skip(chunk.skip).collect();
    let Some(last) = documents.last().and_then(|document| raw::id_document(document)) else {
        return Ok(Written::All);
    };
    let bytes: usize = documents.iter().map(|document| document.len()).sum();
    let (count, size) = (i64::try_from(documents.len()).unwrap_or(0), i64::try_from(bytes).unwrap_or(0));
    let mut set = doc! {"last": Bson::Binary(binary(last.as_bytes()))};
    // A partition is done only when a majority has all of it.
    let durability = if chunk.ends() { Durability::Majority } else { Durability::Primary };
    if chunk.ends() {
        set.insert("done", true);
    }
    let inc = doc! {"documents": count, "bytes": size};
    let namespace = collection.target();
    let uuid = collection.record().target_uuid;
    // A partition's last batch waits for a majority, and must not keep the others from the server meanwhile: it goes beside
    // them.
    let turn = if durability == Durability::Primary { writers.acquire().await.ok() } else { None };
    let began = Instant::now();
    let _writing = ctx.budgets.write.reserve(bytes as u64 * COPIES).await;
    if collection.is_capped() {
        return write_capped(ctx, collection, slot, &documents, (count, size)).await;
    }
    let whole = chunk.skip == 0 && bytes <= COMMAND_BYTES;
    let whole = whole && !documents.iter().any(|document| raw::needs_literal(document));
    let inserts = || {
        if whole {
            vec![insert_array(&namespace, uuid, chunk.batch.array())]
        } else {
            inserts(&namespace, uuid, &documents)
        }
    };
    let outcome = slot.commit(set.clone(), inc.clone(), inserts, durability, &any_reply).await;
    drop(turn);
    match outcome {
        Ok(()) => {}
        Err(Refusal::Document { .. }) => {
            // A document that was deleted and inserted again meanwhile is read twice; its events follow anyway.
            let mut anew = BTreeSet::new();
            loop {
                let (operations, firsts) = upserts_anew(&namespace, uuid, &documents, &anew);
                let mut operations = Some(operations);
                let make = || {
                    operations.take().unwrap_or_else(|| upserts_anew(&namespace, uuid, &documents, &anew).0)
                };
                let outcome = slot.commit(set.clone(), inc.clone(), make, durability, &any_reply).await;
                match outcome {
                    Ok(()) => break,
                    Err(Refusal::Document { error, .. })
                        if failure::IS_OF_AN_INDEX.contains(&error.code)
                            && ctx.builder.give_way(collection, &error, began).await? => {}
                    // The ids differ in bytes and are equal under the collation: the old document goes first.
                    Err(Refusal::Document { operation, error })
                        if error.code == failure::IMMUTABLE_FIELD
                            && anew.insert(firsts.get(operation).copied().unwrap_or(0) + error.index) => {}
                    Err(refusal) => return Err(engine_error(&namespace, refusal)),
                }
            }
        }
        Err(Refusal::Engine(error)) => return Err(error),
    }
    let took = began.elapsed();
    ctx.progress.write_micros.set(u64::try_from(took.as_micros()).unwrap_or(0));
    note(ctx, collection, documents.len() as u64, bytes as u64);
    Ok(Written::All)
}

/// In order and outside of a transaction, which a capped collection does not allow: it is copied anew if this is
/// interrupted.
async fn write_capped(
    ctx: &Context,
    collection: &Collection,
    slot: &mut Slot,
    documents: &[&[u8]],
    (count, size): (i64, i64),
) -> Result<Written> {
    let namespace = collection.target();
    let uuid = collection.record().target_uuid;
    ctx.store.prove().await?;
    let mut rest = documents;
    while let Some(first) = rest.first() {
        let literal = raw::needs_literal(first);
        let run = rest.iter().take_while(|document| raw::needs_literal(document) == literal).count();
        let (now, later) = rest.split_at(run);
        let operations =
            if literal { upserts(&namespace, uuid, now) } else { inserts(&namespace, uuid, now) };
        for operation in operations {
            // No slot would show that a failover took it back.
            let reply = ctx.target.raw_command(&operation.db, operation.for_majority()).await?;
            if let Some(error) = write_error(&reply) {
                if error.code == failure::DUPLICATE_KEY {
                    return Ok(Written::Twice);
                }
                return Err(refused(&namespace, &error));
            }
        }
        rest = later;
    }
    let inc = doc! {"documents": count, "bytes": size};
    slot.commit(Document::new(), inc, Vec::new, Durability::Primary, &any_reply)
        .await
        .map_err(|refusal| engine_error(&namespace, refusal))?;
    note(ctx, collection, u64::try_from(count).unwrap_or(0), u64::try_from(size).unwrap_or(0));
    Ok(Written::All)
}

fn engine_error(namespace: &Namespace, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Engine(error) => error,
        Refusal::Document { error, .. } => refused(namespace, &error),
    }
}

/// What passes by itself, such as a primary that steps down between two documents, is no refusal.
fn refused(namespace: &Namespace, error: &WriteError) -> Error {
    let failure = write_failure(&namespace.to_string(), error);
    if failure.class() == Class::Transient { failure } else { failure.as_reason(Reason::WriteRefused) }
}

/// Plain inserts; documents that an insert would change go as literal upserts of their own.
fn inserts(namespace: &Namespace, uuid: Option<Uuid>, documents: &[&[u8]]) -> Vec<Operation> {
    let mut operations = Vec::new();
    let (literal, plain): (Vec<&[u8]>, Vec<&[u8]>) =
        documents.iter().partition(|document| raw::needs_literal(document));
    for some in by_size(&plain) {
        let mut writer = insert(namespace, uuid, some.iter().map(|document| document.len() + 8).sum());
        writer.open_array("documents");
        for (number, document) in some.iter().enumerate() {
            writer.document(&number.to_string(), document);
        }
        operations.push(operation(namespace, writer));
    }
    operations.extend(upserts(namespace, uuid, &literal));
    operations
}

/// A plain insert of a whole array as the source's server sent it.
fn insert_array(namespace: &Namespace, uuid: Option<Uuid>, array: &[u8]) -> Operation {
    let mut writer = insert(namespace, uuid, array.len());
    writer.element("documents", raw::kind::ARRAY, array);
    operation(namespace, writer)
}

/// An insert command but for its documents.
fn insert(namespace: &Namespace, uuid: Option<Uuid>, bytes: usize) -> Writer {
    let mut writer = Writer::new(bytes + HEAD_BYTES);
    begin(&mut writer, "insert", &namespace.coll, uuid);
    writer.boolean("bypassDocumentValidation", true);
    writer
}

/// The head of a write command. With its UUID, a collection that somebody dropped from the target is missed rather than
/// made anew by the write.
pub fn begin(writer: &mut Writer, command: &str, collection: &str, uuid: Option<Uuid>) {
    writer.string(command, collection);
    if let Some(uuid) = uuid {
        writer.uuid("collectionUUID", uuid.bytes());
    }
}

fn upserts(namespace: &Namespace, uuid: Option<Uuid>, documents: &[&[u8]]) -> Vec<Operation> {
    by_size(documents).map(|some| upsert(namespace, uuid, some)).collect()
}

fn upsert(namespace: &Namespace, uuid: Option<Uuid>, documents: &[&[u8]]) -> Operation {
    let mut writer = Writer::new(documents.iter().map(|document| document.len() + 128).sum());
    begin(&mut writer, "update", &namespace.coll, uuid);
    writer.boolean("bypassDocumentValidation", true);
    writer.open_array("updates");
    for (number, document) in documents.iter().enumerate() {
        writer.open_document(&number.to_string());
        upsert_statement(&mut writer, document);
        writer.close();
    }
    operation(namespace, writer)
}

/// Upserts in order; those whose numbers are in `anew` take the place of a document that is deleted. With each operation the
/// number of its first document.
fn upserts_anew(
    namespace: &Namespace,
    uuid: Option<Uuid>,
    documents: &[&[u8]],
    anew: &BTreeSet<usize>,
) -> (Vec<Operation>, Vec<usize>) {
    let (mut operations, mut firsts) = (Vec::new(), Vec::new());
    let mut from = 0;
    for end in anew.iter().copied().chain([documents.len()]) {
        for some in by_size(&documents[from..end]) {
            operations.push(upsert(namespace, uuid, some));
            firsts.push(from);
            from += some.len();
        }
        if let Some(document) = documents.get(end) {
            operations.push(delete(namespace, uuid, document));
            firsts.push(end);
        }
    }
    (operations, firsts)
}

fn delete(namespace: &Namespace, uuid: Option<Uuid>, document: &[u8]) -> Operation {
    let mut writer = Writer::new(HEAD_BYTES);
    begin(&mut writer, "delete", &namespace.coll, uuid);
    writer.open_array("deletes");
    writer.open_document("0");
    if let Some(id) = raw::get(document, "_id") {
        query(&mut writer, id.kind, id.value);
    }
    writer.int32("limit", 1);
    writer.close();
    writer.close();
    operation(namespace, writer)
}

/// The fields of an update statement that makes the stored document exactly `document`.
pub fn upsert_statement(writer: &mut Writer, document: &[u8]) {
    match raw::get(document, "_id") {
        Some(id) => query(writer, id.kind, id.value),
        None => writer.document("q", RawDocumentBuf::new().as_bytes()),
    }
    replacement(writer, document);
    writer.boolean("upsert", true);
}

/// `q: {_id: …}`: a value that could be taken for an operator is compared by `$eq`.
pub fn query(writer: &mut Writer, kind: u8, value: &[u8]) {
    writer.open_document("q");
    let operator = kind == raw::kind::DOCUMENT
        && raw::elements(value).next().is_some_and(|first| first.name.first() == Some(&b'$'));
    if operator {
        writer.open_document("_id");
        writer.element("$eq", kind, value);
        writer.close();
    } else {
        writer.element("_id", kind, value);
    }
    writer.close();
}

/// `u: …` for a whole document; literal where a replacement would change or refuse it.
pub fn replacement(writer: &mut Writer, document: &[u8]) {
    if raw::needs_literal(document) {
        writer.open_array("u");
        writer.open_document("0");
        writer.open_document("$replaceWith");
        writer.document("$literal", document);
        writer.close();
        writer.close();
        writer.close();
    } else {
        writer.document("u", document);
    }
}

fn operation(namespace: &Namespace, writer: Writer) -> Operation {
    Operation { db: namespace.db.clone(), command: writer.finish() }
}

/// Consecutive runs that fit into a command.
fn by_size<'a, 'b>(documents: &'b [&'a [u8]]) -> impl Iterator<Item = &'b [&'a [u8]]> {
    let mut rest = documents;
    std::iter::from_fn(move || {
        let (mut bytes, mut end) = (0, 0);
        while end < rest.len() && (end == 0 || bytes + rest[end].len() <= COMMAND_BYTES) {
            bytes += rest[end].len() + 16;
            end += 1;
        }
        let (now, later) = rest.split_at(end);
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_no_refusal() {
        let of =
            |code| refused(&Namespace::new("d", "c"), &WriteError { index: 0, code, words: "no".to_owned() });
        assert_eq!(of(10107).class(), Class::Transient);
        assert_eq!(of(189).class(), Class::Transient);
        assert_eq!(of(121).reason(), Reason::WriteRefused);
    }
}
