"""The Secret with the keys of seals: made once by the leader, read at each start.

To change the key, move ``current`` to ``previous`` and restart the operator: it makes a new one, and seals anew what
the previous one sealed. See docs/decisions/0006-sealed-revisions.md.
"""

import base64
import binascii
import logging
from dataclasses import dataclass

from onnx_operator.api import names
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.kinds import SECRET, Object
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.revision.seal import KEY_BYTES, Key, Sealer

logger = logging.getLogger(__name__)

CURRENT, PREVIOUS = "current", "previous"
ATTEMPTS = 5


class SealKeyError(Exception):
    """The Secret holds no usable key; says what to do."""


@dataclass(frozen=True)
class SealKeys:
    """The keys, and since when there are seals at all."""

    sealer: Sealer
    since: str
    """When the Secret was made, by the API server's clock (RFC 3339, UTC, whole seconds)."""


async def obtain_keys(kube: Kube, namespace: str, name: str) -> SealKeys:
    """The keys in the Secret, which is made where there is none; only the leader may call this.

    Raises:
        SealKeyError: the Secret cannot be used.
        ApiError: the API server refuses to show or to make it.
    """
    for _ in range(ATTEMPTS):
        secret = await kube.get(SECRET, namespace, name)
        try:
            if secret is None:
                secret = await kube.create(SECRET, _manifest(namespace, name))
                logger.info("made the key that seals revisions", extra={"secret": f"{namespace}/{name}"})
            elif not (secret.get("data") or {}).get(CURRENT):
                fresh = {**(secret.get("data") or {}), CURRENT: _encode(Key.new())}
                secret = await kube.replace(SECRET, {**secret, "data": fresh})
                logger.info("made a new key that seals revisions", extra={"secret": f"{namespace}/{name}"})
        except ApiError as error:
            # Somebody was faster: what is there counts.
            if error.status == 409:
                continue
            raise
        return _read(secret, f"{namespace}/{name}")
    raise SealKeyError(f"Secret {namespace}/{name} changes whenever it is looked at")


def _manifest(namespace: str, name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "onnx-operator"},
            "annotations": {names.ANNOTATION_DESCRIPTION: "seals the revisions of models; keep it with your backups"},
        },
        "type": "Opaque",
        "data": {CURRENT: _encode(Key.new())},
    }


def _encode(key: Key) -> str:
    return base64.b64encode(key.secret).decode()


def _decode(data: Object, field: str, where: str) -> Key | None:
    text = data.get(field)
    if not text:
        return None
    try:
        secret = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        secret = b""
    if len(secret) != KEY_BYTES:
        raise SealKeyError(
            f"Secret {where}: data.{field} must hold {KEY_BYTES} bytes; restore the Secret from a backup, or delete it "
            "to have a new key made"
        )
    return Key(secret)


def _read(secret: Object, where: str) -> SealKeys:
    data = secret.get("data") or {}
    current = _decode(data, CURRENT, where)
    if current is None:
        raise SealKeyError(f"Secret {where}: data.{CURRENT} is missing")
    sealer = Sealer(current, _decode(data, PREVIOUS, where))
    return SealKeys(sealer, str(secret["metadata"].get("creationTimestamp", "")))
