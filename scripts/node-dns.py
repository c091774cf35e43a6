#!/usr/bin/env python3
"""The cluster's DNS on the node of `make e2e`: names of Services, out of the apiserver, and nothing else.

usage: node-dns.py ADDRESS KUBECTL   (KUBECONFIG says where the apiserver is)
"""
import socket
import struct
import subprocess
import sys

SUFFIX = ".svc.cluster.local"


def address(name, kubectl):
    """The address of `service.namespace.svc.cluster.local`; none if there is no such Service."""
    if not name.endswith(SUFFIX) or name[: -len(SUFFIX)].count(".") != 1:
        return None
    service, namespace = name[: -len(SUFFIX)].split(".")
    command = [kubectl, "-n", namespace, "get", "service", service, "-o", "jsonpath={.spec.clusterIP}"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout
    return found if found.count(".") == 3 else None


def answer(query, kubectl):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += query[at] + 1
    question = query[12 : at + 5]
    kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
    found = address(".".join(labels).lower(), kubectl)
    # Authoritative; "no such name", or a name without a record of that kind.
    code, count = (0x8400 if found else 0x8403), (1 if found and kind == 1 else 0)
    reply = query[:2] + struct.pack(">HHHHH", code, 1, count, 0, 0) + question
    if count:
        reply += struct.pack(">HHHIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton(found)
    return reply


def main():
    host, kubectl = sys.argv[1:]
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((host, 53))
    while True:
        query, client = server.recvfrom(512)
        try:
            server.sendto(answer(query, kubectl), client)
        except (IndexError, UnicodeDecodeError, struct.error, subprocess.TimeoutExpired):
            continue


main()
