//! The flights of New York City, 2013 (CC0): 336,776 rows as typed documents.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use mongodb::bson::{Bson, Document, doc};
use mongodb::options::IndexOptions;
use mongodb::{Client, IndexModel};

const BATCH: usize = 5_000;

/// `NA` is null, numbers are integers, the rest is text.
fn value(text: &str) -> Bson {
    match text {
        "NA" | "" => Bson::Null,
        text => text.parse::<i32>().map_or_else(|_| text.into(), Bson::Int32),
    }
}

/// Load the archive into `demo.flights`, with two indexes and a unique one; how many.
pub async fn load(client: &Client, archive: &Path) -> usize {
    let mut zip = zip::ZipArchive::new(File::open(archive).unwrap()).unwrap();
    let mut text = String::new();
    zip.by_index(0).unwrap().read_to_string(&mut text).unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let flights = client.database("demo").collection::<Document>("flights");
    let (mut batch, mut count) = (Vec::with_capacity(BATCH), 0);
    for record in reader.records() {
        let record = record.unwrap();
        let fields = names.iter().zip(record.iter()).filter(|(name, _)| !name.is_empty());
        let mut flight = Document::new();
        flight.insert("_id", i32::try_from(count).unwrap());
        flight.extend(fields.map(|(name, text)| (name.clone(), value(text))));
        batch.push(flight);
        count += 1;
        if batch.len() == BATCH {
            flights.insert_many(std::mem::take(&mut batch)).await.unwrap();
        }
    }
    flights.insert_many(batch).await.unwrap();
    let unique = IndexOptions::builder().unique(true).build();
    for (keys, options) in [
        (doc! {"dest": 1}, IndexOptions::default()),
        (doc! {"carrier": 1, "dep_delay": -1}, IndexOptions::default()),
        (doc! {"carrier": 1, "flight": 1, "origin": 1, "time_hour": 1}, unique),
    ] {
        flights.create_index(IndexModel::builder().keys(keys).options(options).build()).await.unwrap();
    }
    count
}
