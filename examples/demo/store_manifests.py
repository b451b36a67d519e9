"""What the S3 server consists of in the cluster."""

from __future__ import annotations

from typing import Any

PORT = 7070
BUCKET = "models"
NAME = "s3"
KEYS_SECRET = "s3-keys"
_LABELS = {"app": NAME}
# The bucket of a folder server is a folder: no call to make one that already exists.
_START = f"mkdir -p /data/{BUCKET} && exec versitygw --quiet --port :{PORT} posix /data"


def store_manifests(namespace: str, image: str, content_key: str) -> list[dict[str, Any]]:
    """The Deployment and its Service; a new content key of the image replaces the pod."""
    return [_deployment(namespace, image, content_key), _service(namespace)]


def _service(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {"selector": _LABELS, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    }


def _deployment(namespace: str, image: str, content_key: str) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": _LABELS},
            "template": {
                "metadata": {"labels": _LABELS, "annotations": {"onnx-operator.dev/image-content": content_key}},
                "spec": _pod(image),
            },
        },
    }


def _pod(image: str) -> dict[str, Any]:
    container = {
        "name": "versitygw",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", _START],
        "env": [
            {"name": variable, "valueFrom": {"secretKeyRef": {"name": KEYS_SECRET, "key": key}}}
            for variable, key in (
                ("ROOT_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
                ("ROOT_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
            )
        ],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
