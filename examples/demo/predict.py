"""One prediction through a model's Service, compared with onnxruntime on this machine."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from examples.demo.forward import forward
from examples.demo.models import Feed, Model
from examples.demo.weights import open_session
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError

_DATATYPES: dict[np.dtype[Any], str] = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}
_TIMEOUT = 60


@dataclass(frozen=True)
class Prediction:
    """An answer of the Service."""

    outputs: Feed
    # The largest difference between a number of the answer and what onnxruntime says here.
    difference: float
    seconds: float


@contextmanager
def reach(cluster: Cluster, namespace: str, name: str) -> Iterator[str]:
    """The URL at which a model's Service is reached from this machine."""
    port = cluster.get("service", name, namespace)["spec"]["ports"][0]["port"]
    with forward(cluster, namespace, name, port) as url:
        yield url


def predict(url: str, model: Model) -> list[Prediction]:
    """Send each of the model's inputs."""
    session = open_session(model.content)
    names = [output.name for output in session.get_outputs()]
    predictions = []
    for feed in model.inputs:
        started = time.monotonic()
        outputs = infer(url, model.name, feed)
        seconds = time.monotonic() - started
        expected = dict(zip(names, session.run(names, feed), strict=True))
        predictions.append(Prediction(outputs, _difference(expected, outputs), seconds))
    return predictions


def infer(url: str, name: str, feed: Feed) -> Feed:
    """One inference by the Open Inference Protocol."""
    inputs = [
        {"name": key, "shape": value.shape, "datatype": _DATATYPES[value.dtype], "data": value.ravel().tolist()}
        for key, value in feed.items()
    ]
    request = urllib.request.Request(
        f"{url}/v2/models/{name}/infer",
        data=json.dumps({"inputs": inputs}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise ClusterError(f"{name} answers {error.code}: {error.read(2000).decode(errors='replace')}") from error
    except OSError as error:
        raise ClusterError(f"{name} does not answer: {error}") from error
    types: dict[str, np.dtype[Any]] = {text: dtype for dtype, text in _DATATYPES.items()}
    return {o["name"]: np.array(o["data"], types[o["datatype"]]).reshape(o["shape"]) for o in answer["outputs"]}


def _difference(expected: Feed, seen: Feed) -> float:
    if expected.keys() != seen.keys():
        raise ClusterError(f"expected the outputs {', '.join(expected)}; there are {', '.join(seen)}")
    return max(float(np.abs(expected[name] - seen[name]).max()) for name in expected)
