#!/bin/sh
# A whole migration over the control API: start, watch, finalize, check. SOURCE and TARGET are connection strings;
# NAMESPACES, if set, is what to copy, such as '["shop.*"]'. Stops at what is not as it should be.
set -eu
api=http://localhost:${PORT:-2242}

clustersync serve --source "$SOURCE" --target "$TARGET" --port "${PORT:-2242}" &
serve=$!
trap 'kill $serve; wait $serve || true' EXIT
until curl -fsS "$api/livez" >/dev/null 2>&1; do sleep 0.1; done

# One value out of the answer of a call.
value() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }
call() {
  answer=$(curl -sS -X POST "$api/$1" -d "${2:-"{}"}")
  echo "$1: $answer"
  case $answer in *'"ok":true'*) ;; *) exit 1 ;; esac
}
until_state() {
  while state=$(curl -sS "$api/status" | value state); [ "$state" != "$1" ]; do
    if [ "$state" = failed ]; then curl -sS "$api/status"; exit 1; fi
    sleep 0.5
  done
}

call start "{\"includeNamespaces\": ${NAMESPACES:-[]}}"

# The target is consistent once the initial sync is complete; then let the lag fall, and stop the applications.
until curl -sS "$api/status" | grep -q '"initialSync":{"completed":true'; do sleep 0.5; done
while [ "$(curl -sS "$api/status" | value lagTimeSeconds)" -gt 2 ]; do sleep 1; done

call finalize
until_state finalized
curl -sS "$api/status"
echo
# Indexes that could not be restored are listed; finalize again once their cause is gone.
if curl -sS "$api/status" | grep -q unsuccessfulIndexes; then exit 1; fi
