"""The real inspector, as a process that all operators of a run ask."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.plane import Files
from tests.cluster.layout import ROOT

START_SECONDS = 60.0


@asynccontextmanager
async def serving(folder: Path, files: Files) -> AsyncIterator[Path]:
    """The socket of an inspector, for as long as the block lasts."""
    settings, socket = folder / "inspector.yaml", folder / "inspector.sock"
    settings.write_text(json.dumps(files.settings))
    bound = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    command = [*bound, sys.executable, "-m", "onnx_operator.controller", "inspector"]
    options = ["--settings", str(settings), "--inspector-socket", str(socket)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    with (folder / "inspector.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(*command, *options, env=environment, stderr=log)
    try:
        async with asyncio.timeout(START_SECONDS):
            while not socket.exists():
                assert process.returncode is None, (folder / "inspector.log").read_text()[-2000:]
                await asyncio.sleep(0.05)
        yield socket
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
