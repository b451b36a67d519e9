"""How many requests may be here at once: those that run, and a bounded queue behind them."""

from collections.abc import Iterator
from contextlib import contextmanager

from onnx_operator.server.errors import RequestError


class Admission:
    """Counts requests from before their body is read, so that a full server holds few bodies."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.present = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for the length of a request. Raises :class:`RequestError` (503) when there is none."""
        if self.present >= self.limit:
            raise RequestError(f"the server is full ({self.limit} requests run or wait); try again shortly", 503)
        self.present += 1
        try:
            yield
        finally:
            self.present -= 1
