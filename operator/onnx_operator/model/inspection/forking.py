"""The process that parsing children are forked from: it has imported what they need, and holds nothing else."""

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

from onnx_operator.model.inspection import landlock, zeros
from onnx_operator.model.inspection.faults import ParserError
from onnx_operator.model.limits import InspectionLimits

_LOG = logging.getLogger(__name__)


class Zygote:
    """That process, started when it is needed, and again where it has ended.

    ``signatures`` says that signatures will be verified: what this takes is then imported once, not by each child.
    """

    def __init__(self, limits: InspectionLimits, *, signatures: bool = False) -> None:
        self._limits = limits
        self._signatures = signatures
        self._control: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.zeros: Path | None = None
        """The folder with the file of zeros."""

    def start(self) -> None:
        """Start the process, where it does not run; it imports what it needs for about a second."""
        if self.process is not None and self.process.poll() is None:
            return
        _log_protection()
        self._close_control()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 - a fixed command of our own
                [
                    sys.executable,
                    "-m",
                    "onnx_operator.model.inspection.zygote",
                    str(theirs.fileno()),
                    self._folder_of_zeros(),
                    *(["signatures"] if self._signatures else []),
                ],
                pass_fds=[theirs.fileno()],
                env={
                    "PATH": "/usr/bin:/bin",
                    "LANG": "C.UTF-8",
                    "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                    # The runtime and numpy would start threads: the first to report its use, the others to calculate.
                    "ORT_DISABLE_TELEMETRY": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    "OMP_NUM_THREADS": "1",
                    # Where the C library finds locales, which are not everywhere in one place.
                    **{name: os.environ[name] for name in ("LOCPATH", "LOCALE_ARCHIVE") if name in os.environ},
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._control = ours

    async def aclose(self) -> None:
        """End the process and all its children."""
        self._close_control()
        process, self.process = self.process, None
        if process is not None:
            try:
                await asyncio.to_thread(process.wait, 5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.zeros is not None:
            shutil.rmtree(self.zeros, ignore_errors=True)
            self.zeros = None

    def _folder_of_zeros(self) -> str:
        if self.zeros is None:
            self.zeros = zeros.make(self._limits.max_model_bytes)
        return "" if self.zeros is None else str(self.zeros)

    def submit(self) -> socket.socket:
        """Have a child forked; returns the socket to it. Raises :class:`ParserError` where no job is taken."""
        ours, theirs = socket.socketpair()
        with theirs:
            for last in (False, True):
                self.start()
                assert self._control is not None
                try:
                    socket.send_fds(self._control, [b"j"], [theirs.fileno()])
                    break
                except OSError:
                    if last:
                        ours.close()
                        raise ParserError("the parsing process does not take jobs") from None
                    assert self.process is not None
                    self.process.kill()
                    self.process.wait()
        ours.setblocking(False)
        return ours

    def _close_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None


@cache
def _log_protection() -> None:
    """Once a process."""
    if known := landlock.version():
        _LOG.info("the parsing children are held by seccomp and by Landlock (version %d)", known)
    else:
        _LOG.info("this kernel or container has no Landlock: the parsing children are held by seccomp alone")
