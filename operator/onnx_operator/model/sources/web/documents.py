"""Documents of strangers about their models: small, few at a time, and read into declared fields alone.

Many models' documents are read in one process. So each kind has a limit, all that are read or held at one moment share
a budget, and what they hold beside the fields asked for never becomes an object of Python's.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from onnx_operator.api.conditions import Reason
from onnx_operator.model.sources.base import SourceError

BUDGET_BYTES = 32 << 20
"""Of all documents that are being read or held in the process at one moment.

An inspection holds one at a time, and the inspector gives a tenant half of its places: 32 documents of the largest
kind are room for all inspections, so that none waits for another tenant's.
"""


@dataclass(frozen=True)
class DocumentKind:
    """What a document is, for messages, and how large it may be."""

    name: str
    limit: int
    """Bytes."""
    advice: str
    """What to do where one is larger, as a sentence."""

    def too_large(self, what: str, size: int) -> SourceError:
        """The error of one that is larger; ``size`` is what is known of its bytes."""
        return SourceError(
            Reason.SOURCE_REFUSED,
            f"{what}: {self.name} has {size} bytes or more, of which at most {self.limit} are read. {self.advice}",
        )


_LARGE = 256 << 10
MANIFEST = DocumentKind("the manifest or index", _LARGE, "Push the model with fewer layers and annotations.")
TOKEN = DocumentKind("the answer of the registry's token service", 64 << 10, "Check that the registry is one.")
HUB_LISTING = DocumentKind("the hub's list of files", _LARGE, "Give the path of the file: hf://ORG/REPOSITORY/PATH.")
MLFLOW_ANSWER = DocumentKind(
    "the MLflow server's answer", _LARGE, "Log the model to a run with fewer parameters, tags and files."
)
DESCRIPTION = DocumentKind("the MLmodel file", _LARGE, "Its flavors must come before that, as MLflow writes them.")
LISTING = DocumentKind("the list of objects", 1 << 20, "Give the address of the model.")


class ByteBudget:
    """Bytes that are given out in the order in which they are asked for. For one event loop."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Wait for this many bytes, at most all, and give them back at the end of the block."""
        size = min(size, self.size)
        await self._take(size)
        try:
            yield
        finally:
            self._give(size)

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self.free:
            self.free -= size
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(size)
            else:
                self._waiting.remove((size, turn))
                self._give(0)
            raise

    def _give(self, size: int) -> None:
        self.free += size
        while self._waiting and self._waiting[0][0] <= self.free:
            taken, turn = self._waiting.popleft()
            if not turn.cancelled():
                self.free -= taken
                turn.set_result(None)


_budgets: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ByteBudget] = weakref.WeakKeyDictionary()


def budget() -> ByteBudget:
    """The budget of the running loop: a process that reads documents of many has one loop."""
    return _budgets.setdefault(asyncio.get_running_loop(), ByteBudget(BUDGET_BYTES))


class Document(BaseModel):
    """Fields of a JSON document that count; others are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


_Document = TypeVar("_Document", bound=Document)


def _or_empty(value: Any) -> Any:
    return "" if value is None else value


Text = Annotated[str, BeforeValidator(_or_empty), Field(default="", max_length=32 << 10)]
"""A text; empty where there is none, or null."""


def decode(model: type[_Document], body: bytes, what: str, malformed: str) -> _Document:
    """Read a JSON document. Raises :class:`SourceError` (``SourceRefused``) for anything else.

    ``malformed`` is how a message begins about JSON that has another form, as a clause. Never longer than some tens of
    milliseconds, and some MiB at its peak, for a document of 256 KiB.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        # The input is the stranger's: it is not repeated.
        first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        raise SourceError(
            Reason.SOURCE_REFUSED, f"{what} did not answer with JSON that can be read; check that the address is right."
        ) from None
    where = ".".join(str(each) for each in first["loc"])[:100] or "the document"
    if first["type"] == "too_long":
        why = f"{where} lists more than {first['ctx']['max_length']} parts"
    else:
        why = f"{where}: {first['msg'][:200]}"
    raise SourceError(Reason.SOURCE_REFUSED, f"{malformed}: {why}.") from None
