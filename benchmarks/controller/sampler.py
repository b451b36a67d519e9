"""``python -m benchmarks.controller.sampler FILE MODULE ARGUMENT…``: run a module, and write where its time went.

A timer of processor time interrupts the process 200 times a second of it; the stack at that moment is what is counted.
SIGUSR1 begins anew.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType

_SECONDS = 0.005
_OWN = "/onnx_operator/"
_counts: Counter[tuple[CodeType, ...]] = Counter()


def _sample(_: int, frame: FrameType | None) -> None:
    stack = []
    while frame is not None:
        stack.append(frame.f_code)
        frame = frame.f_back
    _counts[tuple(stack)] += 1


def _forgotten(_: int, __: FrameType | None) -> None:
    _counts.clear()


def _written(path: Path) -> None:
    stacks = [[[[code.co_filename, code.co_qualname] for code in stack], count] for stack, count in _counts.items()]
    path.write_text(json.dumps(stacks))


@dataclass(frozen=True)
class Profile:
    """Shares of the processor time of a process."""

    seconds: float
    functions: Counter[str]
    """By function of the operator's, with all that it calls; recursion counts once."""
    libraries: Counter[str]
    """By whose code runs at that moment."""


def read(path: Path) -> Profile | None:
    """What a process wrote; None where it wrote nothing."""
    if not path.exists():
        return None
    functions: Counter[str] = Counter()
    libraries: Counter[str] = Counter()
    samples = 0
    for stack, count in json.loads(path.read_text()):
        samples += count
        own = {_function(file, name) for file, name in stack if _OWN in file}
        functions.update(dict.fromkeys(own, count))
        libraries[_library(stack[0][0])] += count
    return Profile(samples * _SECONDS, functions, libraries)


def _function(file: str, name: str) -> str:
    return f"{file.partition(_OWN)[2]} {name.replace('<locals>.', '')}"


def _library(file: str) -> str:
    if _OWN in file:
        room = file.partition(_OWN)[2].split("/")
        return "onnx_operator/" + "/".join(room[:2] if len(room) > 2 else room[:1])
    _, found, rest = file.partition("/site-packages/")
    if found:
        return rest.split("/")[0].removesuffix(".py")
    if file.startswith("<"):
        return "Python (imports, compiled templates)"
    return f"Python, {'/'.join(Path(file).parts[-2:]) if 'asyncio' in file or 'json' in file else Path(file).name}"


def main() -> None:
    """Run the module that the command line names."""
    output, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR1, _forgotten)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS, _SECONDS)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        _written(Path(output))


if __name__ == "__main__":
    main()
