"""The configuration files of the components, and the objects that a new cluster starts with."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import yaml

from tests.cluster.components import components, socket_url
from tests.cluster.layout import (
    CONTAINERD_SOCKET,
    DNS_ADDRESS,
    ETC,
    HOST_ADDRESS,
    HOST_DOMAIN,
    NODE,
    NODE_ADDRESS,
    NODE_NAME,
    PAUSE_IMAGE,
    PKI,
    POD_NETWORK,
    POD_SUBNET,
    in_node,
)

AUDIT_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


def _kubelet() -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # Not on loopback: see the address that fake nodes claim.
        "address": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": in_node(PKI / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": in_node(PKI / "kubelet.crt"),
        "tlsPrivateKeyFile": in_node(PKI / "kubelet.key"),
        "containerRuntimeEndpoint": socket_url(),
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": "/onnx-operator-cluster",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "maxPods": 250,
        "podLogsDir": in_node(NODE / "pod-logs"),
        "volumePluginDir": in_node(NODE / "volume-plugins"),
        "resolvConf": "/dev/null",
        "clusterDomain": "cluster.local",
        "clusterDNS": [NODE_ADDRESS],
        "serializeImagePulls": False,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 300,
        # The disk is the developer's own: neither pods nor images go because it is nearly full.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def _kube_proxy() -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": in_node(ETC / "kube-proxy.kubeconfig")},
        "mode": "nftables",
        "clusterCIDR": POD_NETWORK,
        "hostnameOverride": NODE_NAME,
        "oomScoreAdj": 0,
        # The default of a second is longer than a test waits between a pod's readiness and a call.
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        # Host-wide limits: not the node's to change.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }


def _cni() -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "hairpinMode": True,
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": POD_SUBNET}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": "/run/cni",
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


_CONTAINERD = f"""\
version = 3
root = "{in_node(NODE / "containerd")}"
state = "/run/containerd"

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
path = "{in_node(NODE / "opt")}"

[plugins."io.containerd.nri.v1.nri"]
disable = true

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.images".registry]
config_path = "{in_node(ETC / "registries")}"

[plugins."io.containerd.cri.v1.runtime"]
# Without the capability to lower a score, every sandbox would fail.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "{in_node(ETC / "cni")}"

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
"""

_COREFILE = f"""\
cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {NODE_ADDRESS}
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {in_node(ETC / "coredns.kubeconfig")}
        ttl 5
    }}
}}
.:53 {{
    bind {NODE_ADDRESS}
    errors
    # The host, where tests run servers of their own, under as many names as they like.
    template IN A {{
        match "(^|[.]){HOST_DOMAIN.replace(".", "[.]")}[.]$"
        answer "{{{{ .Name }}}} 5 IN A {HOST_ADDRESS}"
        fallthrough
    }}
    template IN AAAA {HOST_DOMAIN} {{
        rcode NOERROR
    }}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""

# A registry that a test runs on the host speaks plain HTTP.
_REGISTRY = f"""\
server = "http://{HOST_ADDRESS}:5000"

[host."http://{HOST_ADDRESS}:5000"]
capabilities = ["pull", "resolve"]
"""


def files() -> dict[str, str]:
    """The configuration files by their path below the folder `etc`."""

    def dump(document: dict[str, Any]) -> str:
        return yaml.safe_dump(document, sort_keys=False)

    return {
        "audit-policy.yaml": dump(AUDIT_POLICY),
        "kubelet.yaml": dump(_kubelet()),
        "kube-proxy.yaml": dump(_kube_proxy()),
        "containerd.toml": _CONTAINERD,
        "Corefile": _COREFILE,
        "cni/10-pods.conflist": json.dumps(_cni(), indent=2),
        f"registries/{HOST_ADDRESS}:5000/hosts.toml": _REGISTRY,
        "kwok.yaml": "",
        "components.json": json.dumps(
            [{"name": c.name, "argv": c.argv, "needs_api_server": c.needs_api_server} for c in components()],
            indent=2,
        ),
        "objects.yaml": yaml.safe_dump_all(_objects(), sort_keys=False),
    }


def fingerprint() -> str:
    """Changes when the cluster would be set up differently, so that `up` then sets it up again."""
    return hashlib.sha256(json.dumps(files(), sort_keys=True).encode()).hexdigest()


def _external(name: str, address: str | None, ports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A Service in kube-system for a program that runs on the node outside of any pod."""
    metadata = {"name": name, "namespace": "kube-system"}
    spec: dict[str, Any] = {"ports": [_service(port) for port in ports]}
    if address:
        spec["clusterIP"] = address
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{k: v for k, v in p.items() if k != "service"} for p in ports],
            "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
        },
    ]


def _service(port: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": port["name"],
        "protocol": port["protocol"],
        "port": port.get("service", port["port"]),
        "targetPort": port["port"],
    }


def _objects() -> list[dict[str, Any]]:
    return [
        *_external(
            "kube-dns",
            DNS_ADDRESS,
            [
                {"name": "dns", "protocol": "UDP", "port": 53},
                {"name": "dns-tcp", "protocol": "TCP", "port": 53},
            ],
        ),
        *_external("metrics-server", None, [{"name": "https", "protocol": "TCP", "port": 4443, "service": 443}]),
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {"name": "metrics-server", "namespace": "kube-system", "port": 443},
            },
        },
    ]
