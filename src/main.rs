//! clustersync
fn main() {
    print!("{}", clustersync::api::crd::yaml().unwrap_or_default());
}
