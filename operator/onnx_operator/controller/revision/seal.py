"""Seals: proof that a ControllerRevision is the operator's own, kept beside it in an annotation. Pure.

Whoever may write ControllerRevisions in a namespace could otherwise have the operator apply anything. A seal binds
where a revision lies, what it holds, its number and its notes, but not the model's UID: a model that is deleted with
``--cascade=orphan`` and applied again keeps its pods.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

KEY_BYTES = 32
_PURPOSE = "onnx-operator.dev/revision/1"


class Trust(Enum):
    """What a seal says of a revision."""

    SEALED = auto()
    """Sealed with the current key."""
    AGED = auto()
    """Sealed with the previous key: as good, and due to be sealed anew."""
    UNSEALED = auto()
    """It carries no seal."""
    FOREIGN = auto()
    """Its seal is another operator's, or was made for another object, or for other content."""

    @property
    def holds(self) -> bool:
        """Whether the revision may be applied."""
        return self in (Trust.SEALED, Trust.AGED)


@dataclass(frozen=True)
class Subject:
    """What a seal is made over."""

    namespace: str
    model: str
    name: str
    """Of the ControllerRevision: it goes to the pods' labels."""
    number: int
    content: str
    """The full SHA-256 of the revision's data, see :func:`fingerprint`."""
    notes: Mapping[str, str]
    """Annotations that say what was found out about the revision."""


@dataclass(frozen=True)
class Key:
    """A secret of the operator's, and the public name that seals carry."""

    secret: bytes

    @property
    def id(self) -> str:
        """Eight hex digits that tell keys apart and nothing about them."""
        return hashlib.sha256(b"onnx-operator.dev/key-id\0" + self.secret).hexdigest()[:8]

    @classmethod
    def new(cls) -> "Key":
        """A key that nobody knows."""
        return cls(secrets.token_bytes(KEY_BYTES))


@dataclass(frozen=True)
class Sealer:
    """Makes and checks seals."""

    current: Key
    previous: Key | None = None

    def seal(self, subject: Subject) -> str:
        """The seal: ``KEYID:HMAC-SHA256`` in hex (RFC 2104)."""
        return f"{self.current.id}:{_code(self.current, subject)}"

    def trust(self, subject: Subject, seal: str | None) -> Trust:
        """What ``seal`` says of a revision that lies before us as ``subject``."""
        if not seal:
            return Trust.UNSEALED
        for key, verdict in ((self.current, Trust.SEALED), (self.previous, Trust.AGED)):
            if key and hmac.compare_digest(f"{key.id}:{_code(key, subject)}".encode(), seal.encode()):
                return verdict
        return Trust.FOREIGN


def _code(key: Key, subject: Subject) -> str:
    words = [
        _PURPOSE,
        subject.namespace,
        subject.model,
        subject.name,
        subject.number,
        subject.content,
        sorted(subject.notes.items()),
    ]
    return hmac.new(key.secret, json.dumps(words, separators=(",", ":")).encode(), hashlib.sha256).hexdigest()


def _settled(value: Any) -> Any:
    # A whole number may come back from the API server in another spelling.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _settled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_settled(item) for item in value]
    return value


def fingerprint(value: Any) -> str:
    """SHA-256 in hex of a JSON value, the same whatever the order of its keys."""
    return hashlib.sha256(json.dumps(_settled(value), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest(value: Any) -> str:
    """The first ten hex digits of a :func:`fingerprint`."""
    return fingerprint(value)[:10]
