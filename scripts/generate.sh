#!/usr/bin/env bash
# Writes what is generated: the CRD from src/api, the charts' copies of the CRD and of the rights in deploy/base,
# and deploy/install.yaml from the chart.
#   scripts/generate.sh            write
#   scripts/generate.sh --check    write nothing; exit 1 and name what is not current
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in ''|--check) ;; *) echo "usage: scripts/generate.sh [--check]" >&2; exit 2;; esac

out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
crd=crds/clustersyncs.clustersync.dev.yaml
chart=charts/clustersync
mkdir -p "$out/crds" "$out/deploy" "$out/$chart/templates" "$out/$chart/files" "$out/$chart-crds/templates" "$out/$chart-crds/files"

cargo run --quiet --bin clustersync -- crd > "$out/$crd"

sed '/^  name: clustersyncs\.clustersync\.dev$/a\
  {{- if .Values.crds.keep }}\
  annotations:\
    helm.sh/resource-policy: keep\
  {{- end }}' "$out/$crd" > "$out/$chart-crds/templates/crd.yaml"
{ echo '{{- if .Values.crds.enabled }}'
  cat "$out/$chart-crds/templates/crd.yaml"
  echo '{{- end }}'; } > "$out/$chart/templates/crd.yaml"

for role in role leader-role; do
  sed -n '/^rules:/,$p' "deploy/base/$role.yaml" > "$out/$chart/files/$role-rules.yaml"
done
cp "$out/$chart/files/role-rules.yaml" "$out/$chart-crds/files/"
cp "$chart/templates/_user-roles.tpl" "$out/$chart-crds/templates/"

helm=$(scripts/tools.sh --env | sed -n 's/^CLUSTERSYNC_HELM=//p')
[ -x "$helm" ] || { scripts/tools.sh helm; helm=$(scripts/tools.sh --env | sed -n 's/^CLUSTERSYNC_HELM=//p'); }
cp -r "$chart" "$out/rendered"
cp -r "$out/$chart/." "$out/rendered"
{ echo '# Generated from charts/clustersync by scripts/generate.sh; do not edit.'
  echo '---'
  cat deploy/base/namespace.yaml
  "$helm" template clustersync "$out/rendered" --namespace clustersync-system \
    --kube-version 1.35 --no-hooks; } > "$out/deploy/install.yaml"
rm -r "$out/rendered"

stale=0
while read -r file; do
  cmp -s "$out/$file" "$file" && continue
  if [ "${1:-}" = --check ]; then
    echo "$file is not current: run scripts/generate.sh" >&2; stale=1
  else
    mkdir -p "$(dirname "$file")"; cp "$out/$file" "$file"; echo "wrote $file"
  fi
done < <(cd "$out" && find . -type f -printf '%P\n' | sort)
exit $stale
