#!/usr/bin/env bash
# Image, chart and pods on a real cluster. On a node of our own (root), or, with E2E_KUBECONFIG, IMAGE, SOURCE_URI and
# TARGET_URI, on a cluster that stands ready; its pods must reach both databases, and so must this machine. Arguments go to
# the tests, such as the name of one. LONG=1 takes the apiserver away for ten minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

if [ -n "${E2E_KUBECONFIG:-}" ]; then
  for needed in IMAGE SOURCE_URI TARGET_URI; do
    [ -n "${!needed:-}" ] || { echo "e2e: $needed is not set" >&2; exit 2; }
  done
  scripts/tools.sh kubectl helm
  exec cargo test --test e2e -- --ignored --nocapture --test-threads=1 "$@"
fi

[ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ] || { echo "e2e: a node of our own needs root on Linux; or set E2E_KUBECONFIG" >&2; exit 2; }
scripts/tools.sh mongod control-plane helm node prometheus
cargo build --release --bin clustersync
cargo test --no-run --test e2e
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
export IMAGE=lab.local/clustersync:$version
archive=$target/image/e2e.tar
scripts/image.py "$target/release/clustersync" "$archive" "$IMAGE"
trap 'scripts/node.sh down' EXIT
scripts/node.sh up
scripts/node.sh image "$archive"
scripts/node.sh exec cargo test --offline --test e2e -- --ignored --nocapture --test-threads=1 "$@"
