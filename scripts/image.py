#!/usr/bin/env python3
"""Write an OCI image archive of the operator without a container engine: `make image`.

usage: scripts/image.py BINARY OUT.tar [NAME:TAG]

What is in it: the binary, the loader and the libraries that it links, a user to run as, the licence, and a bill of
materials (CycloneDX). No shell, no package manager. The same inputs give the same bytes.
Load it with `ctr -n k8s.io images import`, `docker load`, `podman load`, or copy it with `skopeo copy oci-archive:…`.
"""
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from datetime import datetime, timezone

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
USER = 65532  # As the chart runs it.


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def metadata():
    args = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"]
    return json.loads(run(*args))


def shipped(data):
    """The package itself, and what is linked into it: no development or build dependencies."""
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    found, todo = set(), [data["resolve"]["root"]]
    while todo:
        key = todo.pop()
        if key in found:
            continue
        found.add(key)
        for dep in nodes[key]["deps"]:
            if any(kind["kind"] is None for kind in dep["dep_kinds"]):
                todo.append(dep["pkg"])
    return sorted((p for p in data["packages"] if p["id"] in found), key=lambda p: (p["name"], p["version"]))


def bill_of_materials(data, created):
    def component(package, kind):
        found = {
            "type": kind,
            "name": package["name"],
            "version": package["version"],
            "purl": f"pkg:cargo/{package['name']}@{package['version']}",
        }
        if package.get("license"):
            found["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        return found

    packages = shipped(data)
    root = next(p for p in packages if p["id"] == data["resolve"]["root"])
    libraries = [component(p, "library") for p in packages if p is not root]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": created, "component": component(root, "application")},
        "components": libraries,
    }


def libraries(binary):
    """(path in the image, file) of the loader and of everything that it loads."""
    found = {}
    for line in run("ldd", binary).splitlines():
        match = re.match(r"\s*(?:(\S+) => )?(/\S+) \(0x", line)
        if match:
            found[match.group(2)] = os.path.realpath(match.group(2))
        elif "not found" in line:
            sys.exit(f"image: {line.strip()}")
    return sorted(found.items())


def add(archive, path, content, mode=0o644):
    info = tarfile.TarInfo(path.lstrip("/"))
    info.size, info.mode = len(content), mode
    archive.addfile(info, io.BytesIO(content))


def layer(files):
    """A layer of {path: (content, mode)}: its digest, the digest of what is inside, and its bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        folders = set()
        for path in sorted(files):
            parts = path.strip("/").split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                folder = "/".join(parts[:depth])
                if folder not in folders:
                    folders.add(folder)
                    info = tarfile.TarInfo(folder)
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(info)
            add(archive, path, *files[path])
    packed = gzip.compress(plain.getvalue(), 6, mtime=0)
    return digest(packed), digest(plain.getvalue()), packed


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def epoch():
    """The moment that counts as the image's: the last commit's, unless the caller says another."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    try:
        return int(run("git", "log", "-1", "--format=%ct"))
    except (subprocess.CalledProcessError, FileNotFoundError, ValueError):
        return 0


def revision():
    try:
        return run("git", "rev-parse", "HEAD").strip()
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "unknown"


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__.split("\n\n")[1])
    binary, out = sys.argv[1:3]
    data = metadata()
    package = next(p for p in data["packages"] if p["id"] == data["resolve"]["root"])
    name = sys.argv[3] if len(sys.argv) == 4 else f"clustersync:{package['version']}"
    created = datetime.fromtimestamp(epoch(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    system = {path: (read(file), 0o755) for path, file in libraries(binary)}
    system["/etc/passwd"] = (f"clustersync:x:{USER}:{USER}::/:/sbin/nologin\n".encode(), 0o644)
    system["/etc/group"] = (f"clustersync:x:{USER}:\n".encode(), 0o644)
    # Names are looked up as on any host; nothing else is asked.
    system["/etc/nsswitch.conf"] = (b"hosts: files dns\n", 0o644)
    program = {
        "/usr/bin/clustersync": (read(binary), 0o755),
        "/usr/share/doc/clustersync/LICENSE": (read(os.path.join(ROOT, "LICENSE")), 0o644),
        "/usr/share/sbom/clustersync.cdx.json": (
            json.dumps(bill_of_materials(data, created), indent=1).encode(),
            0o644,
        ),
    }
    layers = [layer(system), layer(program)]
    labels = {
        "org.opencontainers.image.title": "clustersync",
        "org.opencontainers.image.description": package["description"],
        "org.opencontainers.image.version": package["version"],
        "org.opencontainers.image.revision": revision(),
        "org.opencontainers.image.licenses": package["license"],
        "org.opencontainers.image.created": created,
    }
    config = json.dumps({
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "Env": ["PATH=/usr/bin"],
            "Entrypoint": ["/usr/bin/clustersync"],
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [inside for _, inside, _ in layers]},
        "history": [
            {"created": created, "created_by": "loader and libraries"},
            {"created": created, "created_by": "clustersync"},
        ],
    }).encode()
    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(config),
            "size": len(config),
        },
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": outer, "size": len(packed)}
            for outer, _, packed in layers
        ],
        "annotations": labels,
    }).encode()
    index = json.dumps({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(manifest),
            "size": len(manifest),
            "platform": {"architecture": "amd64", "os": "linux"},
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rsplit(":", 1)[-1],
            },
        }],
    }).encode()
    blobs = {digest(config): config, digest(manifest): manifest}
    blobs.update({outer: packed for outer, _, packed in layers})
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    with tarfile.open(out + ".new", "w") as archive:
        add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add(archive, "index.json", index)
        # What `docker load` of before OCI archives looks for.
        tagged = [{
            "Config": "blobs/sha256/" + digest(config)[7:],
            "RepoTags": [name],
            "Layers": ["blobs/sha256/" + outer[7:] for outer, _, _ in layers],
        }]
        add(archive, "manifest.json", json.dumps(tagged).encode())
        for key in sorted(blobs):
            add(archive, "blobs/sha256/" + key[7:], blobs[key])
    os.replace(out + ".new", out)
    print(f"{out}: {name}, {os.path.getsize(out) / 1e6:.1f} MB, manifest {digest(manifest)}")


main()
