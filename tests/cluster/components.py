"""The programs of the node: what each is called with, and after which other it starts."""

from __future__ import annotations

from dataclasses import dataclass

from tests.cluster.layout import (
    AUDIT_LOG,
    CONTAINERD_SOCKET,
    ETC,
    FAKE_POD_NETWORK,
    NODE,
    NODE_ADDRESS,
    NODE_NAME,
    PKI,
    SERVICE_NETWORK,
    in_node,
)


@dataclass(frozen=True)
class Component:
    """A program that runs as long as the node does."""

    name: str
    argv: list[str]
    # The rest would only log errors until the API server answers, and some give up.
    needs_api_server: bool = True


def _pki(file: str) -> str:
    return in_node(PKI / file)


def _etc(file: str) -> str:
    return in_node(ETC / file)


def _delegating(name: str) -> list[str]:
    config = _etc(f"{name}.kubeconfig")
    return [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
    ]


def etcd_argv(client: str, peer: str, data: str) -> list[str]:
    """Arguments of an etcd whose data is not worth a disk flush."""
    return [
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def api_server_argv(pki: str, etcd: str, audit_policy: str, audit_log: str) -> list[str]:
    """Arguments that every API server of these tests shares; `pki` is the folder of certificates."""
    return [
        f"--etcd-servers={etcd}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--authorization-mode=Node,RBAC",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/service-accounts.pub",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        f"--audit-policy-file={audit_policy}",
        f"--audit-log-path={audit_log}",
        # Written before the call is answered: a test may count as soon as it has its answer.
        "--audit-log-mode=blocking",
        "--audit-log-maxsize=100",
        "--audit-log-maxbackup=3",
    ]


def _api_server() -> list[str]:
    return [
        "kube-apiserver",
        *api_server_argv(in_node(PKI), "http://127.0.0.1:2379", _etc("audit-policy.yaml"), in_node(AUDIT_LOG)),
        f"--advertise-address={NODE_ADDRESS}",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        f"--cert-dir={in_node(NODE)}/apiserver",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={_pki('ca.crt')}",
        f"--kubelet-client-certificate={_pki('apiserver-kubelet.crt')}",
        f"--kubelet-client-key={_pki('apiserver-kubelet.key')}",
        "--enable-aggregator-routing=true",
        f"--requestheader-client-ca-file={_pki('front-proxy-ca.crt')}",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={_pki('front-proxy.crt')}",
        f"--proxy-client-key-file={_pki('front-proxy.key')}",
    ]


def _controller_manager() -> list[str]:
    return [
        "kube-controller-manager",
        *_delegating("kube-controller-manager"),
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--root-ca-file={_pki('ca.crt')}",
        f"--service-account-private-key-file={_pki('service-accounts.key')}",
        f"--cluster-signing-cert-file={_pki('ca.crt')}",
        f"--cluster-signing-key-file={_pki('ca.key')}",
        "--kube-api-qps=200",
        "--kube-api-burst=300",
        # Tests of autoscaling wait for these; the defaults are for clusters that people pay for.
        "--horizontal-pod-autoscaler-sync-period=5s",
        "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
        "--horizontal-pod-autoscaler-downscale-stabilization=20s",
    ]


def components() -> list[Component]:
    """All programs of the node."""
    return [
        Component(
            "etcd",
            ["etcd", *etcd_argv("http://127.0.0.1:2379", "http://127.0.0.1:2380", in_node(NODE / "etcd"))],
            needs_api_server=False,
        ),
        Component("kube-apiserver", _api_server(), needs_api_server=False),
        Component("containerd", ["containerd", "--config", _etc("containerd.toml")], needs_api_server=False),
        Component("kube-controller-manager", _controller_manager()),
        Component(
            "kube-scheduler",
            [
                "kube-scheduler",
                *_delegating("kube-scheduler"),
                "--bind-address=127.0.0.1",
                "--leader-elect=false",
                "--kube-api-qps=200",
                "--kube-api-burst=300",
            ],
        ),
        Component(
            "kubelet",
            [
                "kubelet",
                f"--config={_etc('kubelet.yaml')}",
                f"--kubeconfig={_etc('kubelet.kubeconfig')}",
                f"--root-dir={in_node(NODE / 'kubelet')}",
                f"--hostname-override={NODE_NAME}",
                f"--node-ip={NODE_ADDRESS}",
            ],
        ),
        Component("kube-proxy", ["kube-proxy", f"--config={_etc('kube-proxy.yaml')}"]),
        Component("coredns", ["coredns", "-conf", _etc("Corefile")]),
        Component(
            "metrics-server",
            [
                "metrics-server",
                *_delegating("metrics-server"),
                f"--cert-dir={in_node(NODE / 'metrics-server')}",
                "--secure-port=4443",
                "--kubelet-insecure-tls",
                "--kubelet-preferred-address-types=InternalIP",
                "--metric-resolution=10s",
                "--kubelet-request-timeout=5s",
            ],
        ),
        Component(
            "kwok",
            [
                "kwok",
                f"--config={_etc('kwok.yaml')}",
                f"--kubeconfig={_etc('kwok.kubeconfig')}",
                "--manage-all-nodes=false",
                "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                # Nothing listens there, so that metrics-server fails at once on nodes that do not exist.
                "--node-ip=127.0.0.1",
                "--node-port=10247",
                f"--cidr={FAKE_POD_NETWORK}",
                "--node-lease-duration-seconds=40",
            ],
        ),
    ]


def socket_url() -> str:
    """Where the kubelet finds its container runtime."""
    return f"unix://{CONTAINERD_SOCKET}"
