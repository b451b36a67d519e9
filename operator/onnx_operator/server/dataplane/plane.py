"""The Open Inference Protocol v2 without a transport: what the model is, and inferences on it."""

import asyncio
import time
from typing import Any

from onnx_operator import __version__
from onnx_operator.server.dataplane.batching import Batcher
from onnx_operator.server.dataplane.call import Call
from onnx_operator.server.dataplane.inference import Done, Inference
from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.dataplane.tensors import TensorInfo
from onnx_operator.server.errors import RequestError, quote

Json = dict[str, Any]

EXTENSIONS = ["binary_tensor_data"]
ONLY_VERSION = "1"
"""What a model without versions may be asked for by: clients of Triton's always name one."""


class DataPlane:
    """Answers protocol requests for one model, once it is there.

    ``name`` and ``version`` are what requests call it; an empty version means that it has none. ``timeout`` is
    how many seconds an inference may take, waiting included.
    """

    def __init__(self, name: str, version: str = "", timeout: float = 5.0) -> None:
        self.name = name
        self.version = version
        self.timeout = timeout
        self._model: ServedModel | None = None
        self._batcher: Batcher | None = None

    @property
    def known_version(self) -> str:
        """The version, or the one that stands for none."""
        return self.version or ONLY_VERSION

    @property
    def model(self) -> ServedModel:
        """The loaded model. Raises :class:`RequestError` (503) before that."""
        if self._model is None:
            raise RequestError(f"model {self.name} is still loading", 503)
        return self._model

    @property
    def waiting(self) -> int:
        """Inferences that have not begun."""
        return self._batcher.waiting if self._batcher else 0

    def attach(self, model: ServedModel, batcher: Batcher) -> None:
        """Serve ``model`` through ``batcher`` from now on."""
        self._model = model
        self._batcher = batcher

    def close(self) -> None:
        """Let the threads end."""
        if self._batcher is not None:
            self._batcher.close()

    def check_name(self, name: str, version: str | None = None) -> None:
        """Raise :class:`RequestError` (404) unless this is the model, naming the one that is served."""
        served = f"model {self.name}" + (f" version {self.version}" if self.version else " (without versions)")
        if name != self.name:
            raise RequestError(f"unknown model {quote(name)}; this server serves {served}", 404)
        if version is not None and version not in (self.version, self.known_version):
            raise RequestError(f"unknown version {quote(version)}; this server serves {served}", 404)

    def server_metadata(self) -> Json:
        """Describe the server."""
        return {"name": "onnx-operator", "version": __version__, "extensions": EXTENSIONS}

    def model_metadata(self) -> Json:
        """Describe the model's tensors, not its sequences and maps; symbolic and unknown sizes are -1.

        An output that holds a score for each class has their labels in ``parameters.classes``, in the order of its
        columns.
        """
        return {
            "name": self.name,
            "versions": [self.known_version],
            "platform": "onnx_onnxv1",
            "inputs": [_metadata(info) for info in self.model.inputs if info.datatype],
            "outputs": [_metadata(info) for info in self.model.outputs if info.datatype],
        }

    def submit(self, inference: Inference, done: Done) -> None:
        """Run ``inference`` and call ``done`` on the event loop, also when its time is over (504).

        Raises :class:`RequestError` (503) while there is no model.
        """
        batcher = self._batcher
        if batcher is None:
            raise RequestError(f"model {self.name} is still loading", 503)
        inference.done = done
        batcher.submit(inference)

    def start(self, inference: Inference, done: Done, deadline: float) -> Call | None:
        """Run ``inference`` by ``deadline`` (``time.monotonic``), at the least cost: what takes no time needs no clock.

        Returns how to give it up, if it can be. Raises :class:`RequestError` (503) while there is no model.
        """
        if self._batcher is not None and self._batcher.immediate(inference):
            self.submit(inference, done)
            return None
        return self.submit_within(inference, done, deadline)

    def submit_within(self, inference: Inference, done: Done, deadline: float) -> Call:
        """As :meth:`submit`, but given up at ``deadline`` (by ``time.monotonic``), or by the returned call."""
        loop = asyncio.get_running_loop()
        call = inference.call = Call()
        answered = False

        def answer(results: list[Any] | None, error: RequestError | None) -> None:
            nonlocal answered
            timer.cancel()
            if not answered:
                answered = True
                done(results, error)

        def expire() -> None:
            call.cancel()
            answer(None, RequestError(f"no answer within {self.timeout:g} s", 504))

        timer = loop.call_later(max(0.0, deadline - time.monotonic()), expire)
        try:
            self.submit(inference, answer)
        except RequestError:
            timer.cancel()
            raise
        return call

    async def infer(self, inference: Inference, deadline: float | None = None) -> list[Any]:
        """Run ``inference``; cancelled with the task that awaits it. Raises :class:`RequestError`."""
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

        def done(results: list[Any] | None, error: RequestError | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(results or [])

        call = self.submit_within(inference, done, deadline or time.monotonic() + self.timeout)
        try:
            return await future
        finally:
            call.cancel()


def _metadata(info: TensorInfo) -> Json:
    shape = [size if isinstance(size, int) else -1 for size in info.shape]
    told = {"name": info.name, "datatype": info.datatype, "shape": shape}
    return told | ({"parameters": {"classes": list(info.classes)}} if info.classes else {})
