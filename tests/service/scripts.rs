//! The scripts of the documentation, run as they are.

use std::process::Command;

use mongodb::bson::doc;

use crate::stand::Stand;

/// Run a script while the source is written to; everything that it acknowledged before is on the target after.
async fn migrates(script: &str, db: &str, namespaces: &str) {
    let stand = Stand::new(db).await;
    stand.fill("c", 4_000, 300).await;
    let index =
        doc! {"createIndexes": "c", "indexes": [{"key": {"n": 1, "_id": 1}, "name": "u", "unique": true}]};
    stand.source.database(db).run_command(index).await.unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_clustersync")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(format!("{}/docs/{script}", env!("CARGO_MANIFEST_DIR")));
    command
        .env("PATH", path)
        .env("SOURCE", &stand.source_uri)
        .env("TARGET", &stand.target_uri)
        .env("PORT", crate::lab::free_port().to_string())
        .env("NAMESPACES", namespaces);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("finalized"), "{said}");
    stand.assert_identical(false).await;
}

/// One after the other: they are the same sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_with_curl_and_one_with_the_command_line() {
    migrates("migrate-with-curl.sh", "with_curl", r#"["with_curl.*"]"#).await;
    migrates("migrate-with-cli.sh", "with_cli", "with_cli.*").await;
}
