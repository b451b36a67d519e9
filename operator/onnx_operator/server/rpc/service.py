"""``inference.GRPCInferenceService``: the data plane's answers as gRPC calls.

gRPC's own threads read and write; handlers run in a pool, where messages are parsed and written too; inferences run
on the event loop or in its workers, with those of every other protocol. Measured on one core with 32 streams, this
answers half as many requests again as grpc.aio on uvloop: there each call takes several turns of the event loop.
"""

import asyncio
import hmac
import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message

from onnx_operator.server.dataplane.budget import Account, Budget
from onnx_operator.server.dataplane.call import Call
from onnx_operator.server.dataplane.inference import Inference
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.dataplane.sizes import STRING, feed_bytes, written_bytes
from onnx_operator.server.errors import RequestError
from onnx_operator.server.lifecycle import Lifecycle
from onnx_operator.server.metrics import Metrics
from onnx_operator.server.rpc import inference_pb2 as pb
from onnx_operator.server.rpc.codec import decode_request, encode_response
from onnx_operator.server.rpc.codes import code_of, detail_of
from onnx_operator.server.rpc.places import Places
from onnx_operator.server.rpc.wire import parsed_bytes

logger = logging.getLogger(__name__)

NAME = "inference.GRPCInferenceService"
RECEIVING = 8
"""Messages that are taken in at once; others wait in their connections."""
PATIENT_SECONDS = 1.0
"""What a message may take where others wait and its caller's address has more than one under way."""
SETTLE_SECONDS = 0.1
"""Counts of answered calls wait this long at most for the event loop, which has the metrics."""


@dataclass(frozen=True)
class Answered:
    """A call that has ended. ``metadata`` are the caller's headers, read only when asked for."""

    method: str
    protocol: str
    code: str
    started: float
    seconds: float
    metadata: Callable[[], dict[str, str]]


class _Pending:
    """An inference between its handler's thread, which waits at the gate, and the event loop."""

    __slots__ = ("call", "counted", "deadline", "error", "gate", "inference", "over", "results")

    def __init__(self, inference: Inference, deadline: float) -> None:
        self.inference = inference
        self.deadline = deadline
        self.gate = Lock()
        self.gate.acquire()
        self.over = False
        self.counted = False
        self.results: list[Any] | None = None
        self.error: RequestError | None = None
        self.call: Call | None = None


class Service:
    """Handlers of the protocol's calls. Built on the event loop; they run in threads.

    ``most`` is how many inferences may be here at once, those that wait included; ``longest`` is the bytes of the
    longest message that the server takes.
    """

    def __init__(
        self,
        plane: DataPlane,
        lifecycle: Lifecycle,
        metrics: Metrics,
        most: int,
        token: str = "",
        on_answered: Callable[[Answered], None] | None = None,
        access_log: bool = False,
        budget: Budget | None = None,
        longest: int = 64 << 20,
    ) -> None:
        self._budget = budget or Budget()
        self._longest = longest
        self._places = Places(RECEIVING)
        self._receiving: dict[grpc.ServicerContext, tuple[str, float]] = {}
        self._plane = plane
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._most = most
        self._token = token.encode()
        self._on_answered = on_answered
        self._access_log = access_log
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[_Pending] = deque()
        self._answered: deque[Answered] = deque()
        self._woken = False
        self._settling = False
        self._present = 0
        # A thread for each inference that may wait; they are made when they are needed.
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="rpc")

    @property
    def in_flight(self) -> int:
        """Inferences that have no answer yet."""
        return self._present

    def close(self) -> None:
        """Let the threads end."""
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

    def check_token(self, metadata: dict[str, str]) -> None:
        """Raise :class:`RequestError` (401) without the bearer token, where one is required (RFC 6750)."""
        if not self._token:
            return
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self._token):
            raise RequestError("send the endpoint's token as metadata authorization: Bearer TOKEN", 401)

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
        return pb.ModelMetadataResponse(
            name=told["name"],
            versions=told["versions"],
            platform=told["platform"],
            inputs=[tensor(**each) for each in told["inputs"]],
            outputs=[tensor(**each) for each in told["outputs"]],
        )

    def _unary(
        self, request_type: type[Message], answer: Callable[[Any], Message], *, public: bool = False
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        method = request_type.DESCRIPTOR.name.removesuffix("Request")

        def handle(body: bytes, context: grpc.ServicerContext) -> bytes:
            started = monotonic()
            try:
                if not public:
                    self.check_token(headers(context))
                response = answer(_parsed(request_type, body))
            except RequestError as error:
                self._refuse(method, "other", started, context, error)
            except Exception as fault:
                self._refuse(method, "other", started, context, _unexpected(fault))
            self._count(Answered(method, "other", "OK", started, monotonic() - started, lambda: headers(context)))
            return response.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(handle)

    # Inferences.

    def _infer(self, bodies: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        started = monotonic()
        account = Account(self._budget, 0)
        try:
            if self._token:
                self.check_token(headers(context))
            answer = self._answer(self._receive(bodies, context, started, account), context, started, account)
        except RequestError as error:
            self._refuse("ModelInfer", "grpc", started, context, error)
        except Exception as fault:
            self._refuse("ModelInfer", "grpc", started, context, _unexpected(fault))
        finally:
            account.keep(0)
        self._answered.append(
            Answered("ModelInfer", "grpc", "OK", started, monotonic() - started, lambda: headers(context))
        )
        if not self._settling:
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
        needed = parsed_bytes(body)
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
        inference.budget, inference.charged = self._budget, min(account.held, feed_bytes(inference.feed))
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
        code = code_of(error)
        self._count(Answered(method, protocol, code.name, started, monotonic() - started, lambda: headers(context)))
        context.abort(code, detail_of(error))

    # From here on the event loop.

    def _wake(self) -> None:
        """Have the event loop look at what threads have left for it. From any thread."""
        if not self._woken:
            self._woken = True
            self._on_loop(self._look)

    def _on_loop(self, work: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:
            # The loop is closed: the process ends, and nobody waits for this.
            logger.debug("a call ended after the event loop")

    def _look(self) -> None:
        # First, so that whoever leaves something from now on wakes the loop again.
        self._woken = False
        while self._arrived:
            self._begin(self._arrived.popleft())
        self._settle()

    def _begin(self, pending: _Pending) -> None:
        if pending.over:
            pending.inference.release()
            return
        if self._present >= self._most:
            pending.inference.release()
            self._metrics.reject()
            full = RequestError(f"the server is full ({self._most} requests run or wait); try again shortly", 429)
            self._end(pending, None, full)
            return
        self._present += 1
        self._metrics.enter()
        pending.counted = True
        if not self._settling:
            self._settling = True
            self._loop.call_later(SETTLE_SECONDS, self._settle_later)
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
        if pending.counted:
            self._present -= 1
            self._metrics.leave()
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

    def _settle_later(self) -> None:
        # First, so that a thread that ends a call from now on knows that nobody looks.
        self._settling = False
        self._settle()
        if self._present:
            self._settling = True
            self._loop.call_later(SETTLE_SECONDS, self._settle_later)

    def _settle(self) -> None:
        """Count and log what has been answered."""
        answered = self._answered
        while answered:
            call = answered.popleft()
            self._metrics.observe(call.protocol, call.code, call.seconds)
            failed = call.code in ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN")
            if failed or self._access_log:
                fields = {"method": f"{NAME}/{call.method}", "code": call.code, "seconds": round(call.seconds, 6)}
                level = logging.WARNING if failed else logging.INFO
                logger.log(level, "request", extra={"fields": fields | _trace_fields(call.metadata())})
            if self._on_answered is not None:
                self._on_answered(call)


def _raw_strings(request: pb.ModelInferRequest) -> int:
    """How many strings the raw contents may hold: each takes four bytes at least."""
    if all(tensor.datatype != "BYTES" for tensor in request.inputs):
        return 0
    return sum(len(raw) for raw in request.raw_input_contents) // 4


def headers(context: grpc.ServicerContext) -> dict[str, str]:
    """The caller's metadata that is text; the first of those that came twice."""
    found: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found.setdefault(key, value)
    return found


def _parsed(request_type: type[Any], body: bytes) -> Any:
    try:
        return request_type.FromString(body)
    except DecodeError:
        raise RequestError(f"the message is not a {request_type.DESCRIPTOR.full_name}") from None


def _unexpected(fault: Exception) -> RequestError:
    logger.error("a call failed unexpectedly: %r", fault, exc_info=fault)
    return RequestError("the server failed on this request", 500)


def _trace_fields(metadata: dict[str, str]) -> dict[str, str]:
    """The request's id and W3C trace context (https://www.w3.org/TR/trace-context/) for a line of the log."""
    fields = {}
    if request_id := metadata.get("x-request-id"):
        fields["requestId"] = request_id[:256]
    parts = metadata.get("traceparent", "").split("-")
    if len(parts) >= 4 and len(parts[1]) == 32 and len(parts[2]) == 16:
        fields |= {"traceId": parts[1], "spanId": parts[2]}
    return fields
