"""A store that follows an API server, for tests that go step by step: they wait until it has caught up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.reflector import Reflectors
from onnx_operator.controller.cluster.store import Large, Store


async def _scanned(kube: Kube, store: Store, namespace: str) -> Store:
    fresh = Store(store.shapes)
    for kind, shape in store.shapes.items():
        scan = fresh.scanning(kind, namespace)
        version = await kube.scan(
            kind, namespace, shape.labels, lambda item, kind=kind, scan=scan: fresh.scanned(kind, item, scan)
        )
        fresh.settled(kind, namespace, version, scan)
    return fresh


def _held(store: Store, namespace: str) -> dict[tuple[str, str], object]:
    return {
        (kind.kind, key[1]): found if not isinstance(found := store.find(kind, *key), Large) else "large"
        for kind in store.shapes
        for key in store.keys(kind)
        if key[0] == namespace
    }


async def caught_up(kube: Kube, store: Store, namespace: str) -> None:
    """Wait until the store holds what the API server holds; an assertion error says where it never does."""
    for _ in range(400):
        held, there = _held(store, namespace), _held(await _scanned(kube, store, namespace), namespace)
        if held == there:
            return
        await asyncio.sleep(0.02)
    assert held == there


@asynccontextmanager
async def following(kube: Kube, store: Store, namespace: str) -> AsyncIterator[Reflectors]:
    """Follow a namespace for as long as the block lasts; writes by ``kube`` are known at once."""
    kube.heard, kube.missed = store.heard, store.missed
    reflectors = Reflectors(kube, store, [namespace])
    await reflectors.start()
    try:
        yield reflectors
    finally:
        await reflectors.stop()
