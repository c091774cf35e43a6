//! The head of a change event, decoded in one walk over its top-level fields; documents stay bytes.

use mongodb::bson::{Timestamp, Uuid};

use crate::sync::endpoint::raw;
use crate::sync::namespace::Namespace;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A document appeared.
    Insert,
    /// A document changed; the event carries the difference.
    Update,
    /// A document was replaced; the event carries all of it.
    Replace,
    /// A document vanished.
    Delete,
    /// A collection or view appeared.
    Create,
    /// A collection or view vanished.
    Drop,
    /// A collection got another name.
    Rename,
    /// Indexes were built.
    CreateIndexes,
    /// Indexes vanished.
    DropIndexes,
    /// Options of a collection, view or index changed.
    Modify,
    /// A database vanished, after its collections; its views go with it silently.
    DropDatabase,
    /// Anything else, by its name: the sync stops at it if it is in scope.
    Other(&'a str),
}

impl<'a> Kind<'a> {
    fn parse(name: &'a str) -> Self {
        match name {
            "insert" => Self::Insert,
            "update" => Self::Update,
            "replace" => Self::Replace,
            "delete" => Self::Delete,
            "create" => Self::Create,
            "drop" => Self::Drop,
            "rename" => Self::Rename,
            "createIndexes" => Self::CreateIndexes,
            "dropIndexes" => Self::DropIndexes,
            "modify" => Self::Modify,
            "dropDatabase" => Self::DropDatabase,
            other => Self::Other(other),
        }
    }

    /// Whether it is about one document.
    pub fn is_document(self) -> bool {
        matches!(self, Self::Insert | Self::Update | Self::Replace | Self::Delete)
    }
}

/// One event. `None` where the server sent no such field.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The resume token's `_data`: strings that compare in stream order.
    pub token: &'a str,
    /// What happened.
    pub kind: Kind<'a>,
    /// When; all events of a transaction share it.
    pub time: Timestamp,
    /// The collection, by identity.
    pub uuid: Option<Uuid>,
    /// Database.
    pub db: &'a str,
    /// Collection; empty for events of a whole database.
    pub coll: &'a str,
    /// `{_id: …}`.
    pub key: Option<&'a [u8]>,
    /// The document of an insert or replace.
    pub full: Option<&'a [u8]>,
    /// The difference, as in the oplog.
    pub diff: Option<&'a [u8]>,
    /// What a DDL event says about itself.
    pub description: Option<&'a [u8]>,
    /// Where a rename leads.
    pub to: Option<(&'a str, &'a str)>,
}

impl<'a> Event<'a> {
    /// Decode; none if a field that every event has is missing.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut event = Event {
            token: "",
            kind: Kind::Other(""),
            time: Timestamp { time: 0, increment: 0 },
            uuid: None,
            db: "",
            coll: "",
            key: None,
            full: None,
            diff: None,
            description: None,
            to: None,
        };
        for element in raw::elements(bytes) {
            match element.name {
                b"_id" => event.token = raw::get(element.value, "_data")?.as_str()?,
                b"operationType" => event.kind = Kind::parse(element.as_str()?),
                b"clusterTime" => event.time = element.as_timestamp()?,
                b"collectionUUID" => event.uuid = element.as_uuid().map(Uuid::from_bytes),
                b"ns" => (event.db, event.coll) = namespace(element.value)?,
                b"to" => event.to = Some(namespace(element.value)?),
                b"documentKey" => event.key = element.as_document(),
                b"fullDocument" => event.full = element.as_document(),
                b"rawUpdateDescription" => event.diff = element.as_document(),
                b"operationDescription" => event.description = element.as_document(),
                _ => {}
            }
        }
        (!event.token.is_empty() && event.time.time != 0).then_some(event)
    }

    /// `db.coll`.
    pub fn namespace(&self) -> Namespace {
        Namespace::new(self.db, self.coll)
    }
}

fn namespace(bytes: &[u8]) -> Option<(&str, &str)> {
    let db = raw::get(bytes, "db")?.as_str()?;
    let coll = raw::get(bytes, "coll").and_then(|coll| coll.as_str()).unwrap_or("");
    Some((db, coll))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::{Binary, Bson, Document, doc, serialize_to_vec, spec::BinarySubtype};
    use proptest::prelude::*;

    fn event(kind: &str) -> Document {
        doc! {
            "_id": {"_data": "8265"}, "operationType": kind, "clusterTime": Bson::Timestamp(Timestamp { time: 5, increment: 6 }),
            "collectionUUID": Binary { subtype: BinarySubtype::Uuid, bytes: vec![1; 16] }, "wallTime": 1,
            "ns": {"db": "d", "coll": "c.x"}, "documentKey": {"_id": 9}, "fullDocument": {"_id": 9, "a": 1},
        }
    }

    #[test]
    fn the_head_is_decoded() {
        let bytes = serialize_to_vec(&event("insert")).unwrap();
        let event = Event::parse(&bytes).unwrap();
        assert_eq!((event.token, event.kind, event.db, event.coll), ("8265", Kind::Insert, "d", "c.x"));
        assert_eq!(event.time, Timestamp { time: 5, increment: 6 });
        assert_eq!(event.uuid, Some(Uuid::from_bytes([1; 16])));
        assert_eq!(event.full.unwrap(), serialize_to_vec(&doc! {"_id": 9, "a": 1}).unwrap());
    }

    #[test]
    fn an_unknown_type_keeps_its_name() {
        let bytes = serialize_to_vec(&event("frobnicate")).unwrap();
        assert_eq!(Event::parse(&bytes).unwrap().kind, Kind::Other("frobnicate"));
    }

    #[test]
    fn an_event_without_a_token_is_refused() {
        let mut document = event("insert");
        document.remove("_id");
        assert!(Event::parse(&serialize_to_vec(&document).unwrap()).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Event::parse(&bytes);
        }

        #[test]
        fn damaged_events_never_panic(at in 0usize..200, with in any::<u8>()) {
            let mut bytes = serialize_to_vec(&event("update")).unwrap();
            let at = at % bytes.len();
            bytes[at] = with;
            let _ = Event::parse(&bytes);
        }
    }
}
