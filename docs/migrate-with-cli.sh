#!/bin/sh
# A whole migration with the command line: start, watch, finalize, check. SOURCE and TARGET are connection strings;
# NAMESPACES, if set, is what to copy, such as 'shop.*,crm.customers'. Stops at what is not as it should be.
set -eu
port=${PORT:-2242}

clustersync serve --source "$SOURCE" --target "$TARGET" --port "$port" &
serve=$!
trap 'kill $serve; wait $serve || true' EXIT
until clustersync status --port "$port" >/dev/null 2>&1; do sleep 0.1; done

clustersync start --port "$port" --include-namespaces "${NAMESPACES:-*.*}"

until clustersync status --port "$port" | grep -q '"phase": *"Streaming"'; do
  clustersync status --port "$port" >/dev/null # exit code 1 once it has failed
  sleep 0.5
done

# Stop the applications here. Finalize drains to what the source holds when it is called.
clustersync finalize --port "$port"
clustersync status --watch --port "$port" # until it is finalized, or has failed
