"""``python -m tests.corpus.examine MODEL STATE [SKIP]``: all that is asked of one model, a line of JSON a stage.

A process of its own: a model may end it, or need more time or memory than it may take. The line ``{"stage": …}`` comes
before what may do that, so that it is known what did.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from onnx_operator.cli.inspect import inspect_model
from onnx_operator.server.dataplane.tensors import datatype_of
from onnx_operator.server.runtime.attempts import Attempts
from onnx_operator.server.runtime.finding import Sources
from onnx_operator.server.runtime.session import Model, SessionSettings, load
from onnx_operator.server.runtime.warmup import warm_up
from tests.corpus.asking import CARRIED, Server
from tests.corpus.feeds import Feed, compare, first_answered, random_feeds, scores
from tests.corpus.kinds import kinds_of

MAX_BYTES = 16 << 30
"""Address space; ONNX Runtime maps far more than it uses."""
_STARTING_SECONDS = 120
_SEED = 11


def main(path: Path, state: Path, skip: str = "") -> None:
    """Examine; what is printed ends where the process does. ``state`` is a folder that outlives it."""
    # The soft limit only: the inspection's own child sets others for itself.
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    _stage("kinds", lambda: kinds_of(path))
    session = _stage("runtime", lambda: _runtime(path), keep="session")
    _stage("inspection", lambda: _inspection(path))
    feed = None if skip == "warmUp" else _stage("warmUp", lambda: _warm(path, state), keep="feed")
    _stage("serving", lambda: _serving(path, state, session, feed))


def _stage(name: str, work: Callable[[], dict[str, Any]], keep: str = "") -> Any:
    print(json.dumps({"stage": name}), flush=True)
    started = time.perf_counter()
    try:
        found = work()
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    kept = found.pop(keep, None)
    found["seconds"] = round(time.perf_counter() - started, 3)
    print(json.dumps({"stage": name, "found": found}), flush=True)
    return kept


def _runtime(path: Path) -> dict[str, Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return {"loads": False, "message": str(error)}
    interface = {"inputs": _tensors(session.get_inputs()), "outputs": _tensors(session.get_outputs())}
    return {"loads": True, "session": session, **interface}


def _tensors(described: list[Any]) -> list[list[Any]]:
    return [
        [
            tensor.name,
            datatype_of(tensor.type) or tensor.type,
            [-1 if size is None or (isinstance(size, int) and size < 0) else size for size in tensor.shape],
        ]
        for tensor in described
    ]


def _inspection(path: Path) -> dict[str, Any]:
    result = inspect_model(str(path))
    found: dict[str, Any] = {"accepted": result.refusal is None, "interface": result.interface}
    if result.refusal is not None:
        found |= {"reason": result.refusal.reason, "message": result.refusal.message}
    if result.report is not None:
        report = result.report.model_dump(mode="json", by_alias=True)
        told = {key: report[key] for key in ("notes", "batching", "truncated") if key in report}
        sides = {side: [[t["name"], t["datatype"], t["shape"]] for t in report[side]] for side in ("inputs", "outputs")}
        found |= told | sides
    return found


def _warm(path: Path, state: Path) -> dict[str, Any]:
    feed = _feed(load(path, SessionSettings(("CPU",), 1)), state)
    if feed is None:
        return {"warmed": False}
    return {"warmed": True, "feed": feed, "shapes": {name: list(np.shape(value)) for name, value in feed.items()}}


def _feed(model: Model, state: Path) -> dict[str, Any] | None:
    """The input with which the product warms the model up."""
    warm = warm_up(model, sources=Sources(attempts=Attempts(state)))
    return warm.feed if warm.warmed else None


def _serving(
    path: Path, state: Path, session: ort.InferenceSession | None, feed: dict[str, Any] | None
) -> dict[str, Any]:
    with Server(path, state, _STARTING_SECONDS) as server:
        facts = server.start()
        if facts is None:
            return {"ready": False, "message": server.cause()}
        warmed = [entry for entry in server.log if entry.get("message") == "warmed up"]
        found: dict[str, Any] = {"ready": True, "facts": facts, "log": warmed[-1] if warmed else {}}
        described = server.get("/v2/models/m")
        for side in ("inputs", "outputs"):
            found[side] = [[t["name"], t["datatype"], t.get("shape")] for t in described[side]]
        classes = {t["name"]: t["parameters"]["classes"] for t in described["outputs"] if "parameters" in t}
        if session is not None:
            try:
                found |= _answers(server, session, feed, classes)
            except Exception as error:
                found["answers"] = f"failed: {type(error).__name__}: {error}"
        return found


def _answers(
    server: Server, session: ort.InferenceSession, feed: dict[str, Any] | None, classes: dict[str, list[Any]]
) -> dict[str, Any]:
    if feed is None:
        return {"answers": "not asked: no input is known"}
    inputs = {tensor.name: datatype_of(tensor.type) for tensor in session.get_inputs()}
    carried = CARRIED - {"BF16"}
    outputs = [t.name for t in session.get_outputs() if datatype_of(t.type) in carried or t.name in classes]

    def run(made: Feed) -> list[Any]:
        results = session.run(outputs, made)
        return [scores(one, classes[n]) if n in classes else one for n, one in zip(outputs, results, strict=True)]

    if not outputs or any(inputs.get(name) not in CARRIED - {"BF16"} for name in feed):
        return {"answers": "not asked: the protocol or numpy does not carry its types"}
    chosen, expected = first_answered(random_feeds(feed, _SEED), run)
    if chosen is None:
        return {"answers": f"failed: the runtime does not answer what the product found: {expected}"}
    again, plain = run(chosen), run(dict(feed))
    answered = server.infer(chosen, outputs)
    verdicts = [
        "random" if compare(one, other) != "bits" else compare(one, answered[name])
        for name, one, other in zip(outputs, expected, again, strict=True)
    ]
    wrong = [
        f"{name}: {verdict}"
        for name, verdict in zip(outputs, verdicts, strict=True)
        if verdict not in ("bits", "rounding", "random")
    ]
    # An answer that is the same for all inputs tells little of how they were carried.
    tells = any(compare(one, other) not in ("bits", "rounding") for one, other in zip(expected, plain, strict=True))
    if wrong:
        return {"answers": f"differ: {'; '.join(wrong)}", "tells": tells}
    return {"answers": next(v for v in ("random", "rounding", "bits") if v in verdicts), "tells": tells}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
