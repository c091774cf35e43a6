//! Documents that are changed more often than others.

use crate::backlog::{self, Pass};
use crate::bare::{self, Work};
use crate::document::scaled;
use crate::rig::Rig;
use crate::row::{Row, median};
use crate::workload::{self, Mix};

use mongodb::Client;

/// Updates of the one document.
const UPDATES: u32 = 100_000;

/// How many of them the bare program does: one by one, they take as long each.
const ONE_BY_ONE: u32 = 10_000;

/// One document that all updates are of.
pub async fn document(rounds: usize) -> Row {
    let rig = &Rig::standard().await;
    let updates = scaled(UPDATES as i32) as u32;
    // What is there before; the deletes of a mix are not written here.
    let mix = Mix { base: 1_000, ..Mix::plain(updates) };
    let (mut bare_rounds, mut passes) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        rig.clear_target().await;
        workload::fill(&rig.target_client, "bench", &mix).await;
        rig.settle().await;
        bare_rounds.push(bare::run(rig, "one-by-one", &[&ONE_BY_ONE.to_string()]).await);
        passes.push(
            backlog::pass(rig, &mix, async |source| workload::update_one(source, "bench", updates).await)
                .await,
        );
    }
    Row {
        slug: "hot-document".to_owned(),
        title: "100,000 updates of one document".to_owned(),
        measured: "A backlog of nothing but updates of three fields of one document: from the call of resume until the last of them is on the target.".to_owned(),
        ceiling: format!("one client that updates it one by one ({ONE_BY_ONE} times)"),
        bar: "at least 2 times it".to_owned(),
        least_ratio: Some(2.0),
        unit: "events".to_owned(),
        bare: bare_rounds,
        engine: passes.iter().map(|pass| pass.round).collect(),
        figures: backlog::figures(&passes, 128.0),
        ..Row::default()
    }
}

/// In the child: a client that updates one document again and again.
pub async fn one_by_one(target: &Client, args: &[String]) -> Work {
    let updates = args[0].parse().unwrap();
    workload::update_one_by_one(target, "bench", updates).await;
    Work { amount: u64::from(updates), bytes: None }
}

/// Ten documents with a fifth of all updates, against the engine's own rate without them.
pub async fn ten(rounds: usize) -> Row {
    let rig = &Rig::standard().await;
    let plain = backlog::plain();
    let hot = Mix { hot: 20, ..plain };
    let (mut plain_passes, mut passes): (Vec<Pass>, Vec<Pass>) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        plain_passes.push(backlog::engine(rig, &plain).await);
        passes.push(backlog::engine(rig, &hot).await);
    }
    let applied = |passes: &[Pass]| median(passes.iter().map(Pass::applied_rate).collect());
    let mut figures = backlog::figures(&passes, 128.0);
    figures.push(crate::row::Figure::plain(
        "of the plain backlog's rate, from the first event applied",
        applied(&passes) / applied(&plain_passes),
        "",
    ));
    Row {
        slug: "hot-ten".to_owned(),
        title: "The backlog with 20 % of all updates on 10 documents".to_owned(),
        measured: "200,000 operations as in the plain backlog, a fifth of the updates on ten documents: from the call of resume until the last of them is on the target.".to_owned(),
        ceiling: "the engine itself on the plain backlog".to_owned(),
        bar: "at least 0.9 of it".to_owned(),
        least_ratio: Some(0.9),
        unit: "events".to_owned(),
        bare: plain_passes.iter().map(|pass| pass.round).collect(),
        engine: passes.iter().map(|pass| pass.round).collect(),
        figures,
        ..Row::default()
    }
}
