//! `docs/resource.md` says what the program says.

use clustersync::api::conditions::reasons;
use clustersync::sync::error::{Class, Reason};

/// The rows of the table of reasons, as the program knows them.
fn rows() -> String {
    let mut rows = String::from("| reason | | what to do |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let class = match reason.class() {
            Class::Transient => "waits",
            Class::Stop => "stops",
        };
        rows.push_str(&format!("| `{reason}` | {class} | {} |\n", reason.remedy().replace('|', "\\|")));
    }
    rows
}

#[test]
fn the_reference_lists_every_reason() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/resource.md");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(&rows()), "the table of reasons in docs/resource.md should be:\n{}", rows());
    for reason in reasons::ALL {
        assert!(text.contains(&format!("`{reason}`")), "docs/resource.md does not explain {reason}");
    }
}
