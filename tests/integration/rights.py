"""Service accounts whose rights are a test's to give and take: real RBAC."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster.cluster import Cluster


@dataclass
class Limited:
    """A cluster as a service account of few rights sees it."""

    kubeconfig: Path
    username: str


def allow(apiserver: Cluster, namespace: str, account: str) -> None:
    """Everything in one namespace, to the service account ``operator`` of another."""
    rbac = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    role = {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": "all"}, "rules": rules}
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "all"},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "all"},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": account}],
    }
    apiserver.apply(role, namespace)
    apiserver.apply(binding, namespace)


def deny(apiserver: Cluster, namespace: str) -> None:
    """What was allowed there."""
    apiserver.kubectl("delete", "rolebinding", "all", "-n", namespace)


def limited(apiserver: Cluster, namespace: str, kubeconfig: Path, folder: Path) -> Limited:
    """What leads where a kubeconfig does, with the rights of the service account ``operator``, which is made."""
    apiserver.kubectl("create", "serviceaccount", "operator", "-n", namespace)
    token = apiserver.kubectl("create", "token", "operator", "-n", namespace).strip()
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = folder / "limited"
    path.write_text(yaml.safe_dump(config))
    return Limited(path, f"system:serviceaccount:{namespace}:operator")
