"""How long a write may take, and whether there may be one at all."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import aiohttp

from onnx_operator.controller.cluster.kinds import LEASE

WRITE_SECONDS = 10.0
"""What the API server is given to take an object: admission that is slow keeps a worker no longer."""
PATIENT_SECONDS = 30.0
"""The same for an object that took longer the last time. A webhook that does not answer, and may be ignored, takes 10 s
by default, after which the object is taken: it would never be, if it were given up each time."""
MAX_SLOW = 10_000
_LEASES = f"/apis/{LEASE.api_version}/"
"""No object has a name with a slash in it."""


class Patience:
    """Seconds for writes, by their paths."""

    def __init__(self) -> None:
        self._slow: OrderedDict[str, None] = OrderedDict()

    def seconds(self, path: str) -> float:
        """What a write there is given."""
        return PATIENT_SECONDS if path in self._slow else WRITE_SECONDS

    def late(self, path: str) -> None:
        """A write there was given up."""
        self._slow[path] = None
        while len(self._slow) > MAX_SLOW:
            self._slow.popitem(last=False)

    def done(self, path: str, seconds: float) -> None:
        """A write there came to an end after so long; one that needed patience will need it again."""
        if seconds < WRITE_SECONDS:
            self._slow.pop(path, None)


def before_writes(check: Callable[[], None]) -> type[aiohttp.ClientRequest]:
    """Requests that call ``check`` right before they are sent, with a connection at hand, if they write.

    Not on Leases, on which it depends whether anything else may be written.
    """

    class Checked(aiohttp.ClientRequest):
        async def send(self, conn: Any) -> aiohttp.ClientResponse:
            if self.method != "GET" and _LEASES not in self.url.raw_path:
                check()
            return await super().send(conn)

    return Checked
