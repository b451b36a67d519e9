"""No text of strangers keeps a pattern busy: looking through it takes time in proportion to its length, no more."""

import importlib
import inspect
import itertools
import os
import pkgutil
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import onnx_operator.api
import onnx_operator.controller
import onnx_operator.model
import onnx_operator.server

HANG_SECONDS = 300.0
LENGTH = 10_000
GUARD_SECONDS = 1.0
"""Of processor time for one text: linear work takes milliseconds, work in proportion to the square much more."""
TRUSTED = {
    # Keys that the platform team writes into the settings.
    "onnx_operator.model.signatures.signers._PEM_KEY",
}
"""Patterns for texts that are not of strangers."""
PUMPED = """
/ a A 0 . - _ , : ; = ( ) [ ] { } < > " ' # * & | ! ~ @ + % $ \\ a. a- a_ a/ a, a= a: a; 0. a.h:1 /a.h:1 a( a() a[ x:1
"data" #a http:// // -- ... <!-- --> (i cc \x1b[ \x1b[0; \x80\x02
"""
BLANKS = [" ", "\n", "\t", "\0", "a ", "a\n", "#\n", "/ ", "a\t", " \n", '"data" ', "\r\n"]
MODULES = (onnx_operator.api, onnx_operator.controller, onnx_operator.model, onnx_operator.server)


def modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def patterns() -> dict[str, tuple[re.Pattern, bool]]:
    """All patterns that modules keep, by their full names, and whether they are looked for anywhere in a text."""
    found: dict[str, tuple[re.Pattern, bool]] = {}
    for package in MODULES:
        for module in modules(package):
            source = inspect.getsource(module)
            for name, value in vars(module).items():
                searched = re.search(rf"\b{name}\.(?:search|sub|findall|finditer|split)\(", source) is not None
                for each in value if isinstance(value, tuple) else (value,):
                    part = each[0] if isinstance(each, tuple) and each else each
                    if isinstance(part, re.Pattern):
                        found[f"{module.__name__}.{name}{'' if part is value else part.pattern!r}"] = part, searched
    return found


def begins(pattern: str) -> set[str]:
    """What a text may begin with to get into the middle of the pattern: nothing, or its literal beginning."""
    escape_dollars = re.match(r"(?:\\?[\w \-/:<{\"#.]){0,40}", pattern)
    return {"", re.sub(r"\\(.)", r"\1", escape_dollars[0]) if escape_dollars else ""}


def look_through_all() -> None:
    signal.signal(signal.SIGPROF, signal.default_int_handler)
    for name, (pattern, searched) in patterns().items():
        if name in TRUSTED:
            continue
        print(name, flush=True)
        binary = isinstance(pattern.pattern, bytes)
        begin = begins(pattern.pattern.decode("latin-1") if binary else pattern.pattern)
        units = [opening + unit for unit in [*PUMPED.split(), *BLANKS] for opening in begin]
        for unit, opening in itertools.product(dict.fromkeys(filter(None, units)), begin):
            text = opening + unit * (LENGTH // len(unit)) + "\x7f"
            given = text.encode("latin-1") if binary else text
            signal.setitimer(signal.ITIMER_PROF, GUARD_SECONDS)
            if searched:
                pattern.search(given)
            pattern.match(given)
            pattern.fullmatch(given)
    signal.setitimer(signal.ITIMER_PROF, 0)


def test_no_pattern_takes_more_than_linear_time() -> None:
    code = "from tests.security.test_patterns import look_through_all; look_through_all()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1:]}: {done.stderr[-2000:]}"
    assert "onnx_operator.server.runtime.session._SOURCE_PLACE" in done.stdout
    assert len(done.stdout.splitlines()) > 30
