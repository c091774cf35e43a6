//! Fenced majority writes of the durable state, one transaction at a time. What waits while one is under way shares the
//! next: six hundred small collections are begun by some tens of transactions.

use std::collections::HashMap;
use std::time::Duration;

use mongodb::bson::Document;
use tokio::sync::{mpsc, oneshot};

use super::slot::{any_reply, is_passing};
use super::transaction::{Durability, Operation, Session, write_error, write_failure};
use crate::sync::endpoint::raw;
use crate::sync::error::{Class, Error, Reason, Result};

/// Conflicts with another transaction on the same document are over in milliseconds.
const CONFLICT_RETRIES: u32 = 20;

/// Writes that share a transaction at most.
const SHARED: usize = 64;

/// Bytes of commands in a shared transaction: far below what a command may have.
const SHARED_BYTES: usize = 4 << 20;

/// Judges replies before the commit.
type Check = Box<dyn Fn(&[Document]) -> Result<()> + Send + Sync>;

/// Something to write, and who waits for it.
struct Request {
    operations: Vec<Operation>,
    /// None: it may share its transaction, and its replies are of no interest.
    alone: Option<Alone>,
    answer: oneshot::Sender<Result<Vec<Document>>>,
}

struct Alone {
    /// In place of the usual one.
    fence: Option<Operation>,
    check: Check,
}

/// Hands writes to the task that owns the session. Cheap to clone; the task ends with the last clone.
#[derive(Clone, Debug)]
pub struct Writer {
    requests: mpsc::UnboundedSender<Request>,
}

impl Writer {
    /// Begin to write by `session`, each transaction after `fence`, which must meet one document; `lost` is the error if
    /// it does not.
    pub fn spawn(session: Session, fence: Operation, db: String, lost: Error) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        tokio::spawn(Task { session, fence, db, lost }.run(receiver));
        Self { requests }
    }

    /// Write, perhaps in one transaction with what others write.
    pub async fn write(&self, operations: Vec<Operation>) -> Result<()> {
        self.ask(operations, None).await.map(|_| ())
    }

    /// Write in a transaction of its own, which commits only if `check` accepts the replies.
    pub async fn write_alone(
        &self,
        fence: Option<Operation>,
        operations: Vec<Operation>,
        check: impl Fn(&[Document]) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Vec<Document>> {
        self.ask(operations, Some(Alone { fence, check: Box::new(check) })).await
    }

    async fn ask(&self, operations: Vec<Operation>, alone: Option<Alone>) -> Result<Vec<Document>> {
        let ended = || Error::new(Reason::Interrupted, "the durable state is not written any more");
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request { operations, alone, answer }).map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// Owns the session: a write that its caller gave up is ended properly all the same.
struct Task {
    session: Session,
    fence: Operation,
    db: String,
    lost: Error,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut next = requests.recv().await;
        while let Some(request) = next.take() {
            if let Some(Alone { fence, check }) = request.alone {
                let fence = fence.unwrap_or_else(|| self.fence.clone());
                let outcome = self.write(&fence, &request.operations, &*check).await;
                let _ = request.answer.send(outcome);
            } else {
                let (together, other) = gather(request, &mut requests);
                next = other;
                self.share(together).await;
            }
            if next.is_none() {
                next = requests.recv().await;
            }
        }
    }

    async fn share(&mut self, requests: Vec<Request>) {
        let fence = self.fence.clone();
        let operations = joined(requests.iter().flat_map(|request| &request.operations));
        let outcome = self.write(&fence, &operations, &any_reply).await;
        match outcome {
            Err(error) if requests.len() > 1 && error.class() == Class::Stop => {
                // One of them may be to blame for what all would suffer.
                for request in requests {
                    let outcome = self.write(&fence, &request.operations, &any_reply).await;
                    let _ = request.answer.send(outcome);
                }
            }
            outcome => {
                for request in requests {
                    let _ = request.answer.send(outcome.clone().map(|_| Vec::new()));
                }
            }
        }
    }

    async fn write(
        &mut self,
        fence: &Operation,
        operations: &[Operation],
        check: &(dyn Fn(&[Document]) -> Result<()> + Send + Sync),
    ) -> Result<Vec<Document>> {
        let mut tries = 0;
        loop {
            match self.write_once(fence, operations, check).await {
                Err(error) if is_passing(&error) && tries < CONFLICT_RETRIES => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(5 * u64::from(tries))).await;
                }
                other => return other,
            }
        }
    }

    async fn write_once(
        &mut self,
        fence: &Operation,
        operations: &[Operation],
        check: &(dyn Fn(&[Document]) -> Result<()> + Send + Sync),
    ) -> Result<Vec<Document>> {
        self.session.begin(Durability::Majority).await?;
        let replies = self.run_all(fence, operations).await;
        match replies.and_then(|replies| check(&replies).map(|()| replies)) {
            Ok(replies) => self.session.commit().await.map(|()| replies),
            Err(error) => {
                self.session.abort().await;
                Err(error)
            }
        }
    }

    async fn run_all(&mut self, fence: &Operation, operations: &[Operation]) -> Result<Vec<Document>> {
        if self.session.run(fence.clone()).await?.get_i32("n").ok() != Some(1) {
            return Err(self.lost.clone());
        }
        let mut replies = Vec::with_capacity(operations.len());
        for operation in operations {
            let reply = self.session.run(operation.clone()).await?;
            if let Some(error) = write_error(&reply) {
                return Err(write_failure(&format!("the durable state ({})", self.db), &error)
                    .with_code(Some(error.code)));
            }
            replies.push(reply);
        }
        Ok(replies)
    }
}

/// What waits and may share a transaction with `first`, and what came then and may not.
fn gather(
    first: Request,
    requests: &mut mpsc::UnboundedReceiver<Request>,
) -> (Vec<Request>, Option<Request>) {
    let (mut together, mut bytes) = (vec![first], 0);
    while together.len() < SHARED && bytes < SHARED_BYTES {
        match requests.try_recv() {
            Ok(more) if more.alone.is_none() => {
                bytes += more.operations.iter().map(Operation::len).sum::<usize>();
                together.push(more);
            }
            other => return (together, other.ok()),
        }
    }
    (together, None)
}

/// The same with fewer commands: updates of one collection in a row become one, in their order.
fn joined<'a>(operations: impl Iterator<Item = &'a Operation>) -> Vec<Operation> {
    let mut all: Vec<Vec<&Operation>> = Vec::new();
    let mut open: HashMap<(&str, &[u8]), usize> = HashMap::new();
    for operation in operations {
        let head = raw::elements(operation.command.as_bytes()).next();
        let Some(head) = head else { continue };
        let place = (operation.db.as_str(), head.value);
        match open.get(&place) {
            Some(&at) if head.name == b"update" => all[at].push(operation),
            _ => {
                if head.name == b"update" {
                    open.insert(place, all.len());
                } else {
                    open.remove(&place);
                }
                all.push(vec![operation]);
            }
        }
    }
    all.into_iter().map(|some| if some.len() == 1 { some[0].clone() } else { join(&some) }).collect()
}

fn join(updates: &[&Operation]) -> Operation {
    let mut writer = raw::Writer::new(updates.iter().map(|update| update.len()).sum());
    if let Some(head) = raw::elements(updates[0].command.as_bytes()).next() {
        writer.element("update", head.kind, head.value);
    }
    writer.open_array("updates");
    let statements = updates.iter().filter_map(|update| raw::get(update.command.as_bytes(), "updates"));
    for (number, statement) in statements.flat_map(|all| raw::elements(all.value)).enumerate() {
        writer.element(&number.to_string(), statement.kind, statement.value);
    }
    writer.close();
    Operation { db: updates[0].db.clone(), command: writer.finish() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::doc;

    fn update(collection: &str, n: i32) -> Operation {
        Operation::new("db", &doc! {"update": collection, "updates": [{"q": {"_id": n}, "u": {"n": n}}]})
            .unwrap()
    }

    fn shown(operations: &[Operation]) -> Vec<Document> {
        operations.iter().map(|operation| Document::try_from(&operation.command).unwrap()).collect()
    }

    #[test]
    fn updates_of_one_collection_become_one_command_in_their_order() {
        let all = [update("a", 1), update("b", 2), update("a", 3)];
        let expected = [
            doc! {"update": "a", "updates": [{"q": {"_id": 1}, "u": {"n": 1}}, {"q": {"_id": 3}, "u": {"n": 3}}]},
            doc! {"update": "b", "updates": [{"q": {"_id": 2}, "u": {"n": 2}}]},
        ];
        assert_eq!(shown(&joined(all.iter())), expected);
    }

    #[test]
    fn no_update_passes_a_removal_of_its_collection() {
        let removal =
            Operation::new("db", &doc! {"delete": "a", "deletes": [{"q": {}, "limit": 0}]}).unwrap();
        let all = [update("a", 1), removal, update("a", 2), update("a", 3)];
        let commands: Vec<String> =
            shown(&joined(all.iter())).iter().filter_map(|one| one.keys().next().cloned()).collect();
        assert_eq!(commands, ["update", "delete", "update"]);
    }
}
