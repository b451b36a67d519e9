"""``inference.GRPCInferenceService``: the data plane's answers as gRPC calls.

gRPC's own threads read and write; handlers run in a pool, where messages are parsed and written too; inferences run
on the event loop or in its workers, with those of every other protocol. Measured on one core with 32 streams, this
answers half as many requests again as grpc.aio on uvloop: there each call takes several turns of the event loop.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from time import monotonic
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message

from onnx_operator.server.dataplane.admission import Admission, Answered
from onnx_operator.server.dataplane.budget import Account, Budget
from onnx_operator.server.dataplane.call import Call
from onnx_operator.server.dataplane.inference import Inference
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.dataplane.sizes import STRING, feed_bytes, written_bytes
from onnx_operator.server.errors import RequestError
from onnx_operator.server.lifecycle import Lifecycle
from onnx_operator.server.rpc import inference_pb2 as pb
from onnx_operator.server.rpc.codec import decode_request, encode_response
from onnx_operator.server.rpc.codes import code_of, detail_of
from onnx_operator.server.rpc.places import Places
from onnx_operator.server.rpc.wire import parsed_bytes

logger = logging.getLogger(__name__)

NAME = "inference.GRPCInferenceService"
_INFER = f"{NAME}/ModelInfer"
RECEIVING = 8
"""Messages that are taken in at once; others wait in their connections."""
PATIENT_SECONDS = 1.0
"""What a message may take where others wait and its caller's address has more than one under way."""
FLUSH_SECONDS = 0.1
"""Counts of answered calls wait this long at most for the event loop, which has the metrics."""


Metadata = Iterable[tuple[str, str | bytes]] | None
"""As gRPC hands it over."""


class _Pending:
    """An inference between its handler's thread, which waits at the gate, and the event loop."""

    __slots__ = ("admitted", "call", "deadline", "error", "gate", "inference", "over", "results")

    def __init__(self, inference: Inference, deadline: float) -> None:
        self.inference = inference
        self.deadline = deadline
        self.gate = Lock()
        self.gate.acquire()
        self.over = False
        self.admitted = False
        self.results: list[Any] | None = None
        self.error: RequestError | None = None
        self.call: Call | None = None


class Service:
    """Handlers of the protocol's calls. Built on the event loop; they run in threads.

    ``longest`` is the bytes of the longest message that the server takes.
    """

    def __init__(
        self,
        plane: DataPlane,
        lifecycle: Lifecycle,
        admission: Admission,
        budget: Budget,
        longest: int,
    ) -> None:
        self._budget = budget
        self._longest = longest
        self._places = Places(RECEIVING)
        self._receiving: dict[grpc.ServicerContext, tuple[str, float]] = {}
        self._plane = plane
        self._lifecycle = lifecycle
        self._admission = admission
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[_Pending] = deque()
        self._answered: deque[Answered] = deque()
        self._woken = False
        self._flushing = False
        # A thread for each inference that may wait, and some to take in what is then refused; made when needed.
        self._threads = ThreadPoolExecutor(admission.places + RECEIVING, thread_name_prefix="rpc")

    def close(self) -> None:
        """Tell of the last calls, and let the threads end. On the event loop."""
        self._flush()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def handlers(self) -> grpc.GenericRpcHandler:
        """The service's methods, for a server."""

        def infer(bodies: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            return self._infer(bodies, context)

        # Inferences must not take the threads of the probes.
        infer.experimental_thread_pool = self._threads  # type: ignore[attr-defined]
        methods = {
            "ServerLive": self._unary(pb.ServerLiveRequest, lambda _: pb.ServerLiveResponse(live=True), public=True),
            "ServerReady": self._unary(pb.ServerReadyRequest, self._server_ready, public=True),
            "ModelReady": self._unary(pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": self._unary(pb.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": self._unary(pb.ModelMetadataRequest, self._model_metadata),
            # To gRPC a stream, of which one message is taken when there is room for it.
            "ModelInfer": grpc.stream_unary_rpc_method_handler(infer),
        }
        return grpc.method_handlers_generic_handler(NAME, methods)

    # Descriptions.

    def _server_ready(self, _: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._lifecycle.ready)

    def _model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        self._plane.check_name(request.name, request.version or None)
        return pb.ModelReadyResponse(ready=self._lifecycle.ready)

    def _server_metadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        told = self._plane.server_metadata()
        # The extensions are those of REST: raw contents are part of this protocol.
        return pb.ServerMetadataResponse(name=told["name"], version=told["version"])

    def _model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        self._plane.check_name(request.name, request.version or None)
        told = self._plane.model_metadata()
        tensor = pb.ModelMetadataResponse.TensorMetadata
        # Tensors have no field for it here, the model has: JSON, as labels may hold anything.
        classes = {
            f"{each['name']}.classes": each.pop("parameters") for each in told["outputs"] if "parameters" in each
        }
        return pb.ModelMetadataResponse(
            name=told["name"],
            versions=told["versions"],
            platform=told["platform"],
            inputs=[tensor(**each) for each in told["inputs"]],
            outputs=[tensor(**each) for each in told["outputs"]],
            properties={name: json.dumps(each["classes"]) for name, each in classes.items()},
        )

    def _unary(
        self, request_type: type[Message], answer: Callable[[Any], Message], *, public: bool = False
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        method = f"{NAME}/{request_type.DESCRIPTOR.name.removesuffix('Request')}"

        def handle(body: bytes, context: grpc.ServicerContext) -> bytes:
            started = monotonic()
            try:
                if self._admission.guarded and not public:
                    check_token(self._admission, context.invocation_metadata())
                response = answer(_parsed(request_type, body))
            except RequestError as error:
                self._refuse(method, "other", started, context, error)
            except Exception as fault:
                self._refuse(method, "other", started, context, _unexpected(fault))
            self._count(_ended(method, "other", started, context))
            return response.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(handle)

    # Inferences.

    def _infer(self, bodies: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        started = monotonic()
        account = Account(self._budget, 0)
        try:
            if self._admission.guarded:
                check_token(self._admission, context.invocation_metadata())
            answer = self._answer(self._receive(bodies, context, started, account), context, started, account)
        except RequestError as error:
            self._refuse(_INFER, "grpc", started, context, error)
        except Exception as fault:
            self._refuse(_INFER, "grpc", started, context, _unexpected(fault))
        finally:
            account.keep(0)
        self._answered.append(_ended(_INFER, "grpc", started, context))
        if not self._flushing:
            self._wake()
        return answer

    def _receive(
        self, bodies: Iterator[bytes], context: grpc.ServicerContext, started: float, account: Account
    ) -> bytes:
        """Take the call's message. Only a few are taken at once, in turns by address, with room for the longest."""
        # Without the port, of which a caller may have as many as it likes.
        address = context.peer().rpartition(":")[0]
        if not self._places.acquire(address, self._plane.timeout):
            raise RequestError("the server takes in other messages; try again shortly", 503)
        try:
            # Once as it came, once as it is handed over.
            account.reserve_unseen(2 * self._longest)
            self._receiving[context] = (address, monotonic())
            body = next(bodies, None)
        except grpc.RpcError:
            raise RequestError("the caller has gone", 499) from None
        finally:
            self._receiving.pop(context, None)
            self._places.release(address)
        if body is None:
            if monotonic() - started >= self._plane.timeout:
                raise RequestError("the message did not come in time", 504)
            raise RequestError("the call has no message")
        return body

    def _answer(self, body: bytes, context: grpc.ServicerContext, started: float, account: Account) -> bytes:
        needed, length = parsed_bytes(body), len(body)
        # From the room for the longest message to what this one takes.
        account.become(needed)
        request: pb.ModelInferRequest = _parsed(pb.ModelInferRequest, body)
        del body
        plane = self._plane
        plane.check_name(request.model_name, request.model_version or None)
        model = plane.model
        account.reserve(needed + STRING * _raw_strings(request))
        inference, raw = decode_request(request, model)
        remaining = context.time_remaining()
        patience = plane.timeout if remaining is None else min(plane.timeout, remaining)
        pending = _Pending(inference, started + patience)

        def ended() -> None:
            if not pending.over:
                self._on_loop(lambda: self._give_up(pending))

        # The feed is held as long as the inference has it, which may be after its caller was told that it is late.
        inference.budget, inference.charged = self._budget, min(account.held, feed_bytes(inference.feed, length))
        account.held -= inference.charged
        if not context.add_callback(ended):
            inference.release()
            raise RequestError("the caller has gone", 499)
        self._arrived.append(pending)
        self._wake()
        pending.gate.acquire()
        if pending.error is not None:
            raise pending.error
        assert pending.results is not None
        account.reserve(account.held + written_bytes(pending.results, raw=raw))
        return encode_response(request, model, plane.version, inference.outputs, pending.results, raw)

    def _refuse(
        self, method: str, protocol: str, started: float, context: grpc.ServicerContext, error: RequestError
    ) -> NoReturn:
        self._count(_ended(method, protocol, started, context, error))
        context.abort(code_of(error), detail_of(error))

    # From here on the event loop.

    def _wake(self) -> None:
        """Have the event loop look at what threads have left for it. From any thread."""
        if not self._woken:
            self._woken = True
            self._on_loop(self._begin_arrived)

    def _on_loop(self, work: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:
            # The loop is closed: the process ends, and nobody waits for this.
            logger.debug("a call ended after the event loop")

    def _begin_arrived(self) -> None:
        # First, so that whoever leaves something from now on wakes the loop again.
        self._woken = False
        while self._arrived:
            self._begin(self._arrived.popleft())
        self._flush()

    def _begin(self, pending: _Pending) -> None:
        if pending.over:
            pending.inference.release()
            return
        if (full := self._admission.take_place()) is not None:
            pending.inference.release()
            self._end(pending, None, full)
            return
        pending.admitted = True
        if not self._flushing:
            self._flushing = True
            self._loop.call_later(FLUSH_SECONDS, self._flush_later)
        try:
            pending.call = self._plane.start(
                pending.inference, lambda results, error: self._end(pending, results, error), pending.deadline
            )
        except RequestError as error:
            self._end(pending, None, error)

    def _end(self, pending: _Pending, results: list[Any] | None, error: RequestError | None) -> None:
        """Let the handler's thread go on, once."""
        if pending.over:
            return
        pending.over = True
        pending.results, pending.error = results, error
        if pending.admitted:
            self._admission.leave()
        pending.gate.release()

    def _give_up(self, pending: _Pending) -> None:
        if pending.call is not None:
            pending.call.cancel()
        self._end(pending, None, RequestError("the caller has gone", 499))

    def _count(self, answered: Answered) -> None:
        self._answered.append(answered)
        self._wake()

    def end_late(self) -> None:
        """End the calls whose message has been awaited for too long."""
        now = monotonic()
        for context, (address, since) in list(self._receiving.items()):
            crowded = self._places.wanted and self._places.share(address) > 1
            if now - since > (PATIENT_SECONDS if crowded else self._plane.timeout):
                context.cancel()

    def _flush_later(self) -> None:
        # First, so that a thread that ends a call from now on knows that nobody looks.
        self._flushing = False
        self._flush()
        if self._admission.present:
            self._flushing = True
            self._loop.call_later(FLUSH_SECONDS, self._flush_later)

    def _flush(self) -> None:
        """Count and tell what has been answered."""
        admission = self._admission
        while self._answered:
            call = self._answered.popleft()
            admission.count(call.protocol, call.code, call.seconds)
            if call.failed or admission.watched:
                admission.tell(call)


def _raw_strings(request: pb.ModelInferRequest) -> int:
    """How many strings the raw contents may hold: each takes four bytes at least."""
    if all(tensor.datatype != "BYTES" for tensor in request.inputs):
        return 0
    return sum(len(raw) for raw in request.raw_input_contents) // 4


def check_token(admission: Admission, metadata: Metadata) -> None:
    """Raise :class:`RequestError` (401) where a call has not the token that is asked for."""
    refusal = admission.check_token(_headers(metadata).get("authorization", "").encode())
    if refusal is not None:
        raise refusal


def _headers(metadata: Metadata) -> dict[str, str]:
    """The caller's metadata that is text; the first of those that came twice."""
    found: dict[str, str] = {}
    for key, value in metadata or ():
        if isinstance(value, str):
            found.setdefault(key, value)
    return found


def _ended(
    method: str, protocol: str, started: float, context: grpc.ServicerContext, error: RequestError | None = None
) -> Answered:
    return Answered(
        protocol=protocol,
        method=method,
        path=None,
        code="OK" if error is None else code_of(error).name,
        failed=error is not None and error.status >= 500,
        error="" if error is None else error.message,
        started=started,
        seconds=monotonic() - started,
        headers=lambda: _headers(context.invocation_metadata()),
    )


def _parsed(request_type: type[Any], body: bytes) -> Any:
    try:
        return request_type.FromString(body)
    except DecodeError:
        raise RequestError(f"the message is not a {request_type.DESCRIPTOR.full_name}") from None


def _unexpected(fault: Exception) -> RequestError:
    logger.error("a call failed unexpectedly: %r", fault, exc_info=fault)
    return RequestError("the server failed on this request", 500)
