"""Servers that models are read from in tests: Debian's nginx and docker-registry, and programs of the Python index."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.errors import ClusterError, ClusterUnavailableError, tail
from tests.cluster.layout import cache
from tests.cluster.progress import locked, run, step
from tests.cluster.stores import free_port, running

_TOOLS = Path(__file__).with_name("tools")
REGISTRY_USER, REGISTRY_PASSWORD = "reader", "s3cret"
# bcrypt of the password, with the least rounds.
_REGISTRY_ACCOUNTS = f"{REGISTRY_USER}:$2b$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n"


def debian_program(name: str, package: str) -> str:
    """The path of a program of a Debian package, installed if need be.

    Raises :class:`ClusterUnavailableError` where that is not possible, with the reason.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if found := shutil.which(name, path=path):
        return found
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise ClusterUnavailableError(
            f"{name} is missing; Debian's package {package} has it, and only root installs it"
        )
    # A server must not be started by its installation: the tests start their own.
    environment = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", package]
    with locked(cache() / ".apt.lock", "another installation"), step(f"package {package}"):
        try:
            run(install, env=environment)
        except ClusterError:
            # The lists may be old, or there may be none yet.
            run(["apt-get", "update"], env=environment)
            run(install, env=environment)
    if found := shutil.which(name, path=path):
        return found
    raise ClusterUnavailableError(f"{name} is still missing after installing Debian's package {package}")


def python_with(name: str) -> Path:
    """The Python of a virtual environment that holds what ``tools/NAME/requirements.txt`` pins, made if need be."""
    pinned = _TOOLS / name / "requirements.txt"
    key = hashlib.sha256(pinned.read_bytes() + sys.version.encode()).hexdigest()[:16]
    target = cache() / "tools" / f"{name}-{key}"
    if not target.is_dir():
        with locked(cache() / "tools" / f".{name}.lock", f"another installation of {name}"):
            if not target.is_dir():
                with step(f"install {name}"):
                    _make_environment(pinned, target)
    os.utime(target)
    return target / "bin" / "python"


def _make_environment(pinned: Path, target: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    # Complete or absent; environments are never moved, so that a mark tells which of both.
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        made = Path(folder) / "environment"
        run(["nice", uv, "venv", "--relocatable", "--python", sys.executable, made])
        run(["nice", uv, "pip", "install", "--require-hashes", "--python", made / "bin" / "python", "-r", pinned])
        made.rename(target)


@contextmanager
def nginx(folder: Path, certificate: Path, locations: str) -> Iterator[str]:
    """Serve ``folder/files`` over TLS, with these ``location`` blocks; gives the URL."""
    port = free_port()
    scratch = " ".join(f"{each}_temp_path {folder}/tmp;" for each in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"""
        daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{
          access_log off; client_body_temp_path {folder}/tmp; {scratch}
          server {{
            listen 127.0.0.1:{port} ssl;
            ssl_certificate {certificate}; ssl_certificate_key {certificate};
            root {folder}/files;
            {locations}
          }}
        }}
        """
    )
    program = debian_program("nginx", "nginx-light")
    with running([program, "-p", str(folder), "-c", str(folder / "nginx.conf")], f"http://127.0.0.1:{port}"):
        yield f"https://127.0.0.1:{port}"


@contextmanager
def registry(folder: Path, certificate: Path, tokens: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a registry over TLS that one account may read and write; gives HOST:PORT.

    With ``tokens``, its settings of that name, it takes those of a token service instead of the account's password.
    """
    port = free_port()
    auth = {"token": tokens} if tokens else {"htpasswd": {"realm": "models", "path": f"{folder}/accounts"}}
    (folder / "accounts").write_text(_REGISTRY_ACCOUNTS)
    (folder / "config.yml").write_text(
        f"""
        version: 0.1
        log: {{level: error, accesslog: {{disabled: true}}}}
        storage: {{filesystem: {{rootdirectory: {folder}/blobs}}, delete: {{enabled: true}}}}
        http:
          addr: 127.0.0.1:{port}
          tls: {{certificate: {certificate}, key: {certificate}}}
        auth: {json.dumps(auth)}
        """
    )
    program = debian_program("docker-registry", "docker-registry")
    with running([program, "serve", str(folder / "config.yml")], f"http://127.0.0.1:{port}"):
        yield f"127.0.0.1:{port}"


@contextmanager
def mlflow(folder: Path) -> Iterator[str]:
    """Run a tracking server that serves its artifacts; gives the URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [python_with("mlflow"), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination", str(folder / "artifacts")]
    log = folder / "log"
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "DO_NOT_TRACK": "true"}
    # A session of its own, because the server starts others that do not end with it.
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*command, "--workers", "1", *stores], stdout=output, stderr=output, env=environment, start_new_session=True
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 180
            while not _answers(f"{url}/health"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise ClusterError(f"the MLflow server does not answer:\n{tail(log)}")
                time.sleep(0.2)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True
