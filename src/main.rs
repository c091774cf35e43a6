//! clustersync
fn main() {}
