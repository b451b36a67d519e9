"""The process that holds ``score.py``: run by the host.

It answers one request at a time on the channel and ends when that closes. All that it imports before
the script is the standard library's: the script's requirements may hold other versions of everything else.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import importlib.util
import io
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from onnx_operator.server.script import frames
from onnx_operator.server.script.answers import NO_ANSWER, RUN_FAILED, ResultError, answer
from onnx_operator.server.script.calls import Caller, CallError, Request, analyse
from onnx_operator.server.script.swagger import describe

SHIM = Path(__file__).parent / "shim"
_PR_SET_PDEATHSIG = 1
_WORST_OOM_SCORE = "1000"


def main() -> None:
    """Import the script, call ``init()``, answer requests."""
    settings = json.loads(sys.argv[1])
    channel = os.fdopen(int(settings["channel"]), "r+b", buffering=0)
    os.set_inheritable(channel.fileno(), False)
    _restrain(settings.get("memoryBytes"), int(settings["parent"]))
    stream = _Stream(channel)
    try:
        caller, facts = _load(Path(settings["script"]), settings)
    except BaseException as error:
        frames.write(stream.out, {"kind": "failed", **explain(error, "init() ", settings["root"])})
        _end()
    frames.write(stream.out, {"kind": "ready", **facts})
    while (frame := frames.read(stream.into)) is not None:
        header, body = frame
        reply, content = _answer(caller, header, body, int(settings["maxOutputBytes"]), settings["root"])
        _flush()
        frames.write(stream.out, reply, content)
    _end()


class _Stream:
    """Buffered reading and writing of the one socket; a raw write may send a part only."""

    def __init__(self, channel: Any) -> None:
        self.into: BinaryIO = io.BufferedReader(channel, 1 << 16)
        self.out: BinaryIO = io.BufferedWriter(channel, 1 << 16)


def _restrain(memory_bytes: int | None, parent: int) -> None:
    faulthandler.enable()
    # A server that is killed takes its scripts along, also one that loops for ever.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    # When memory is short, the kernel ends the script and not the server.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_WORST_OOM_SCORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _load(script: Path, settings: dict[str, Any]) -> tuple[Caller, dict[str, Any]]:
    requirements = [settings["requirements"]] if settings.get("requirements") else []
    # Last, so that Azure's own packages win where the requirements bring them.
    sys.path[:] = [*settings["imports"], *requirements, *sys.path, str(SHIM)]
    sys.argv = [str(script)]
    os.chdir(settings["root"])
    module = _import(script)
    for name in ("init", "run"):
        if not callable(getattr(module, name, None)):
            raise AttributeError(f"{script.name} has no function {name}(); expected init() and run(raw_data)")
    # What Azure's tools generate wraps the user's file: its run() is the one with the decorators.
    driven = getattr(module, "driver_module", None)
    run = driven.run if isinstance(driven, ModuleType) and hasattr(driven, "run") else module.run
    caller = analyse(run)
    swagger = describe(
        [Path(settings["root"]), script.parent], run, settings["name"], settings["version"], caller.schema
    )
    started = time.perf_counter()
    module.init()
    return caller, {"swagger": swagger, "raw": caller.raw, "initSeconds": round(time.perf_counter() - started, 6)}


def _import(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Registered, so that pickles and dataclasses of the script find their module.
    sys.modules[script.stem] = module
    spec.loader.exec_module(module)
    return module


def _answer(
    caller: Caller, header: dict[str, Any], body: bytes, longest: int, root: str
) -> tuple[dict[str, Any], bytes]:
    pairs = tuple((str(name), str(value)) for name, value in header["headers"])
    started = time.perf_counter()
    try:
        given = answer(caller(Request(header["method"], header["target"], pairs, body)))
        if len(given.body) > longest:
            raise ResultError(f"run() returned {len(given.body)} bytes, at most {longest} are sent")
    except CallError as error:
        return {"kind": "refused", "status": error.status, "message": str(error), "azure": error.azure}, b""
    except ResultError as error:
        return {"kind": "error", "message": str(error), "traceback": "", "azure": NO_ANSWER}, b""
    except BaseException as error:
        # SystemExit as well: only the end of the process ends the script.
        return {"kind": "error", **explain(error, "run() ", root), "azure": RUN_FAILED}, b""
    seconds = time.perf_counter() - started
    return {"kind": "answer", "status": given.status, "headers": given.headers, "seconds": seconds}, given.body


def explain(error: BaseException, where: str, root: str) -> dict[str, Any]:
    """An exception for the caller (type and text) and for the log (traceback, the line in the script)."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = "an exception that cannot be shown"
    line, within = None, Path(root)
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).is_relative_to(within):
            line = f"{Path(frame.filename).relative_to(within)}, line {frame.lineno}"
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(within):
        line = f"{Path(error.filename).relative_to(within)}, line {error.lineno}"
    message = f"{name}: {text}" if text else name
    shown = "".join(traceback.format_exception(error, limit=-50))
    return {"where": where.strip(), "message": message[:8192], "line": line or "", "traceback": shown[-65536:]}


def _flush() -> None:
    # What the script printed is in the log before its answer is with the caller.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _end() -> None:
    """End without waiting for threads that the script left running."""
    finish = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    with contextlib.suppress(Exception):
        finish.start()
        finish.join(1)
    _flush()
    os._exit(0)


if __name__ == "__main__":
    main()
