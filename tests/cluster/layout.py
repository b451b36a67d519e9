"""Names, addresses and folders that the parts of the local cluster share."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".cluster"
BIN = STATE / "bin"
LOGS = STATE / "logs"
PKI = STATE / "pki"
ETC = STATE / "etc"
NODE = STATE / "node"
FAILURES = STATE / "failures"
KUBECONFIG = STATE / "kubeconfig"
AUDIT_LOG = STATE / "audit.log"
KUBECTL_CACHE = STATE / "kubectl-cache"
# What each component's process is doing; written by the node's first process.
PROCESSES = NODE / "processes.json"
# What `down` deletes; tools, logs of the last run and reports of failed tests stay.
VOLATILE = (PKI, ETC, NODE, KUBECONFIG, KUBECTL_CACHE)

# Where the node sees `.cluster`. A fixed short path: socket names are limited to 108 bytes,
# and the configuration files then do not depend on where the repository lies.
IN_NODE = Path("/run/cluster")
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

# One cluster a machine: these files and names are the same for every clone of the repository.
MACHINE_STATE = Path("/run/onnx-operator-cluster.json")
MACHINE_LOCK = Path("/run/onnx-operator-cluster.lock")
CGROUP = "onnx-operator-cluster"
HOST_LINK = "onnxop0"

CONTEXT = "onnx-operator-local"
NODE_NAME = "node1"
HOST_ADDRESS = "10.250.0.1"
NODE_ADDRESS = "10.250.0.2"
NODE_NETWORK = "10.250.0.0/24"
POD_NETWORK = "10.244.0.0/16"
POD_SUBNET = "10.244.0.0/24"
FAKE_POD_NETWORK = "10.245.0.1/16"
SERVICE_NETWORK = "10.96.0.0/16"
KUBERNETES_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
API_SERVER = f"https://{NODE_ADDRESS}:6443"
# Pods reach the host under this name and every name below it.
HOST_DOMAIN = "host.test"

# Folders with fixed names in which runtimes leave files: covered in the node, so that the host keeps none.
SHADOWED = (Path("/var/lib/cni"), Path("/var/log/containers"))

BASE_IMAGE = "localhost/python-base:latest"
PAUSE_IMAGE = "localhost/pause:latest"


def cache() -> Path:
    """The user's cache folder of this project; survives `down` and serves every clone."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onnx-operator"


def in_node(path: Path) -> str:
    """The path of a file below `.cluster` as a process in the node sees it."""
    return str(IN_NODE / path.relative_to(STATE))
