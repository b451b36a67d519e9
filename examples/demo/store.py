"""An S3 server in the cluster, to which models are uploaded as to any other store."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

from examples.demo.forward import forward
from examples.demo.store_manifests import BUCKET, KEYS_SECRET, NAME, PORT, store_manifests
from tests.cluster import images, tools
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.layout import BIN

IMAGE = "localhost/versitygw:dev"
NAMESPACE = "onnx-demo"
_TIMEOUT = 120


@dataclass(frozen=True)
class Store:
    """A bucket of an S3 server that runs in a namespace of the cluster."""

    cluster: Cluster
    namespace: str
    keys: dict[str, str] = field(repr=False)

    @classmethod
    def deploy(cls, cluster: Cluster, namespace: str = NAMESPACE, image: str | None = None) -> Store:
        """Bring the server up, or find it as it is, and wait until it answers."""
        content_key = ""
        if image is None:
            image, content_key = IMAGE, _load_image(cluster)
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        store = cls(cluster, namespace, _keys(cluster, namespace))
        cluster.apply(store_manifests(namespace, image, content_key))
        rollout = ["rollout", "status", f"deployment/{NAME}", "--namespace", namespace, f"--timeout={_TIMEOUT}s"]
        try:
            cluster.kubectl(*rollout, timeout=_TIMEOUT + 10)
        except ClusterError as error:
            context = cluster.diagnose(namespace, operator=False)
            raise ClusterError(f"the S3 server does not start: {error}\n{context}") from error
        cluster.wait(store._answers, 30, "the S3 server to answer", namespace)
        return store

    @property
    def endpoint(self) -> str:
        """The server's URL for whoever is in the cluster."""
        return f"http://{NAME}.{self.namespace}.svc:{PORT}"

    def uri(self, key: str) -> str:
        """The URI of an object."""
        return f"s3://{BUCKET}/{key}"

    def upload(self, key: str, content: bytes) -> str:
        """Put an object, and return the ETag that it has from now on."""
        with self._bucket() as bucket:
            return obstore.put(bucket, key, content)["e_tag"] or ""

    def credentials_secret(self, name: str = "models-read") -> dict[str, Any]:
        """A Secret by which models of the namespace it is applied to read the bucket."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": {"onnx-operator.dev/credentials": "true"}},
            "stringData": dict(self.keys),
        }

    def _answers(self) -> bool:
        try:
            with self._bucket() as bucket:
                obstore.list(bucket).collect()
        except obstore.exceptions.BaseError as error:
            raise ClusterError(str(error)) from error
        return True

    @contextmanager
    def _bucket(self) -> Iterator[S3Store]:
        with self._reach() as url:
            yield S3Store(
                BUCKET,
                config={
                    "endpoint": url,
                    "region": "us-east-1",
                    "access_key_id": self.keys["AWS_ACCESS_KEY_ID"],
                    "secret_access_key": self.keys["AWS_SECRET_ACCESS_KEY"],
                    "virtual_hosted_style_request": False,
                },
                client_options={"allow_http": True, "connect_timeout": "5s", "timeout": "120s"},
                retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=60)},
            )

    @contextmanager
    def _reach(self) -> Iterator[str]:
        if self.cluster.is_local:
            address = self.cluster.get("service", NAME, self.namespace)["spec"]["clusterIP"]
            yield f"http://{address}:{PORT}"
        else:
            with forward(self.cluster, self.namespace, NAME, PORT) as url:
                yield url


def _keys(cluster: Cluster, namespace: str) -> dict[str, str]:
    """The server's keys; made once, and kept by the cluster."""
    found = cluster.find("secret", KEYS_SECRET, namespace)
    if found is None:
        keys = {"AWS_ACCESS_KEY_ID": secrets.token_hex(8), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(24)}
        metadata = {"name": KEYS_SECRET, "namespace": namespace}
        cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys})
        return keys
    return {name: base64.b64decode(value).decode() for name, value in found["data"].items()}


def _load_image(cluster: Cluster) -> str:
    """Build the server's image and load it into the local cluster; return the key of its content."""
    if not cluster.is_local:
        raise ClusterError("this cluster cannot be given an image: say where it finds one that holds versitygw")
    tools.ensure("versitygw")
    program = (BIN / "versitygw").resolve()
    dockerfile = Path(__file__).parent / "s3" / "Dockerfile"
    # The program's folder is named after its sources.
    key = images.content_key([dockerfile], program.parent.name, images.base_key())
    archive = images.find_archive(IMAGE, key)
    if archive is None:
        with tempfile.TemporaryDirectory() as context:
            _link_or_copy(program, Path(context) / program.name)
            archive, _ = images.build_image(dockerfile, Path(context), IMAGE, key=key)
    images.import_archive(archive, IMAGE, key)
    return key


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
