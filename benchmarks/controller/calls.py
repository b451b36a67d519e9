"""The operator's calls, from the API server's audit log, which holds nobody else's."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_READS = frozenset({"get", "list", "watch"})


@dataclass(frozen=True)
class Call:
    """One call; times are seconds since 1970."""

    began: float
    ended: float
    verb: str
    resource: str
    namespace: str
    name: str
    dry_run: bool

    @property
    def writes(self) -> bool:
        """Whether it could have changed something."""
        return self.verb not in _READS and not self.dry_run

    @property
    def title(self) -> str:
        """What kind of call it is."""
        return f"{self.verb} {self.resource}{' (dry run)' if self.dry_run else ''}"


@dataclass(frozen=True)
class Tally:
    """Calls of a while, without those of the Lease and of discovery."""

    calls: Sequence[Call]
    discovery: int
    leases: int

    @property
    def writes(self) -> int:
        """Calls that could have changed something."""
        return sum(call.writes for call in self.calls)

    @property
    def titles(self) -> Counter[str]:
        """How many there are of each kind."""
        return Counter(call.title for call in self.calls)


class CallLog:
    """The audit log, read from any place on."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def place(self) -> int:
        """The end of the log at this moment: a call is in it before its caller has the answer."""
        return self._path.stat().st_size

    def since(self, place: int) -> Tally:
        """The calls that are in the log from a place on."""
        found: dict[str, Call] = {}
        discovery = leases = 0
        for event in self._events(place):
            target = event.get("objectRef")
            # A watch is logged when it begins and when it ends; one that only ends here began before.
            if event["auditID"] in found or (event["verb"] == "watch" and event["stage"] == "ResponseComplete"):
                continue
            if target is None:
                discovery += 1
            elif target["resource"] == "leases":
                leases += 1
            else:
                found[event["auditID"]] = _call(event, target)
        return Tally(sorted(found.values(), key=lambda call: call.began), discovery, leases)

    def _events(self, place: int) -> Iterator[dict]:
        with self._path.open("rb") as log:
            log.seek(place)
            for line in log:
                # The last one may be half written.
                if line.endswith(b"\n"):
                    yield json.loads(line)


def _call(event: dict, target: dict) -> Call:
    subresource = f"/{target['subresource']}" if target.get("subresource") else ""
    return Call(
        began=_seconds(event["requestReceivedTimestamp"]),
        ended=_seconds(event["stageTimestamp"]),
        verb=event["verb"],
        resource=target["resource"] + subresource,
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        dry_run="dryRun=All" in event["requestURI"],
    )


def _seconds(stamp: str) -> float:
    return datetime.datetime.fromisoformat(stamp).timestamp()
