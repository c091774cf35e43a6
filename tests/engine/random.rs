//! Random workloads while a sync clones and streams, from a seed that is printed and can be replayed with
//! `SEED=n cargo test --test engine random`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clustersync::sync::{DesiredState, Phase};
use mongodb::Database;
use mongodb::bson::{Bson, Document, Timestamp, doc};

use crate::kill::Worker;
use crate::world::World;

struct Random(u64);

impl Random {
    fn next(&mut self, below: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % below
    }

    fn value(&mut self) -> Bson {
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

async fn step(db: &Database, random: &mut Random, client: u32) {
    let name = if random.next(2) == 0 { "main".to_owned() } else { format!("c{}", random.next(6)) };
    let coll = db.collection::<Document>(&name);
    let id = i32::try_from(random.next(800)).unwrap();
    let one = doc! {"_id": id};
    let field = format!("f{}", random.next(8));
    let _ = match random.next(12) {
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
        _ if random.next(12) == 0 => {
            let other = format!("ddl{client}_{}", random.next(3));
            let mine = db.collection::<Document>(&other);
            match random.next(5) {
                0 => mine.insert_one(doc! {"q": 1}).await.map(drop),
                1 => mine.drop().await,
                2 => {
                    let to = format!("{}.ddl{client}_{}", db.name(), random.next(3));
                    let rename = doc! {"renameCollection": format!("{}.{other}", db.name()), "to": to, "dropTarget": true};
                    db.client().database("admin").run_command(rename).await.map(drop)
                }
                3 => mine
                    .create_index(mongodb::IndexModel::builder().keys(doc! {"q": 1}).build())
                    .await
                    .map(drop),
                _ => mine.drop_index("q_1").await,
            }
        }
        _ => Ok(()),
    };
}

async fn run(seed: u64, kills: u32) {
    println!("seed {seed}");
    let world = World::shared(&format!("random{seed}")).await;
    let mut random = Random(seed);
    for n in 0..600 {
        let key = doc! {"_id": n};
        let set = doc! {"$set": {"v": random.value(), "f1": random.value(), "list": [1, 2]}};
        world.coll("main").update_one(key, set).upsert(true).await.unwrap();
    }
    world.fill("bulk", 20_000, 400).await;
    let until = Instant::now() + Duration::from_secs(8);
    let db = Arc::new(world.src());
    let writers: Vec<_> = (0..3)
        .map(|client| {
            let (db, mut random) = (db.clone(), Random(seed * 31 + u64::from(client)));
            tokio::spawn(async move {
                while Instant::now() < until {
                    step(&db, &mut random, client).await;
                }
            })
        })
        .collect();
    for _ in 0..kills {
        let worker = Worker::start(&world, 4 << 20);
        tokio::time::sleep(Duration::from_millis(600 + u64::from(random.next(1_500)))).await;
        worker.kill();
    }
    let sync = world.start();
    for writer in writers {
        writer.await.unwrap();
    }
    sync.phase(Phase::Streaming).await;
    world.caught_up(&sync).await;
    sync.want(DesiredState::Completed);
    sync.phase(Phase::Completed).await;
    world.assert_identical(false).await;
    sync.stop().await;
}

#[tokio::test]
async fn random_workloads_end_identical() {
    let seeds = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .map_or(vec![1, 2, 3], |seed| vec![seed]);
    for seed in seeds {
        run(seed, 2).await;
    }
}
