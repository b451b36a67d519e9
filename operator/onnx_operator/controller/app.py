"""The controller process: endpoints, lease, workers, watches; in this order, and back."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.common.listening import ANY_V6
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.keys import ModelKey
from onnx_operator.controller.cluster.kinds import ONNX_MODEL
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.lease import Lease, LeaseLostError
from onnx_operator.controller.cluster.naming import InvalidNameError
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.cluster.reflector import Reflectors
from onnx_operator.controller.cluster.sight import Sight
from onnx_operator.controller.cluster.store import Store
from onnx_operator.controller.cluster.watches import wake
from onnx_operator.controller.endpoints import Health, start_endpoints
from onnx_operator.controller.reconcile import Reconciler
from onnx_operator.controller.revision.sealkey import SealKeyError, SealKeys, obtain_keys
from onnx_operator.controller.rollout.revising import Revising
from onnx_operator.controller.rollout.shapes import shapes
from onnx_operator.controller.settings.settings import Settings
from onnx_operator.controller.telemetry import metrics
from onnx_operator.inspector import InspectorClient

logger = logging.getLogger(__name__)

CRD_RETRY_SECONDS = 2.0
PROBE_TIMEOUT_SECONDS = 5.0
INSPECTOR_RETRY_SECONDS = 0.5
INSPECTOR_CHECK_SECONDS = 5.0
INSPECTOR_GONE_SECONDS = 30.0
"""How long a leader waits for an inspector that does not answer: its container is started anew in seconds."""
SEAL_RETRY_SECONDS = 5.0


class InspectorGoneError(Exception):
    """The inspector has not answered for long: another replica, with an inspector, is to lead."""


@dataclass(frozen=True)
class Options:
    """How this process runs, as its command line says."""

    inspector_socket: Path
    namespace: str
    kubeconfig: str | None = None
    host: str = ANY_V6
    port: int = 8080
    lease_name: str = "onnx-operator"


async def _work(queue: KeyedQueue[ModelKey], reconciler: Reconciler) -> None:
    while True:
        key = await queue.get()
        metrics.QUEUE_DEPTH.set(len(queue))
        started = time.monotonic()
        try:
            await reconciler.reconcile(key)
            metrics.RECONCILES.labels(result="ok").inc()
        except InvalidNameError as error:
            # No object can have such a name, however often it is asked for; a change of the model is looked at.
            queue.forget(key)
            metrics.RECONCILES.labels(result="error").inc()
            logger.warning("reconciling failed: %s", error, extra={"model": "/".join(key)})
        except Exception as error:
            # One model's trouble must never end the worker; the key comes again, later each time.
            delay = queue.retry(key)
            metrics.RECONCILES.labels(result="error").inc()
            known = isinstance(error, ApiError | OSError | TimeoutError | LeaseLostError)
            logger.warning(
                "reconciling failed, again in %.0f s: %s",
                delay,
                error,
                exc_info=not known,
                extra={"model": "/".join(key)},
            )
        finally:
            metrics.RECONCILE_SECONDS.observe(time.monotonic() - started)
            queue.done(key)


async def _wait_for_crd(kube: Kube, namespaces: list[str]) -> None:
    """Watches begin with what is served then: wait until OnnxModel is, in any of the namespaces."""
    while True:
        for namespace in namespaces or ["default"]:
            try:
                await kube.list(ONNX_MODEL, namespace, {"onnx-operator.dev/none": "none"})
            except ApiError as error:
                logger.warning("OnnxModel is not served yet, or may not be listed: %s", error.message)
            except (OSError, TimeoutError) as error:
                logger.warning("the API server does not answer: %s", error)
            else:
                return
        await asyncio.sleep(CRD_RETRY_SECONDS)


async def _wait_until_gone(inspector: InspectorClient) -> None:
    """Return once the inspector has not answered for long."""
    answered = time.monotonic()
    while time.monotonic() - answered < INSPECTOR_GONE_SECONDS:
        await asyncio.sleep(INSPECTOR_CHECK_SECONDS)
        if await inspector.healthy():
            answered = time.monotonic()


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _lead(
    kube: Kube,
    lease: Lease,
    settings: Settings,
    options: Options,
    health: Health,
    stop: asyncio.Event,
    probe: InspectorClient,
) -> None:
    """Reconcile until ``stop``, and hand the lease on before anything else is wound up.

    Raises:
        InspectorGoneError: there is nobody to ask about models any more.
    """
    renewal = asyncio.create_task(_renew(lease))
    keys = await _seal_keys(kube, options, stop)
    if keys is None:
        renewal.cancel()
        await asyncio.gather(renewal, return_exceptions=True)
        await lease.release()
        return
    # A quarter of the workers, and one at least, is always there for others than a namespace whose models take long.
    most = max(1, settings.workers - max(1, settings.workers // 4))
    queue: KeyedQueue[ModelKey] = KeyedQueue(party=lambda key: key[0], most=most)
    inspector = InspectorClient(options.inspector_socket, max_model_bytes=settings.inspection.max_model_bytes)
    identity = os.environ.get("HOSTNAME", socket.gethostname())
    revising = Revising(kube, settings, keys)
    store = Store(shapes(revising.own, scripts=settings.allow_scoring, models=settings.model_selector))
    # What the operator itself writes is known at once.
    kube.heard, kube.missed = store.heard, store.missed
    wake(queue, store)
    reconciler = Reconciler(
        kube, settings, load_capabilities(), inspector, queue, identity, revising, Sight(kube, store)
    )
    reflectors = Reflectors(kube, store, settings.namespaces)
    health.degraded = reflectors.degraded

    async def reconcile() -> None:
        await reflectors.start()
        health.watching = True
        await asyncio.gather(*(_work(queue, reconciler) for _ in range(settings.workers)))

    working, stopping = asyncio.create_task(reconcile()), asyncio.create_task(stop.wait())
    missing = asyncio.create_task(_wait_until_gone(probe))
    try:
        await asyncio.wait({working, stopping, missing}, return_when=asyncio.FIRST_COMPLETED)
        gone = missing.done() and not stop.is_set()
    finally:
        ours = (working, stopping, missing, renewal)
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)
        await lease.release()
        await reflectors.stop()
        await inspector.aclose()
    if working.done() and not working.cancelled():
        working.result()
    if gone:
        raise InspectorGoneError(f"the inspector has not answered for {INSPECTOR_GONE_SECONDS:.0f} s: another leads")


async def _seal_keys(kube: Kube, options: Options, stop: asyncio.Event) -> SealKeys | None:
    """The keys of the seals; None when the process is to stop before they can be had."""
    name = f"{options.lease_name}-seal"
    while not stop.is_set():
        try:
            return await obtain_keys(kube, options.namespace, name)
        except ApiError as error:
            logger.error(
                "Secret %s/%s cannot be read or made, nothing is reconciled: %s", options.namespace, name, error
            )
        except (SealKeyError, OSError, TimeoutError) as error:
            logger.error("nothing is reconciled: %s", error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), SEAL_RETRY_SECONDS)
    return None


async def _renew(lease: Lease) -> None:
    try:
        await lease.hold()
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        # Whatever ended the renewal: another replica may be at work already, and nothing may be written any more.
        logger.critical("lost the lease, ending at once: %s", error)
        logging.shutdown()
        os._exit(1)


async def run_controller(settings: Settings, options: Options) -> None:
    """Stand by for the lease, then reconcile until a signal comes. A lost lease ends the process at once."""
    stop = asyncio.Event()
    _stop_on_signals(stop)
    if options.kubeconfig:
        os.environ["KUBECONFIG"] = options.kubeconfig

    probe = InspectorClient(options.inspector_socket, silence_seconds=PROBE_TIMEOUT_SECONDS)
    health = Health(inspector=probe)
    endpoints = await start_endpoints(health, options.host, options.port)
    kube = await Kube.connect(options.kubeconfig)
    identity = f"{os.environ.get('HOSTNAME', socket.gethostname())}_{os.urandom(4).hex()}"
    lease = Lease(kube, options.namespace, options.lease_name, identity)
    kube.may_write = lease.check

    async def work() -> None:
        await _wait_for_crd(kube, settings.namespaces)
        health.connected = True
        # Whoever leads without an inspector would tell every new model that its source is unreachable.
        while not await probe.healthy():  # noqa: ASYNC110 - another process cannot set an Event
            await asyncio.sleep(INSPECTOR_RETRY_SECONDS)
        await lease.acquire()
        health.leading = True
        await _lead(kube, lease, settings, options, health, stop, probe)

    working, stopping = asyncio.create_task(work()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if health.leading:
            await working
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
        await probe.aclose()
        await kube.close()
        await endpoints.cleanup()
    if working.done() and not working.cancelled():
        working.result()
