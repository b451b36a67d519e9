"""Reading the API server's audit log: which calls were made, by whom."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READ_VERBS = frozenset({"get", "list", "watch"})


@dataclass(frozen=True)
class AuditEvent:
    """One call to the API server; a watch counts once, from when it began."""

    time: float
    verb: str
    username: str
    user_agent: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    uri: str
    code: int

    @property
    def is_write(self) -> bool:
        """Whether the call could have changed something."""
        return self.verb not in READ_VERBS


def _parse(line: str) -> tuple[str, AuditEvent] | None:
    try:
        raw: dict[str, Any] = json.loads(line)
    except ValueError:
        # The last line may be half written.
        return None
    target = raw.get("objectRef") or {}
    return raw["auditID"], AuditEvent(
        time=datetime.datetime.fromisoformat(raw["requestReceivedTimestamp"]).timestamp(),
        verb=raw["verb"],
        username=raw.get("user", {}).get("username", ""),
        user_agent=raw.get("userAgent", ""),
        group=target.get("apiGroup", ""),
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        uri=raw.get("requestURI", ""),
        code=(raw.get("responseStatus") or {}).get("code", 0),
    )


def read(log: Path, since: float) -> Iterator[AuditEvent]:
    """The calls received since a time (seconds since 1970), oldest first."""
    # Rotated files are named after the log with their time in between.
    rotated = sorted(log.parent.glob(f"{log.stem}-*{log.suffix}"))
    seen: dict[str, AuditEvent] = {}
    for path in [*rotated, log]:
        try:
            if path.stat().st_mtime < since:
                continue
            with path.open(errors="replace") as lines:
                for line in lines:
                    parsed = _parse(line)
                    # A long call is logged when it starts and when it ends: the later line is complete.
                    if parsed and parsed[1].time >= since:
                        seen[parsed[0]] = parsed[1]
        except FileNotFoundError:
            continue
    yield from sorted(seen.values(), key=lambda event: event.time)
