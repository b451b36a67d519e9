"""Azure ML's own server, ``azureml-inference-server-http``, asked about each script, in processes of its own."""

import http.client
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.clients.azureml.recorded import asked, lay_out
from tests.clients.azureml.scripts import SCRIPTS, Script
from tests.cluster.servers import python_with
from tests.cluster.stores import free_port

PACKAGE = "azureml-inference-server-http"
_SECONDS = 300
"""Until it answers, on a machine that has much else to do."""


def answers(folder: Path, names: tuple[str, ...] = tuple(SCRIPTS)) -> dict[str, Any]:
    """What the server answers, script by script."""
    python = python_with("azureml")
    version = subprocess.run(
        [python, "-c", f"import importlib.metadata as m; print(m.version({PACKAGE!r}))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    found = {name: _answers(python, folder / f"real-{number}", SCRIPTS[name]) for number, name in enumerate(names)}
    return {"package": f"{PACKAGE}=={version}", "scripts": found}


def _answers(python: Path, folder: Path, script: Script) -> dict[str, Any]:
    root, models = lay_out(folder, script)
    port = free_port()
    command = [python, "-m", "azureml_inference_server_http", "--entry_script", script.entry]
    command += ["--model_dir", str(models), "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": "", "AML_APP_ROOT": str(root)}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=root, stdout=log, stderr=log, env=environment, start_new_session=True) as process,
    ):
        try:
            starts = _starts(process, port)
            return {"starts": starts, "answers": asked(port, script) if starts else {}}
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _starts(process: "subprocess.Popen[Any]", port: int) -> bool:
    deadline = time.monotonic() + _SECONDS
    while process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status == 200:
                return True
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        finally:
            connection.close()
    return False
