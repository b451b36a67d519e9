"""Files that are sent as they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StaticFile:
    """A file's bytes, what they are, and further headers."""

    content: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
