"""What is in the cluster, followed by watches: where an end is waited for, and what is promised all along is seen."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable

import aiohttp

from tests.chaos.api import KINDS, Api, Object, RefusedError

Seen = Callable[[str, str, Object], None]


class Mirror:
    """All objects of the kinds that a model consists of, in all namespaces."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._objects: dict[str, dict[tuple[str, str], Object]] = {plural: {} for plural in KINDS}
        self._changes: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._tasks: list[asyncio.Task[None]] = []
        self.seen: list[Seen] = []
        """Called with each event's type, the plural of its kind, and its object."""

    async def start(self) -> None:
        listed = [asyncio.Event() for _ in KINDS]
        for plural, ready in zip(KINDS, listed, strict=True):
            self._tasks.append(asyncio.create_task(self._follow(plural, ready), name=f"mirror {plural}"))
        await asyncio.gather(*(ready.wait() for ready in listed))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def of(self, plural: str, namespace: str) -> list[Object]:
        return [item for (where, _), item in self._objects[plural].items() if where == namespace]

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        return self._objects[plural].get((namespace, name))

    def everything(self, namespace: str) -> dict[str, list[Object]]:
        return {plural: self.of(plural, namespace) for plural in KINDS}

    async def changed(self, namespace: str, seconds: float) -> None:
        """Wait for a change in a namespace, or for so long."""
        event = self._changes[namespace]
        event.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)

    def forget(self, namespace: str) -> None:
        self._changes.pop(namespace, None)

    async def _follow(self, plural: str, ready: asyncio.Event) -> None:
        kind, version = KINDS[plural], ""

        def see(event: str, item: Object) -> None:
            nonlocal version
            version = item["metadata"]["resourceVersion"]
            if event != "BOOKMARK":
                self._see(event, plural, item)

        while True:
            try:
                if not version:
                    listed = await self._api.call("GET", kind.path(None)) or {}
                    there = {(i["metadata"]["namespace"], i["metadata"]["name"]): i for i in listed.get("items") or []}
                    for key in [key for key in self._objects[plural] if key not in there]:
                        self._see("DELETED", plural, self._objects[plural][key])
                    for item in there.values():
                        self._see("MODIFIED", plural, item)
                    version = listed["metadata"]["resourceVersion"]
                ready.set()
                await self._api.watch(kind, version, see)
            except RefusedError:
                version = ""
                await asyncio.sleep(0.2)
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.2)

    def _see(self, event: str, plural: str, item: Object) -> None:
        key = (item["metadata"]["namespace"], item["metadata"]["name"])
        # Most of an object, and never looked at.
        item["metadata"].pop("managedFields", None)
        if event == "DELETED":
            self._objects[plural].pop(key, None)
        else:
            self._objects[plural][key] = item
        for each in self.seen:
            each(event, plural, item)
        if key[0] in self._changes:
            self._changes[key[0]].set()
