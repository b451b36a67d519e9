"""Reading what a build of ONNX Runtime computes from its wheel, without the device that it is built for."""

import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from onnx_operator.api.capabilities import KernelTable

ROOT = Path(__file__).parents[2]
_SYSTEM = re.compile(r"^(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|ld-linux-[\w-]+)\.so")
_LIST = (
    "import json, sys; from onnx_operator.server.runtime.kernels import list_kernels;"
    " print(json.dumps({name: list_kernels(name).model_dump(by_alias=True) for name in sys.argv[1:]}))"
)
_ADDRESS = re.compile(rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d](?=(....))", re.DOTALL)
"""An x86-64 instruction that takes the address of something at a distance from itself (LEA)."""
_NAME = re.compile(rb"[A-Za-z]\w{1,60}(?=\0)")
_EXECUTABLE = 1
_MIN_LIST_LENGTH = 30
_DEVICES = {"All", "CPU", "GPU", "NPU"}


def version(wheel: Path) -> str:
    """The version in a wheel's name."""
    return wheel.name.split("-")[1]


def kernels(wheel: Path, providers: list[str], workdir: Path) -> dict[str, KernelTable]:
    """List the kernels that a wheel has for ``providers``, such as ``CUDAExecutionProvider``.

    The libraries of the device are replaced by empty ones, which is enough for a provider to register its kernels:
    needs ``gcc`` and ``binutils``. Raises CalledProcessError where the build does not load so.
    """
    site, stubs = workdir / "site", workdir / "stubs"
    stubs.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    wanted: dict[str, dict[str, set[str]]] = {}
    for library in sorted(site.glob("onnxruntime/capi/libonnxruntime_providers_*.so")):
        _collect(library, wanted)
    for library_name, symbols in wanted.items():
        _stub(stubs, library_name, symbols)
    path = os.pathsep.join([str(site), str(ROOT / "operator")])
    environment = os.environ | {"PYTHONPATH": path, "LD_LIBRARY_PATH": str(stubs)}
    run = subprocess.run(
        [sys.executable, "-c", _LIST, *providers], env=environment, check=True, capture_output=True, text=True
    )
    return {name: KernelTable.model_validate(table) for name, table in json.loads(run.stdout).items()}


def _collect(library: Path, wanted: dict[str, dict[str, set[str]]]) -> None:
    """Note, by library and version, the symbols of the device's libraries that ``library`` needs."""
    needed = [n for n in re.findall(r"NEEDED.*\[(.*)\]", _output("readelf", "-dW", library)) if not _SYSTEM.match(n)]
    origin: dict[str, str] = {}
    file = ""
    for line in _output("readelf", "-VW", library).splitlines():
        if found := re.search(r"File: (\S+)", line):
            file = found[1]
        elif found := re.search(r"Name: (\S+)", line):
            origin[found[1]] = file
    for name in needed:
        wanted.setdefault(name, {})
    for line in _output("nm", "-D", "--undefined-only", "--with-symbol-versions", library).splitlines():
        kind, symbol = line.split()[-2:]
        name, _, version_name = symbol.replace("@@", "@").partition("@")
        home = origin.get(version_name, needed[0] if needed else "")
        if kind == "U" and needed and name != "Provider_GetHost" and not _SYSTEM.match(home):
            wanted.setdefault(home, {}).setdefault(version_name, set()).add(name)


def _output(tool: str, *arguments: str | Path) -> str:
    return subprocess.run([tool, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def _stub(folder: Path, name: str, symbols: dict[str, set[str]]) -> None:
    source, versions = folder / f"{name}.c", folder / f"{name}.map"
    every = sorted({symbol for group in symbols.values() for symbol in group})
    source.write_text("".join(f"long {symbol}() {{ return 0; }}\n" for symbol in every))
    command = ["gcc", "-w", "-fno-builtin", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source]
    script = "".join(
        f"{version_name} {{ global: {' '.join(f'{symbol};' for symbol in sorted(group))} }};\n"
        for version_name, group in symbols.items()
        if version_name
    )
    if script:
        versions.write_text(script)
        command.append(f"-Wl,--version-script={versions}")
    subprocess.run(command, check=True, capture_output=True)


def operator_lists(wheel: Path, library: str, *ends: tuple[str, str]) -> list[list[str]]:
    """Lists of operators in the code of a wheel's ``library``, in its order, by the first and last name of each.

    A provider that takes whole graphs has such lists and no kernels. Raises ValueError where one is not found.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = list(_names(archive.read(f"onnxruntime/capi/{library}")))
    lists, start = [], 0
    for first, last in ends:
        run = next(_runs(names, start, first, last), None)
        if run is None:
            raise ValueError(
                f"{wheel.name}: {library} holds no list of operators from {first} to {last}; this release may ask its"
                " device instead"
            )
        start = run.stop
        lists.append(sorted(set(names[run.start : run.stop]) - _DEVICES))
    return lists


def _runs(names: list[str], start: int, first: str, last: str) -> Iterator[range]:
    for begin in range(start, len(names)):
        if names[begin] != first:
            continue
        end = next((i for i in range(begin, len(names)) if names[i] == last or not names[i][0].isupper()), None)
        if end is not None and names[end] == last and end - begin >= _MIN_LIST_LENGTH:
            yield range(begin, end + 1)


def _names(data: bytes) -> Iterator[str]:
    """The texts whose addresses the code of an ELF file takes, in the order of the code."""
    table, size, count = (*struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54))
    headers = [struct.unpack_from("<IIQQQQ", data, table + index * size) for index in range(count)]
    segments = [(flags, offset, address, length) for kind, flags, offset, address, _, length in headers if kind == 1]
    for flags, offset, address, length in segments:
        if not flags & _EXECUTABLE:
            continue
        for found in _ADDRESS.finditer(data, offset, offset + length):
            (distance,) = struct.unpack("<i", found[1])
            target = address + found.start() - offset + 7 + distance
            for other_flags, other_offset, other_address, other_length in segments:
                if not other_flags & _EXECUTABLE and other_address <= target < other_address + other_length:
                    text = _NAME.match(data, other_offset + target - other_address)
                    if text:
                        yield text[0].decode()
