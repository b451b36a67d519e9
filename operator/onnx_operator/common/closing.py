"""What is closed at the end of an ``async with``."""

from types import TracebackType
from typing import Protocol, Self


class Closing(Protocol):
    """Has ``aclose()``, and is closed where an ``async with`` of it ends, however that ends."""

    async def aclose(self) -> None:
        """Let go of what is held."""

    async def __aenter__(self) -> Self:
        """Return it itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()
