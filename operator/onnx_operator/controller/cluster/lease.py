"""Leader election by a Lease: one replica works, the others stand by.

The holder renews; others take over when they have seen the same renewal for a whole lease duration, by their own
clock, so that clocks may differ. A holder that cannot renew in time must end its process: another may be at work.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.kinds import LEASE, Object
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.times import micro_time
from onnx_operator.controller.telemetry import metrics

logger = logging.getLogger(__name__)

DURATION_SECONDS = 15
RENEW_DEADLINE_SECONDS = 10.0
PERIOD_SECONDS = 2.0
ACQUIRE_TIMEOUT_SECONDS = 5.0


class LeaseLostError(Exception):
    """The Lease could not be renewed in time, or somebody else holds it."""


def _elapsed() -> float:
    """Seconds of a clock that goes on while the machine sleeps (``CLOCK_BOOTTIME``), where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """One replica's part in the election."""

    def __init__(
        self, kube: Kube, namespace: str, name: str, identity: str, clock: Callable[[], float] = _elapsed
    ) -> None:
        """Begin without it; ``clock`` tells seconds, also those for which the process was stopped."""
        self._clock = clock
        self._sure_until = float("-inf")
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._seen: tuple[Any, Any] = (None, None)
        self._seen_at = 0.0

    async def _attempt(self) -> bool:
        """Take or renew the Lease where that is allowed; whether we hold it now."""
        now = asyncio.get_running_loop().time()
        lease = await self._kube.get(LEASE, self._namespace, self._name)
        if lease is None:
            manifest: Object = {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.kind,
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": self._spec({}),
            }
            await self._kube.create(LEASE, manifest)
            return True
        spec = lease.get("spec") or {}
        holder, renewal = spec.get("holderIdentity") or "", spec.get("renewTime")
        if (holder, renewal) != self._seen:
            self._seen, self._seen_at = (holder, renewal), now
        expired = now - self._seen_at >= (spec.get("leaseDurationSeconds") or DURATION_SECONDS)
        if holder not in ("", self._identity) and not expired:
            return False
        await self._kube.replace(LEASE, {**lease, "spec": self._spec(spec)})
        return True

    def _spec(self, old: Object) -> Object:
        now = micro_time()
        mine = old.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": (old.get("leaseTransitions") or 0) + (0 if mine or not old else 1),
        }

    def check(self) -> None:
        """See that nobody else can hold the Lease yet, before anything is written.

        A process may have been stopped for any time between two of its lines, and be told of it by nobody.

        Raises:
            LeaseLostError: the last renewal is too long ago.
        """
        if self._clock() >= self._sure_until:
            raise LeaseLostError(f"the lease was not renewed for {RENEW_DEADLINE_SECONDS:.0f} s")

    async def acquire(self) -> None:
        """Wait until this replica holds the Lease."""
        while True:
            started = self._clock()
            try:
                async with asyncio.timeout(ACQUIRE_TIMEOUT_SECONDS):
                    held = await self._attempt()
                if held:
                    self._sure_until = started + RENEW_DEADLINE_SECONDS
                    logger.info("holding the lease", extra={"lease": self._name, "identity": self._identity})
                    return
            except (ApiError, OSError, TimeoutError) as error:
                if not (isinstance(error, ApiError) and error.status == 409):
                    metrics.LEASE_FAILURES.inc()
                    logger.warning("the lease cannot be taken: %s", error)
            await asyncio.sleep(PERIOD_SECONDS)

    async def hold(self) -> None:
        """Renew for as long as possible.

        Raises:
            LeaseLostError: always, in the end; the process must stop at once.
        """
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            # Counted from when a renewal was sent: others count from when it arrived, which is later.
            started = self._clock()
            try:
                async with asyncio.timeout(max(0.0, self._sure_until - started)):
                    held = await self._attempt()
                if not held:
                    raise LeaseLostError("another replica holds the lease")
                self._sure_until = started + RENEW_DEADLINE_SECONDS
            except (ApiError, OSError, TimeoutError) as error:
                metrics.LEASE_FAILURES.inc()
                logger.warning("the lease was not renewed: %s", error)
            self.check()

    async def release(self) -> None:
        """Let another replica take over at once; nothing may be written any more."""
        self._sure_until = float("-inf")
        try:
            lease = await self._kube.get(LEASE, self._namespace, self._name)
            if lease and (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                await self._kube.replace(LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": ""}})
        except (ApiError, OSError, TimeoutError) as error:
            logger.warning("the lease was not released: %s", error)
