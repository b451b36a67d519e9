"""A control plane of the chaos's own, whose programs can be killed and started again, and the models' store."""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from onnx_operator.api.crd import to_yaml
from tests import models
from tests.chaos.api import Api
from tests.chaos.plan import GOOD
from tests.cluster import apiserver as api_server_only
from tests.cluster import probe, tools
from tests.unit.model.webkit import FileServer, Request, Server, make_authority

CONTROLLERS = "deployment,replicaset,garbagecollector"
"""Kubernetes' own, of what a model consists of."""


@dataclass
class Plane:
    """API server, etcd and controllers."""

    server: api_server_only._Server
    api: Api
    restarts: int = 0

    def __post_init__(self) -> None:
        self._busy = asyncio.Lock()

    async def restart(self, program: str) -> None:
        """Kill ``kube-apiserver``, ``etcd`` or ``both`` and start them again; returns once they answer."""
        async with self._busy:
            numbers = {"etcd": [0], "kube-apiserver": [1], "both": [0, 1]}[program]
            self.restarts += 1
            for number in reversed(numbers):
                self.server.running[number].kill()
            for number in numbers:
                old = self.server.running[number]
                await asyncio.to_thread(old.wait)
                with (self.server.folder / f"restarted-{number}.log").open("ab") as log:
                    self.server.running[number] = await asyncio.to_thread(
                        subprocess.Popen, old.args, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                    )
            port = int(self.api.url.rpartition(":")[2])
            async with asyncio.timeout(90):
                while not await asyncio.to_thread(probe.ready, "127.0.0.1", port, self.server.folder / "ca.crt"):
                    await asyncio.sleep(0.1)


@asynccontextmanager
async def plane(folder: Path) -> AsyncIterator[Plane]:
    """A control plane with OnnxModels and Kubernetes' own controllers, for as long as the block lasts."""
    programs = api_server_only.programs()
    if programs is None or not (programs / "kube-controller-manager").exists():
        await asyncio.to_thread(tools.ensure, *tools.API_SERVER_ROWS)
        programs = api_server_only.BIN
    api_server_only._sweep()
    server = await asyncio.to_thread(api_server_only._start, programs)
    bound = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    controllers: subprocess.Popen[bytes] | None = None
    api = Api.connect(server.cluster.kubeconfig, folder)
    try:
        await asyncio.to_thread(server.cluster.apply, to_yaml())
        established = ("wait", "--for=condition=Established", "crd/onnxmodels.onnx-operator.dev", "--timeout=60s")
        await asyncio.to_thread(server.cluster.kubectl, *established)
        with (folder / "controllers.log").open("ab") as log:
            controllers = subprocess.Popen(
                [
                    *bound,
                    str(programs / "kube-controller-manager"),
                    f"--kubeconfig={server.cluster.kubeconfig}",
                    f"--controllers={CONTROLLERS}",
                    "--leader-elect=false",
                    "--secure-port=0",
                    "--kube-api-qps=400",
                    "--kube-api-burst=600",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        yield Plane(server, api)
    finally:
        with contextlib.suppress(Exception):
            await api.close()
        if controllers:
            controllers.kill()
            await asyncio.to_thread(controllers.wait)
        await asyncio.to_thread(server.stop)


@dataclass
class Files:
    """A server that holds the models."""

    url: str
    authority: str

    @property
    def settings(self) -> dict[str, object]:
        """The operator's settings, but for the namespaces."""
        return {
            "serverImage": "localhost/onnx-server:1",
            "sources": {"allowedNetworks": ["127.0.0.0/8"], "https": {"caBundle": self.authority}},
        }

    def uri(self, file: str) -> str:
        return f"{self.url}/{file}.onnx"


@asynccontextmanager
async def files(folder: Path) -> AsyncIterator[Files]:
    """Small models on a server of our own."""
    authority = make_authority(folder)
    served = {f"/{name}.onnx": FileServer(models.linear(number), f'"{name}"') for number, name in enumerate(GOOD)}
    served["/unknown.onnx"] = FileServer(models.unknown_operator(), '"unknown"')

    async def answer(request: Request) -> None:
        await (served[request.path](request) if request.path in served else request.answer(404))

    async with Server(answer, authority.server) as server:
        yield Files(f"https://localhost:{server.port}", authority.pem)
