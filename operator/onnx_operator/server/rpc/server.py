"""The gRPC server: its port, its limits, TLS, health and reflection.

Imported only when the port is wanted, and after a server's processes have parted: gRPC's threads do not survive a fork.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from onnx_operator.server.dataplane.admission import Admission
from onnx_operator.server.dataplane.budget import Budget
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.errors import RequestError
from onnx_operator.server.lifecycle import Lifecycle
from onnx_operator.server.rpc import inference_pb2 as _described  # noqa: F401 - reflection finds it in protobuf's pool
from onnx_operator.server.rpc.codes import code_of
from onnx_operator.server.rpc.service import NAME, RECEIVING, Service, check_token
from onnx_operator.server.tls import TlsFiles

PROBE_THREADS = 4
MAX_STREAMS = 512
"""Calls that one connection may have open."""
MAX_METADATA_BYTES = 16 * 1024
OTHER_CALLS = 64
"""Calls beside inferences that may be open at once: probes, descriptions, watchers of health."""
WATCH_SECONDS = 0.5
"""How often the health that watchers are told is compared with the server's."""
_PUBLIC = (f"/{health.SERVICE_NAME}/", f"/{NAME}/")


class GrpcServer:
    """A server that listens; made by :func:`serve_grpc`."""

    def __init__(
        self, server: grpc.Server, port: int, service: Service, probes: ThreadPoolExecutor, watch: "_Health"
    ) -> None:
        self._server = server
        self.port = port
        self._service = service
        self._probes = probes
        self._health = watch

    async def drain(self, grace: float) -> None:
        """Take no new calls, tell watchers, and give running calls ``grace`` seconds; the rest is cancelled."""
        self._health.close()
        stopped = self._server.stop(grace)
        await asyncio.get_running_loop().run_in_executor(None, stopped.wait)
        self._service.close()
        self._probes.shutdown(wait=False, cancel_futures=True)


async def serve_grpc(
    plane: DataPlane,
    lifecycle: Lifecycle,
    admission: Admission,
    *,
    max_body_bytes: int = 64 << 20,
    host: str = "::",
    port: int = 8081,
    tls: TlsFiles | None = None,
    reuse_port: bool = True,
    budget: Budget | None = None,
) -> GrpcServer:
    """Listen, and answer until :meth:`GrpcServer.drain`. ``port`` 0 takes a free one; with ``reuse_port`` other
    processes may listen there too.

    Where the budget for requests is small, messages are as well: those that are taken in at once take half of it.
    Raises OSError if it cannot listen or cannot read the files of TLS.
    """
    budget = budget or Budget()
    longest = min(max_body_bytes, budget.total // (4 * RECEIVING))
    service = Service(plane, lifecycle, admission, budget, longest)
    probes = ThreadPoolExecutor(PROBE_THREADS, thread_name_prefix="rpc-probes")
    server = grpc.server(
        probes,
        handlers=[service.handlers()],
        interceptors=[_Token(admission)] if admission.guarded else [],
        options=_options(longest, reuse_port),
        # More than there is room for, so that refusals are ours, and counted.
        maximum_concurrent_rpcs=2 * admission.places + OTHER_CALLS,
    )
    watched = _Health(lifecycle, service.end_late)
    health_pb2_grpc.add_HealthServicer_to_server(watched, server)
    reflection.enable_server_reflection((NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_secure_port(address, _credentials(tls)) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen on {address}: {error}") from None
    server.start()
    watched.follow()
    return GrpcServer(server, bound, service, probes, watched)


def _options(longest: int, reuse_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(reuse_port)),
        ("grpc.max_receive_message_length", longest),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        # What has come of messages that nobody has asked for yet is memory that nobody has counted.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 64 * 1024),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
        ("grpc.server_handshake_timeout_ms", 10_000),
        # Dead peers are found, and pings that are too many end the connection.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 3),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_idle_ms", 15 * 60_000),
        # A channel stays with one pod for as long as it lives; ending it politely now and then reaches new pods.
        ("grpc.max_connection_age_ms", 30 * 60_000),
        ("grpc.max_connection_age_grace_ms", 60_000),
    ]


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that follow the files: certificates are renewed while the server runs."""
    files = [path for path in (tls.certificate, tls.key, tls.client_ca) if path is not None]
    known: list[bytes] = []

    def read() -> list[bytes]:
        return [path.read_bytes() for path in files]

    def configured(found: list[bytes]) -> grpc.ServerCertificateConfiguration:
        known[:] = found
        return grpc.ssl_server_certificate_configuration(
            [(found[1], found[0])], root_certificates=found[2] if tls.client_ca else None
        )

    def fetch() -> Any:
        try:
            found = read()
        except OSError:
            # Halfway through a renewal; what is known still holds.
            return None
        return configured(found) if found != known else None

    return grpc.dynamic_ssl_server_credentials(
        configured(read()), fetch, require_client_authentication=tls.client_ca is not None
    )


class _Health(health.HealthServicer):
    """``grpc.health.v1``, as ready as the server is."""

    def __init__(self, lifecycle: Lifecycle, also: Callable[[], None]) -> None:
        super().__init__()
        self._lifecycle = lifecycle
        self._also = also
        self._told: bool | None = None
        self._timer: asyncio.TimerHandle | None = None

    def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Answer with what holds now, not when it was last told."""
        if request.service not in ("", NAME):
            context.abort(grpc.StatusCode.NOT_FOUND, f"this server has no service {request.service[:100]!r}")
        return health_pb2.HealthCheckResponse(status=self._status(self._lifecycle.ready))

    def follow(self) -> None:
        """Tell watchers of changes from now on. On the event loop."""
        self._also()
        ready = self._lifecycle.ready
        if ready is not self._told:
            self._told = ready
            for service in ("", NAME):
                self.set(service, self._status(ready))
        self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self.follow)

    def close(self) -> None:
        """Tell watchers that the end has come."""
        if self._timer is not None:
            self._timer.cancel()
        self.enter_graceful_shutdown()

    @staticmethod
    def _status(ready: bool) -> Any:
        status = health_pb2.HealthCheckResponse
        return status.SERVING if ready else status.NOT_SERVING


class _Token(grpc.ServerInterceptor):
    """Asks for the token where the service's own handlers do not: at reflection. Health is for everybody."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Refuse a call, or let it pass."""
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_PUBLIC):
            return handler
        try:
            check_token(self._admission, handler_call_details.invocation_metadata)
        except RequestError as error:
            refusal = error
        else:
            return handler

        def refuse(_: Any, context: grpc.ServicerContext) -> Any:
            context.abort(code_of(refusal), refusal.message)

        return grpc.stream_stream_rpc_method_handler(refuse)
