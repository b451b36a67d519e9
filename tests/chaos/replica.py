"""One replica of the operator: process after process, behind a proxy, and started again as a kubelet does."""

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from onnx_operator.controller.cluster.kinds import LEASE
from tests.chaos.api import Api, RefusedError
from tests.chaos.nursery import Clocks, Life, Nursery
from tests.chaos.proxy import Proxy, Trap, proxied

LEASE_NAME = "onnx-operator"
LOST_LEASE = "lost the lease"
STOP_SECONDS = 60.0


@dataclass
class Replica:
    """A replica, from its start until :meth:`end`."""

    api: Api
    nursery: Nursery
    proxy: Proxy
    namespace: str
    folder: Path
    inspector: Path
    hurried: bool
    seed: str
    alone: bool
    """Whether nobody else would take the lease of one that was killed."""
    clocks: Clocks = field(init=False)
    life: Life | None = None
    met: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """Promises that were broken."""
    each: int = 0
    """Writes to come at each of which it is killed."""
    moment: str = "after"
    _down: float = 0.0
    _frees: bool = True
    _lives: int = 0
    _ending: bool = False

    def __post_init__(self) -> None:
        self.clocks = Clocks(self.folder / "clocks")
        self.log = self.folder / "log"

    # --- what a plan does ---------------------------------------------------------------------------------------------

    def kill(self, *, frees: bool = True, down: float = 0.0) -> None:
        """Kill it now; a ``down`` of seconds later it is started again, with a lease that is free or has to expire."""
        if self.life:
            self.met["SIGKILL"] += 1
            self._frees, self._down = frees, down
            self.life.kill()

    def kill_at(self, at: int, moment: str, *, frees: bool = True, down: float = 0.0) -> None:
        """The same at a write that is to come."""
        self.proxy.traps.append(Trap(at, moment, lambda: self.kill(frees=frees, down=down)))

    def kill_each(self, writes: int, moment: str) -> None:
        """Kill it at each of so many writes, in turn."""
        self.each, self.moment = writes - 1, moment
        self.kill_at(1, moment)

    def calm(self) -> None:
        """From now on it is left in peace."""
        self.each = 0
        self.proxy.calm()

    # --- its lives ----------------------------------------------------------------------------------------------------

    def _arguments(self) -> list[str]:
        return [
            "controller",
            *("--settings", str(self.folder / "settings.yaml")),
            *("--inspector-socket", str(self.inspector)),
            *("--namespace", self.namespace, "--lease-name", LEASE_NAME),
            *("--kubeconfig", str(self.proxy.kubeconfig)),
            *("--host", "127.0.0.1", "--port", "0"),
        ]

    async def keep(self) -> None:
        """Start it, and again whenever it has ended."""
        while not self._ending:
            self._lives += 1
            self.life = life = await self.nursery.fork(
                arguments=self._arguments(),
                environment={"HOSTNAME": f"{self.folder.name}-{self._lives}"},
                log=str(self.log),
                clocks=str(self.clocks.file),
                hurried=self.hurried,
                random=f"{self.seed} {self._lives}",
            )
            began = self.log.stat().st_size if self.log.exists() else 0
            code = await asyncio.shield(life.ended)
            self._judge(life, code, began)
            if self._ending:
                return
            if life.killed and self._frees and self.alone:
                await self._free()
            await asyncio.sleep(self._down)
            if self.each > 0:
                self.each -= 1
                self.kill_at(1, self.moment)

    def _judge(self, life: Life, code: int, began: int) -> None:
        if life.killed or (life.asked and code in (0, -signal.SIGTERM)):
            return
        with self.log.open(errors="replace") as log:
            log.seek(began)
            text = log.read()
        if code == 1 and LOST_LEASE in text:
            # So it must, and a machine that is busy enough takes the lease from anybody.
            self.met["lost the lease"] += 1
            return
        self.faults.append(f"an operator ended with {code} by itself: {text[-1500:]}")

    async def _free(self) -> None:
        """As if the lease had expired: who was killed cannot give it back."""
        with contextlib.suppress(RefusedError):
            body = {"spec": {"holderIdentity": ""}}
            await self.api.patch(LEASE, self.namespace, LEASE_NAME, body)

    async def end(self) -> None:
        """Ask it to end, which it must do by itself."""
        self._ending = True
        life = self.life
        if life is None or life.ended.done():
            return
        life.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(life.ended), STOP_SECONDS)
        except TimeoutError:
            self.faults.append(f"an operator did not end within {STOP_SECONDS:.0f} s of SIGTERM")
            life.kill()
            return


@asynccontextmanager
async def replica(
    api: Api,
    nursery: Nursery,
    namespace: str,
    folder: Path,
    inspector: Path,
    settings: dict[str, object],
    *,
    hurried: bool = True,
    seed: str = "",
    alone: bool = True,
) -> AsyncIterator[Replica]:
    """A replica of an operator for one namespace, which is killed at the end of the block if it still runs."""
    folder.mkdir(parents=True)
    (folder / "settings.yaml").write_text(json.dumps({**settings, "namespaces": [namespace], "workers": 4}))
    async with proxied(api, folder) as proxy:
        made = Replica(api, nursery, proxy, namespace, folder, inspector, hurried, seed, alone)
        keeping = asyncio.create_task(made.keep(), name=f"keep {os.fspath(folder.name)}")
        try:
            yield made
        finally:
            made._ending = True
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            if made.life:
                made.life.kill()
