//! An ordinary workload, at random: documents of all shapes, transactions, and DDL of every kind.

use mongodb::Database;
use mongodb::bson::{Bson, Document, Timestamp, doc};

/// Numbers that look random and are the same for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self, below: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % below
    }

    pub fn value(&mut self) -> Bson {
        let zero = Bson::Timestamp(Timestamp { time: 0, increment: 0 });
        match self.next(11) {
            0 => Bson::Int64(self.next(99).into()),
            1 => Bson::Double(f64::from(self.next(99)) / 7.0),
            2 => format!("s{}", self.next(99)).into(),
            3 => Bson::Null,
            4 => Bson::Decimal128("7.70".parse().unwrap()),
            5 => zero,
            6 => doc! {"x": 1, "y.z": 2, "t": zero}.into(),
            7 => vec![Bson::from(1), Bson::from("two"), Bson::Null].into(),
            8 => Bson::Double(f64::NAN),
            _ => i32::try_from(self.next(99)).unwrap().into(),
        }
    }
}

/// One operation of a client; whether the server did it.
pub async fn step(db: &Database, random: &mut Random, client: u32) -> bool {
    let name = if random.next(2) == 0 { "main".to_owned() } else { format!("c{}", random.next(6)) };
    let coll = db.collection::<Document>(&name);
    let id = i32::try_from(random.next(800)).unwrap();
    let one = doc! {"_id": id};
    let field = format!("f{}", random.next(8));
    let done = match random.next(12) {
        0 => coll.insert_one(doc! {"_id": id, "v": random.value(), "w": random.value()}).await.map(drop),
        1 => coll.delete_one(one).await.map(drop),
        2 => coll
            .replace_one(one, doc! {"v": random.value(), "n": random.value()})
            .upsert(true)
            .await
            .map(drop),
        3 => coll
            .update_one(one, doc! {"$set": {&field: random.value(), "d.e": random.value()}})
            .upsert(true)
            .await
            .map(drop),
        4 => coll.update_one(one, doc! {"$unset": {&field: 1}}).await.map(drop),
        5 => {
            let push = doc! {"$push": {"list": {"$each": [random.value(), random.value()], "$slice": -6}}};
            coll.update_one(one, push).await.map(drop)
        }
        6 => {
            let pipeline = vec![
                doc! {"$set": {"g": {"$literal": random.value()}, "f1": "$f2"}},
                doc! {"$unset": ["f2"]},
            ];
            coll.update_one(one, pipeline).await.map(drop)
        }
        7 => coll
            .update_many(doc! {"_id": {"$gte": id, "$lt": id + 15}}, doc! {"$inc": {"count": 1}})
            .await
            .map(drop),
        8 => coll.update_one(one, doc! {"$rename": {"f1": &field}}).await.map(drop),
        9 => coll.update_one(one, doc! {"$set": {"list.1": random.value()}}).await.map(drop),
        10 => {
            let mut session = db.client().start_session().await.unwrap();
            session.start_transaction().await.unwrap();
            for n in 0..random.next(20) {
                let in_txn = db.collection::<Document>(&format!("c{}", n % 3));
                let key = doc! {"_id": i32::try_from(random.next(200)).unwrap()};
                let _ = in_txn
                    .update_one(key, doc! {"$set": {"txn": n}})
                    .upsert(true)
                    .session(&mut session)
                    .await;
            }
            if random.next(5) == 0 {
                session.abort_transaction().await
            } else {
                session.commit_transaction().await
            }
        }
        _ if random.next(8) == 0 => define(db, random, client).await,
        _ => return false,
    };
    done.is_ok()
}

/// DDL of every kind, on names of one client: what it is refused is refused to the source, too.
async fn define(db: &Database, random: &mut Random, client: u32) -> mongodb::error::Result<()> {
    let name = format!("ddl{client}_{}", random.next(3));
    let other = format!("ddl{client}_{}", random.next(3));
    let mine = db.collection::<Document>(&name);
    let number = i32::try_from(random.next(50)).unwrap();
    let run = |command: Document| async { db.run_command(command).await.map(drop) };
    match random.next(22) {
        0 | 1 => mine.insert_one(doc! {"q": number}).await.map(drop),
        2 => {
            let many: Vec<Document> = (0..number + 1).map(|n| doc! {"q": n, "text": "some words"}).collect();
            mine.insert_many(many).await.map(drop)
        }
        3 => mine.drop().await,
        4 | 5 => {
            let to = format!("{}.{other}", db.name());
            let from = format!("{}.{name}", db.name());
            let rename = doc! {"renameCollection": from, "to": to, "dropTarget": true};
            db.client().database("admin").run_command(rename).await.map(drop)
        }
        6 => {
            let index = doc! {"key": {"q": 1}, "name": "q_1", "hidden": random.next(2) == 0};
            run(doc! {"createIndexes": &name, "indexes": [index]}).await
        }
        7 => {
            let unique = doc! {"key": {"q": 1, "_id": 1}, "name": "unique", "unique": true};
            let twin = doc! {"key": {"q": 1, "_id": 1}, "name": "twin"};
            run(doc! {"createIndexes": &name, "indexes": [unique, twin]}).await
        }
        8 => {
            let ttl = doc! {"key": {"at": 1}, "name": "at", "expireAfterSeconds": 1_000 + number};
            let text = doc! {"key": {"text": "text"}, "name": "text"};
            run(doc! {"createIndexes": &name, "indexes": [ttl, text]}).await
        }
        9 => mine.drop_index("q_1").await,
        10 => run(doc! {"dropIndexes": &name, "index": "*"}).await,
        11 => {
            run(doc! {"collMod": &name, "index": {"name": "q_1", "hidden": random.next(2) == 0}}).await
        }
        12 => run(doc! {"collMod": &name, "index": {"name": "q_1", "expireAfterSeconds": 5_000 + number}}).await,
        13 => run(doc! {"collMod": &name, "validator": {"q": {"$lt": number + 1_000}}}).await,
        14 => run(doc! {"create": &name, "capped": true, "size": 8_192, "max": 40}).await,
        15 => run(doc! {"convertToCapped": &name, "size": 16_384}).await,
        16 => run(doc! {"cloneCollectionAsCapped": &name, "toCollection": &other, "size": 16_384}).await,
        17 => run(doc! {"create": &name, "viewOn": "main", "pipeline": [{"$match": {"n": number}}]}).await,
        18 => run(doc! {"collMod": &name, "viewOn": "main", "pipeline": [{"$match": {"m": number}}]}).await,
        19 => {
            run(doc! {"create": &name, "clusteredIndex": {"key": {"_id": 1}, "unique": true}, "expireAfterSeconds": 9_000})
                .await
        }
        20 => {
            let out = vec![doc! {"$match": {"_id": {"$lt": number}}}, doc! {"$out": &name}];
            run(doc! {"aggregate": "c1", "pipeline": out, "cursor": {}}).await
        }
        _ => run(doc! {"create": &name, "collation": {"locale": "en", "strength": 2}}).await,
    }
}
