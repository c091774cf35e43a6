#!/usr/bin/env bash
# A real Kubernetes cluster of one node, for `make e2e`: etcd, apiserver, controller manager, scheduler, containerd, kubelet
# and kube-proxy in a network namespace of their own. Needs root. Pods reach the node by 10.99.0.1 and nothing outside.
#   scripts/node.sh up | down             start it; end it and leave nothing behind
#   scripts/node.sh exec COMMAND…         run a command inside its network, with KUBECONFIG
#   scripts/node.sh image ARCHIVE         load an OCI archive
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
eval "$("$here/tools.sh" --env | grep -E '^CLUSTERSYNC_(CONTROL_PLANE|NODE|KUBECTL)=')"
plane=$CLUSTERSYNC_CONTROL_PLANE tools=$CLUSTERSYNC_NODE kubectl=$CLUSTERSYNC_KUBECTL
dir=${CLUSTERSYNC_NODE_DIR:-/var/tmp/clustersync-node} net=clustersync ip=10.99.0.1
export KUBECONFIG=$dir/kubeconfig
say() { printf 'node: %s\n' "$*" >&2; }

inside() { nsenter --net=/run/netns/$net "$@"; }
# start NAME COMMAND…: in a session of its own, so that a Ctrl-C in the terminal lets `down` do its work.
start() {
  local name=$1; shift
  (cd "$dir"; exec setsid nsenter --net=/run/netns/$net "$@") > "$dir/$name.log" 2>&1 < /dev/null &
  echo $! > "$dir/$name.pid"
}
until_true() { # SECONDS WHAT COMMAND…
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { say "$what: not within the time; logs are in $dir"; tail -n 5 "$dir"/*.log >&2; exit 1; }
    sleep 0.3
  done
}

certificates() {
  mkdir -p "$dir/certs"; cd "$dir/certs"
  openssl genrsa -out sa.key 2048 2>/dev/null; openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=lab-ca -days 30 2>/dev/null
  local name subject
  while read -r name subject; do
    openssl req -newkey rsa:2048 -nodes -keyout "$name.key" -out "$name.csr" -subj "$subject" 2>/dev/null
    openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$name.crt" -extfile \
      <(echo "subjectAltName=IP:$ip,IP:127.0.0.1,IP:10.0.0.1,DNS:localhost,DNS:kubernetes.default.svc") 2>/dev/null
  done <<< "admin /O=system:masters/CN=admin
api /CN=kube-apiserver"
  cat > "$KUBECONFIG" <<Y
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://$ip:6443", certificate-authority: $dir/certs/ca.crt}}]
users: [{name: admin, user: {client-certificate: $dir/certs/admin.crt, client-key: $dir/certs/admin.key}}]
contexts: [{name: lab, context: {cluster: lab, user: admin}}]
current-context: lab
Y
}

etcd() {
  start etcd "$plane/etcd" --data-dir "$dir/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync --log-level error
}
apiserver() {
  start apiserver "$plane/kube-apiserver" --etcd-servers http://127.0.0.1:2379 --tls-cert-file certs/api.crt --tls-private-key-file certs/api.key \
    --secure-port 6443 --bind-address 0.0.0.0 --advertise-address $ip --service-cluster-ip-range 10.0.0.0/24 --authorization-mode RBAC \
    --allow-privileged=true --service-account-issuer https://kubernetes.default.svc --service-account-key-file certs/sa.pub \
    --service-account-signing-key-file certs/sa.key --client-ca-file certs/ca.crt --kubelet-preferred-address-types InternalIP \
    --kubelet-client-certificate certs/admin.crt --kubelet-client-key certs/admin.key
}

# Without a distribution's defaults: restrict_oom_score_adj, since a container's own score may not be lowered here.
containerd_config() {
  mkdir -p "$dir/cni"
  cat > "$dir/cni/10-bridge.conflist" <<'Y'
{"cniVersion": "0.4.0", "name": "lab", "plugins": [
  {"type": "bridge", "bridge": "cni1", "isGateway": true, "ipMasq": false,
   "ipam": {"type": "host-local", "subnet": "10.244.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
Y
  cat > "$dir/containerd.toml" <<Y
version = 2
root = "$dir/containerd"
state = "$dir/containerd-state"
[grpc]
  address = "$dir/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "lab.local/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$dir/cni"
Y
  cat > "$dir/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $dir/certs/ca.crt}}
authorization: {mode: AlwaysAllow}
failSwapOn: false
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://$dir/containerd.sock
evictionHard: {memory.available: "1%", nodefs.available: "1%", imagefs.available: "1%"}
localStorageCapacityIsolation: false
clusterDomain: cluster.local
clusterDNS: [$ip]
Y
}

up() {
  [ "$(id -u)" = 0 ] || { say "a node needs root"; exit 1; }
  [ ! -e "$dir/etcd.pid" ] || { say "one is up already: scripts/node.sh down"; exit 1; }
  mkdir -p "$dir"; chmod 711 "$dir"
  ip netns add $net
  inside ip link set lo up; inside ip link add cni0 type bridge; inside ip addr add $ip/24 dev cni0; inside ip link set cni0 up
  inside ip route add default dev cni0; inside sysctl -qw net.ipv4.ip_forward=1
  certificates
  etcd; apiserver
  until_true 90 "the apiserver" inside "$kubectl" get --raw /readyz
  start controllers "$plane/kube-controller-manager" --kubeconfig "$KUBECONFIG" --service-account-private-key-file certs/sa.key \
    --root-ca-file certs/ca.crt --leader-elect=false --bind-address 127.0.0.1
  start scheduler "$tools/kube-scheduler" --kubeconfig "$KUBECONFIG" --leader-elect=false
  containerd_config
  start containerd containerd -c "$dir/containerd.toml"
  until_true 30 containerd ctr -a "$dir/containerd.sock" version
  pause_image
  start kubelet "$tools/kubelet" --config "$dir/kubelet.yaml" --kubeconfig "$KUBECONFIG" --hostname-override node1 --node-ip $ip \
    --root-dir "$dir/kubelet" --cert-dir "$dir/kubelet-certs"
  start dns python3 "$here/node-dns.py" $ip "$kubectl"
  start proxy "$tools/kube-proxy" --kubeconfig "$KUBECONFIG" --hostname-override node1 --proxy-mode iptables --conntrack-max-per-core 0 --bind-address $ip
  until_true 90 "the node" inside "$kubectl" wait --for=condition=Ready node/node1 --timeout=1s
  say "ready; KUBECONFIG=$KUBECONFIG, reached by: scripts/node.sh exec kubectl get nodes"
}

pause_image() {
  python3 - "$tools/pause" "$dir/pause.tar" <<'P'
import hashlib, io, json, sys, tarfile
binary, out = sys.argv[1:]
digest = lambda content: "sha256:" + hashlib.sha256(content).hexdigest()
plain = io.BytesIO()
with tarfile.open(fileobj=plain, mode="w") as archive:
    archive.add(binary, "pause")
layer = plain.getvalue()
config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
    "rootfs": {"type": "layers", "diff_ids": [digest(layer)]}}).encode()
kind = "application/vnd.oci.image."
manifest = json.dumps({"schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
    "config": {"mediaType": kind + "config.v1+json", "digest": digest(config), "size": len(config)},
    "layers": [{"mediaType": kind + "layer.v1.tar", "digest": digest(layer), "size": len(layer)}]}).encode()
index = json.dumps({"schemaVersion": 2, "manifests": [{"mediaType": kind + "manifest.v1+json", "digest": digest(manifest),
    "size": len(manifest), "annotations": {"io.containerd.image.name": "lab.local/pause:1"}}]}).encode()
with tarfile.open(out, "w") as archive:
    for name, content in [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index)] + [
            ("blobs/sha256/" + digest(blob)[7:], blob) for blob in (config, manifest, layer)]:
        info = tarfile.TarInfo(name); info.size = len(content); archive.addfile(info, io.BytesIO(content))
P
  load "$dir/pause.tar"
}
load() { ctr -a "$dir/containerd.sock" -n k8s.io images import "$1" >/dev/null; }

end() { # NAME: ask, then insist
  local pid; pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 0
  kill -CONT "$pid" 2>/dev/null || true; kill "$pid" 2>/dev/null || return 0
  for _ in $(seq 30); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.2; done
  kill -9 "$pid" 2>/dev/null || true
}
down() {
  [ -d "$dir" ] || return 0
  for name in dns proxy kubelet scheduler controllers; do end $name; done
  local shim
  for shim in $(pgrep -f "containerd-shim.* -address $dir/containerd.sock"); do
    pkill -9 -P "$shim" || true; kill -9 "$shim" 2>/dev/null || true
  done
  for name in containerd apiserver etcd; do end $name; done
  for _ in 1 2 3; do grep -oE " $dir[^ ]*" /proc/mounts | sort -r | xargs -r umount -l 2>/dev/null || true; done
  ip netns pids $net 2>/dev/null | xargs -r kill -9 2>/dev/null || true
  ip netns del $net 2>/dev/null || true
  find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} + 2>/dev/null || true
  rm -rf "$dir"
}

case ${1:-} in
  up) up;;
  down) down;;
  exec) shift; inside env PATH="$(dirname "$kubectl"):$PATH" "$@";;
  image) load "$2";;
  # For tests that take parts away.
  start) case $2 in etcd) etcd;; apiserver) apiserver;; esac;;
  stop) end "$2"; rm -f "$dir/$2.pid";;
  signal) kill "-$3" "$(cat "$dir/$2.pid")";;
  *) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2;;
esac
