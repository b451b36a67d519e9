"""The measurements, one after the other on the same control plane, each with what a raw client needs for the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from benchmarks.controller import sampler
from benchmarks.controller.bench import Bench, Key, copy_of, model
from benchmarks.controller.calls import Call, Tally
from benchmarks.controller.raw import Object
from benchmarks.controller.system import Memory, Operator, Processor

_ONE_SECONDS = 120.0
_WARM_UP_TURNS = 2
_SAY_SECONDS = 10.0


@dataclass(frozen=True)
class Turns:
    """Seconds from a call until a watch tells of the Deployment, one at a time, and what the operator called."""

    floor: Sequence[float]
    new: Sequence[float]
    """Of models whose file nobody had looked at."""
    known: Sequence[float]
    """Of models whose file another model of the namespace had been judged by."""
    ready: Sequence[float]
    """Of new models, until they are Ready."""
    calls_of_new: Tally
    timeline: Sequence[tuple[float, float, str]]
    """Of the new model in the middle: seconds after apply, seconds that the call took, and which it was."""
    timeline_deployment: float
    """When the Deployment of that one was there."""


def p50(values: Sequence[float]) -> float:
    """The middle."""
    return median(values)


def p99(values: Sequence[float]) -> float:
    """What one of a hundred exceeds; of fewer values, nearly the greatest."""
    return quantiles(values, n=100, method="inclusive")[98]


async def turns(bench: Bench, count: int) -> tuple[Turns, Object]:
    """Take turns: a raw Deployment, a new model, one of a known file. Gives the Deployment to copy, too."""
    for name in ("floor", "new", "known"):
        await bench.namespace(name)
    rounds = count + _WARM_UP_TURNS
    shared, *uris = bench.files.more(rounds + 1)
    await _one(bench, ("known", "first"), shared)
    deployment = await bench.raw.get("/apis/apps/v1/namespaces/known/deployments/first")
    floor, new, known, ready = [], [], [], []
    applied: list[tuple[float, float]] = []
    for number, uri in enumerate(uris):
        key = ("floor", f"turn-{number:04}")
        began = time.perf_counter()
        await bench.raw.create(*copy_of(deployment, *key))
        await bench.until(lambda key=key: key in bench.arrivals.deployments, _ONE_SECONDS, f"{key} to be seen")
        floor.append(bench.arrivals.deployments[key] - began)
        await asyncio.sleep(0.3)
        began, clock = time.perf_counter(), time.time()
        await _one(bench, ("new", f"turn-{number:04}"), uri)
        new.append(bench.arrivals.deployments["new", f"turn-{number:04}"] - began)
        ready.append(bench.arrivals.ready["new", f"turn-{number:04}"] - began)
        applied.append((clock, clock + ready[-1]))
        began = time.perf_counter()
        await _one(bench, ("known", f"turn-{number:04}"), shared)
        known.append(bench.arrivals.deployments["known", f"turn-{number:04}"] - began)
        if number % 10 == 9:
            bench.say(f"one at a time: {number + 1} of {rounds}, p50 {p50(floor) * 1e3:.0f} / {p50(new) * 1e3:.0f} ms")
    await bench.quiet()
    tally = bench.calls.since(0)
    found = Tally([call for call in tally.calls if call.namespace == "new"], 0, 0)
    # The first ones meet a cold process; their calls are those of the others.
    floor, new, known, ready, applied = (each[_WARM_UP_TURNS:] for each in (floor, new, known, ready, applied))
    middle = min(range(count), key=lambda at: abs(new[at] - p50(new)))
    timeline = _timeline(found.calls, *applied[middle])
    return Turns(floor, new, known, ready, found, timeline, new[middle]), deployment


async def _one(bench: Bench, key: Key, uri: str) -> None:
    await bench.raw.create(*model(*key, uri))
    await bench.until(lambda: key in bench.arrivals.ready, _ONE_SECONDS, f"{'/'.join(key)} to be Ready")
    # What follows Ready, the log of the pod, is no part of the next turn.
    await asyncio.sleep(0.3)


def _timeline(calls: Sequence[Call], began: float, ended: float) -> list[tuple[float, float, str]]:
    during = [call for call in calls if began <= call.began <= ended + 0.25]
    return [(call.began - began, call.ended - call.began, call.title) for call in during]


async def floor_at_once(bench: Bench, deployment: Object, count: int) -> float:
    """Seconds until a watch has told of all Deployments of a raw client."""
    namespace = await bench.namespace("floor-at-once")
    bench.say(f"floor: {count:,} Deployments at once")
    keys = [(namespace, f"copy-{number:05}") for number in range(count)]
    began = time.perf_counter()
    await bench.raw.create_all(copy_of(deployment, *key) for key in keys)
    await bench.until(
        lambda: (
            all(key in bench.arrivals.deployments for key in keys[-100:])
            and all(key in bench.arrivals.deployments for key in keys)
        ),
        600,
        "all to be seen",
    )
    took = max(bench.arrivals.deployments[key] for key in keys) - began
    bench.say(f"floor: {took:.2f} s; removing them")
    await bench.empty(namespace)
    return took


@dataclass(frozen=True)
class Burst:
    """Many models at once."""

    count: int
    namespaces: int
    deployments: float
    """Seconds until the last Deployment is there, and until the last model is Ready."""
    ready: float
    processor: Processor
    """Until the operator was done with them."""
    tally: Tally
    memory: Memory
    """Once all is quiet."""
    peak: int
    """Most that controller, inspector and its children held on the way."""
    parts: Sequence[tuple[int, float, float]]
    """After each fifth: Deployments, seconds, processor seconds."""
    probes: Sequence[tuple[float, float]]
    """Of models of other namespaces that came meanwhile: seconds until judged, until their Deployment is there."""


async def burst(
    bench: Bench, count: int, namespaces: Sequence[str], *, probes: int = 0, seconds: float = 3600
) -> Burst:
    """Apply many models at once, spread over namespaces."""
    uris = bench.files.more(count)
    keys = [(namespaces[number % len(namespaces)], f"model-{number:05}") for number in range(count)]
    items = [model(*key, uri) for key, uri in zip(keys, uris, strict=True)]
    wanted = set(keys)
    place, before, began = bench.calls.place(), bench.operator.processor(), time.perf_counter()
    making = asyncio.create_task(bench.raw.create_all(items))
    parts: list[tuple[int, float, float]] = []
    waiting: list[asyncio.Task[tuple[float, float]]] = []
    said, peak = began, 0
    while True:
        await asyncio.sleep(0.1)
        bench.check()
        now = time.perf_counter()
        there = _count(bench.arrivals.deployments, wanted)
        ready = _count(bench.arrivals.ready, wanted) if there == count else 0
        if there * 5 // count > len(parts):
            parts.append((there, now - began, (bench.operator.processor() - before).both))
        if len(waiting) < probes and there * (probes + 1) > count * (len(waiting) + 1):
            waiting.append(asyncio.create_task(_probe(bench, f"meanwhile-{count}-{len(namespaces)}-{len(waiting)}")))
        if now - said > _SAY_SECONDS:
            said, peak = now, max(peak, bench.operator.memory().both)
            shown = _count(bench.arrivals.ready, wanted)
            bench.say(f"at once: {there:,} of {count:,} Deployments, {shown:,} Ready, {now - began:.0f} s")
        if ready == count:
            break
        if now - began > seconds:
            raise _late(bench, seconds, there, count)
    await making
    last = [max(seen[key] for key in keys) - began for seen in (bench.arrivals.deployments, bench.arrivals.ready)]
    await bench.quiet()
    found = [await each for each in waiting]
    memory = bench.operator.memory()
    spent = bench.operator.processor() - before
    tally = bench.calls.since(place)
    result = Burst(count, len(namespaces), *last, spent, tally, memory, max(peak, memory.both), parts, found)
    bench.say(f"at once: Deployments after {result.deployments:.1f} s, Ready after {result.ready:.1f} s")
    return result


def _late(bench: Bench, seconds: float, there: int, count: int) -> TimeoutError:
    memory = bench.operator.memory()
    return TimeoutError(
        f"after {seconds:,.0f} s {there:,} of {count:,} had a Deployment; resident then: controller "
        f"{memory.controller / 2**20:.0f} MiB, with the inspector {memory.both / 2**20:.0f} MiB"
    )


def _count(seen: dict[Key, float], wanted: set[Key]) -> int:
    return len(wanted & seen.keys())


async def _probe(bench: Bench, namespace: str) -> tuple[float, float]:
    key = (await bench.namespace(namespace), "one-more")
    (uri,) = bench.files.more(1)
    began = time.perf_counter()
    await bench.raw.create(*model(*key, uri))
    await bench.until(lambda: key in bench.arrivals.judged and key in bench.arrivals.deployments, 1800, "a new model")
    return bench.arrivals.judged[key] - began, bench.arrivals.deployments[key] - began


async def idle(bench: Bench, seconds: float) -> Tally:
    """Calls while nothing happens."""
    bench.say(f"idle for {seconds:g} s")
    place = bench.calls.place()
    await asyncio.sleep(seconds)
    return bench.calls.since(place)


@dataclass(frozen=True)
class Restart:
    """A controller that ends, and another that begins, with models that need nothing."""

    models: int
    tally: Tally
    leads: float
    """Seconds from the start of the process until it leads."""
    first_word: float
    """Seconds from the start of the process until a model that came meanwhile has a status."""
    answer: float
    """Seconds from apply, right when the process leads, until the model has a status."""


async def restart(bench: Bench, models: int) -> Restart:
    """Restart the controller three times: alone, with a new model at the start, and with one once it leads."""
    await bench.namespace("restart")
    bench.say("restart: alone")
    place, leads = await _again(bench)
    await asyncio.to_thread(bench.operator.wait_until_leading)
    leading = time.perf_counter() - leads
    await bench.quiet()
    tally = bench.calls.since(place)
    first, second = bench.files.more(2)
    bench.say("restart: with a new model")
    _, began = await _again(bench)
    word = await _told(bench, ("restart", "at-the-start"), first, began)
    await bench.quiet()
    await _again(bench)
    await asyncio.to_thread(bench.operator.wait_until_leading)
    answer = await _told(bench, ("restart", "once-it-leads"), second, time.perf_counter())
    await bench.quiet()
    return Restart(models, tally, leading, word, answer)


async def _again(bench: Bench) -> tuple[int, float]:
    """End the controller and start one; gives the place in the log and the time of the start."""
    await asyncio.to_thread(bench.operator.stop_controller)
    place, began = bench.calls.place(), time.perf_counter()
    bench.operator.start_controller()
    return place, began


async def _told(bench: Bench, key: Key, uri: str, began: float) -> float:
    await bench.raw.create(*model(*key, uri))
    await bench.until(lambda: key in bench.arrivals.told, 300, f"a status of {'/'.join(key)}")
    return bench.arrivals.told[key] - began


@dataclass(frozen=True)
class Profiles:
    """Where the processor time of a burst went."""

    count: int
    controller: sampler.Profile
    inspector: sampler.Profile


async def profile(bench: Bench, count: int, folder: Path) -> Profiles | None:
    """A burst on an operator whose processes are sampled; None where they did not say."""
    bench.say(f"where time goes: {count} models at once, sampled")
    await asyncio.to_thread(bench.operator.stop)
    samples = folder / "samples"
    bench.operator = Operator(bench.plane, bench.files, samples=samples)
    await asyncio.to_thread(bench.operator.wait_until_leading)
    await bench.quiet()
    bench.operator.sample_anew()
    await burst(bench, count, [await bench.namespace("sampled")])
    await asyncio.to_thread(bench.operator.stop)
    found = [sampler.read(samples.with_suffix(f".{name}")) for name in ("controller", "inspector")]
    bench.operator = Operator(bench.plane, bench.files)
    return Profiles(count, *found) if all(found) else None
