"""Progress lines with times, and running commands whose failures explain themselves."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.errors import ClusterError


def say(text: str) -> None:
    """One line to stderr, which keeps stdout for results."""
    print(text, file=sys.stderr, flush=True)


_FIRST_SIGN_SECONDS = 3.0
_SIGN_SECONDS = 30.0


@contextmanager
def _signs_of_life(name: str, started: float) -> Iterator[None]:
    """Say what takes long while it does: once soon, then now and again."""
    over = threading.Event()

    def tell() -> None:
        pause = _FIRST_SIGN_SECONDS
        while not over.wait(pause):
            say(f"  {time.monotonic() - started:6.1f} s  {name} …")
            pause = _SIGN_SECONDS

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


@contextmanager
def step(name: str, quiet_below: float = 0.0) -> Iterator[None]:
    """Name a step and say how long it took; steps faster than `quiet_below` seconds say nothing."""
    started = time.monotonic()
    try:
        with _signs_of_life(name, started):
            yield
    except BaseException:
        say(f"  {time.monotonic() - started:6.1f} s  {name}: FAILED")
        raise
    took = time.monotonic() - started
    if took >= quiet_below:
        say(f"  {took:6.1f} s  {name}")


def run(
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    input: str | None = None,  # noqa: A002 - as in the standard library
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command; when it fails, raise with the command and the end of what it printed."""
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(
            command,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=cwd,
            env={**os.environ, **env} if env else None,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"cannot run {command[0]}: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"still running after {timeout} s: {' '.join(command)}") from error
    if check and done.returncode != 0:
        said = "\n".join((done.stdout + "\n" + done.stderr).strip().splitlines()[-25:])
        raise ClusterError(f"exit status {done.returncode} from: {' '.join(command)}\n{said}")
    return done


@contextmanager
def locked(path: Path, waiting_for: str) -> Iterator[None]:
    """Hold an exclusive lock on a file; the kernel lets go of it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for {waiting_for} ({path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
