"""Whoever takes over the child that parses a model reaches nothing and nobody."""

import asyncio
import errno
import json
import os
import platform
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from onnx import TensorProto, helper

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.report import InspectionResult
from onnx_operator.model.inspection import bpf, landlock, messages, profiles
from onnx_operator.model.inspection.faults import ForbiddenCallError, ParserError
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits
from tests.security import intruder
from tests.security.calls import CALLS
from tests.security.fuzzing import Fuzz, mutated

pytestmark = pytest.mark.asyncio(loop_scope="module")
ARM = platform.machine() == "aarch64"
CAPABILITIES = load_capabilities()
LIMITS = InspectionLimits(answer_seconds=60, cpu_seconds=10)
TARGET = b"what an intruder would like to change"
NUMBERS = range(500)
"""Of system calls: those of today's kernels, and some to come."""
UNFILTERED = set() if ARM else {335, 336}
"""uretprobe and uprobe: newer kernels let them pass by every filter, and refuse them where they set no probe."""


def made() -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", 4)) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "good", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


GOOD = made()


class Files:
    """One model under every name; a size that is asked for by ``waiting`` never comes."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def size(self, name: str) -> int | None:
        if name == "waiting":
            self.asked.set()
            await asyncio.Event().wait()
        return len(GOOD)

    async def read(self, name: str, begin: int, end: int) -> bytes:
        return GOOD[begin:end]

    def expect(self, name: str, begin: int, end: int) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("site")
    intruder.site(folder)
    (folder / "target").write_bytes(TARGET)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parser(site: Path) -> AsyncIterator[Parser]:
    async with Parser(LIMITS) as started:
        assert (await verify(started)).outcome == "Accepted"
        yield started


async def verify(parser: Parser, name: str = "m.onnx", files: Files | None = None) -> InspectionResult:
    return await parser.verify(files or Files(), name, size=len(GOOD), capabilities=CAPABILITIES)


async def run(parser: Parser, code: str) -> Any:
    """What the code left in ``answer``."""
    result = await verify(parser, intruder.NAME + code)
    assert result.refusal is not None
    return json.loads(result.refusal.message)


async def attempt(parser: Parser, number: int, arguments: tuple[int | str, ...]) -> Any:
    result = await verify(parser, intruder.call(number, arguments))
    assert result.refusal is not None
    return json.loads(result.refusal.message)


def state(site: Path, pid: int) -> tuple[object, ...]:
    """What an intruder could have changed of the file and of the process that forks."""
    status = (site / "target").stat()
    return (
        (site / "target").read_bytes(),
        (status.st_mode, status.st_uid, status.st_mtime_ns, status.st_nlink),
        sorted(each.name for each in site.iterdir() if each.name != "__pycache__"),
        os.sched_getaffinity(pid),
        os.sched_getscheduler(pid),
        os.getpriority(os.PRIO_PROCESS, pid),
        Path(f"/proc/{pid}/limits").read_text(),
    )


def numbered() -> Iterator[Any]:
    for name, x86_64, aarch64, arguments in CALLS:
        number = aarch64 if ARM else x86_64
        if number is not None:
            yield pytest.param(number, arguments, id=" ".join(map(str, (name, *arguments))))


@pytest.mark.parametrize(("number", "arguments"), list(numbered()))
async def test_no_call_that_reaches_out_is_made(parser, site, number, arguments) -> None:
    assert parser.zygote.process is not None
    before = state(site, parser.zygote.process.pid)
    with pytest.raises(ForbiddenCallError, match=f"system call {number} ") as caught:
        await attempt(parser, number, arguments)
    assert caught.value.number == number
    assert state(site, parser.zygote.process.pid) == before
    assert parser.zygote.process.poll() is None


async def test_of_all_numbers_only_those_of_the_list_are_calls(parser) -> None:
    allowed = {call.number(platform.machine()) for call in profiles.judging(1)}
    for number in set(NUMBERS) - allowed - UNFILTERED:
        with pytest.raises(ForbiddenCallError) as caught:
            await attempt(parser, number, ())
        assert caught.value.number == number


async def test_calls_of_the_other_interfaces_of_the_processor_are_none(parser) -> None:
    for call in profiles.parsing(1):
        x32 = 0x40000000 + call.x86_64
        with pytest.raises(ForbiddenCallError, match=f"system call {x32} "):
            await attempt(parser, x32, (3,))
    if not ARM:
        with pytest.raises(ForbiddenCallError) as caught:
            await run(parser, "answer = old_call()")
        assert caught.value.number is None


async def test_a_call_that_is_not_allowed_is_our_fault_and_counted(parser, caplog) -> None:
    before = parser.forbidden_calls
    with pytest.raises(ParserError) as caught:
        await run(parser, "os.getppid()")
    assert "Nothing is known about the model" in str(caught.value)
    assert parser.forbidden_calls == before + 1
    (record,) = [each for each in caplog.records if getattr(each, "event", "") == "forbiddenCall"]
    assert record.count == parser.forbidden_calls
    assert (await verify(parser)).outcome == "Accepted"


async def test_a_module_that_is_imported_late_is_named(parser) -> None:
    with pytest.raises(ParserError, match="the module this would be imported in a child"):
        await run(parser, "import this")


async def test_tracebacks_show_without_reading_source(parser) -> None:
    with pytest.raises(ParserError, match="ZeroDivisionError"):
        await run(parser, "import json; json.loads(b'[1]', object_hook=1, parse_int=lambda _: 1 // 0)")
    assert await run(parser, "import warnings; warnings.simplefilter('always'); warnings.warn('x'); answer = 1") == 1


async def test_an_abort_is_a_crash_and_no_forbidden_call(parser) -> None:
    result = await verify(parser, intruder.NAME + "os.abort()")
    assert result.refusal is not None
    assert result.refusal.reason == "Corrupt"
    assert "SIGABRT" in result.refusal.message


@pytest.mark.parametrize("way", ["handler", "blocked"])
async def test_the_signal_of_a_forbidden_call_cannot_be_escaped(parser, way) -> None:
    """Without the handler's stack, and with the signal blocked: nothing that runs afterwards is heard of."""
    prepare = {
        "blocked": "libc.sigprocmask(0, ctypes.byref((ctypes.c_uint64 * 16)(1 << 30)), None)",
        "handler": "libc.munmap(ctypes.c_void_p(words['PAGE']), ctypes.c_size_t(4096))",
    }[way]
    with pytest.raises(ForbiddenCallError):
        await run(parser, f"{prepare}; os.getppid(); answer = 'alive'")


async def test_a_child_has_its_pipe_and_nothing_else(parser) -> None:
    """Seen from outside, while several wait: no descriptor or page of the process that forks, or of another child."""
    several = [Files() for _ in range(4)]
    tasks = [asyncio.create_task(verify(parser, "waiting", files)) for files in several]
    await asyncio.gather(*(files.asked.wait() for files in several))
    assert parser.zygote.process is not None
    zygote = parser.zygote.process.pid
    children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
    assert len(children) == 4
    for child in children:
        descriptors = {each.name: str(each.readlink()) for each in Path(f"/proc/{child}/fd").iterdir()}
        assert descriptors.pop("3").startswith("socket:")
        assert descriptors == {"0": "/dev/null", "1": "/dev/null", "2": "/dev/null"}
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines())
        assert (status["Seccomp"], status["NoNewPrivs"], status["Threads"]) == ("2", "1", "1")
        shared = [line for line in Path(f"/proc/{child}/maps").read_text().splitlines() if line.split()[1][3] == "s"]
        assert [line.split()[1] for line in shared if "/dev/zero" in line and "x" not in line.split()[1]] == ["rw-s"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_limit_of_memory_cannot_be_raised_even_by_root(parser) -> None:
    code = """
import resource
answer, (_, hard) = [], resource.getrlimit(resource.RLIMIT_AS)
for limits in ((hard, hard), (hard, hard + 1), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)):
    try:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        answer.append("raised")
    except ValueError:
        answer.append("refused")
"""
    assert await run(parser, code) == ["raised", "refused", "refused"]


async def test_of_files_the_zeros_alone_can_be_opened_and_nothing_changed(parser, site) -> None:
    assert parser.zygote.zeros is not None
    zeros = str(parser.zygote.zeros / "zeros")
    code = f"""
def tried(path, flags=0):
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except PermissionError:
        return "refused"
def plainly(path):
    return [libc.open(path, 0), ctypes.get_errno()]
target = {str(site / "target")!r}
answer = [plainly(target.encode()), tried({zeros!r}), tried(target), tried("/etc/passwd"), tried("/proc/self/environ"),
          tried({str(parser.zygote.zeros)!r}), tried("/")]
"""
    if landlock.version():
        assert await run(parser, code) == [[-1, errno.EACCES], 4, *["refused"] * 5]
    for flags in ("os.O_RDWR", "os.O_WRONLY", "os.O_CREAT", "os.O_TRUNC", "os.O_APPEND", "os.O_PATH", "os.O_DIRECTORY"):
        with pytest.raises(ForbiddenCallError):
            await run(parser, f"os.open({zeros!r}, {flags} | os.O_CLOEXEC)")
    for code in ("{0}; mmap.mmap(4, 4096)", "{0}; mmap.mmap(4, 4096, mmap.MAP_PRIVATE, mmap.PROT_EXEC)"):
        with pytest.raises(ForbiddenCallError):
            await run(parser, "import mmap; " + code.format(f"os.open({zeros!r}, os.O_CLOEXEC)"))


async def test_memory_that_is_said_to_map_the_zeros_is_watched(parser) -> None:
    """The address space is wide enough for all of a large model's weights; memory of its own is not for the taking."""
    code = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
kept = [bytearray(b"x") * (64 << 20) for _ in range(100)]
answer = "had it all"
"""
    result = await verify(parser, intruder.NAME + code)
    assert result.refusal is not None
    assert result.refusal.reason == "TooLarge"
    assert (await verify(parser)).outcome == "Accepted"


@pytest.mark.parametrize(("end", "signal"), [("os.abort()", "SIGABRT"), ("libc.strlen(None)", "SIGSEGV")])
async def test_a_crash_of_the_runtime_is_a_refusal_that_says_so(parser, end, signal) -> None:
    result = await verify(parser, f"{intruder.NAME}folder.trying(True); {end}")
    assert result.refusal is not None
    assert result.refusal.reason == "InvalidGraph"
    assert f"ONNX Runtime itself crashes ({signal})" in result.refusal.message


FULL = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
kept = [bytearray(b"x") * (64 << 20) for _ in range(15)]
folder.trying(True)
os.abort()
"""


HOLE = """
folder.trying(True)
libc.mmap.restype = ctypes.c_void_p
at = libc.mmap(None, ctypes.c_size_t(4096), 1, 2, os.open({zeros!r}, os.O_CLOEXEC), ctypes.c_long({end}))
ctypes.string_at(at, 1)
"""


@pytest.mark.parametrize("code", [HOLE, FULL], ids=["a page that cannot be had", "no more memory"])
async def test_an_end_for_lack_of_memory_is_no_crash_of_the_runtime(parser, code) -> None:
    if code == HOLE and not landlock.version():
        pytest.skip("no file can be opened")
    code = code.replace("{zeros!r}", repr(str(parser.zygote.zeros / "zeros"))).replace(
        "{end}", str(LIMITS.max_model_bytes)
    )
    before = parser.exceeded_limits
    with pytest.raises(ParserError, match=r"1024 MiB of memory .* Nothing is known about the model"):
        await verify(parser, intruder.NAME + code)
    assert parser.exceeded_limits == before + 1


async def test_a_limit_that_the_runtime_meets_is_our_fault_and_counted(site, caplog) -> None:
    async with Parser(InspectionLimits(cpu_seconds=1, load_seconds=1)) as parser:
        with pytest.raises(ParserError, match="a limit of the inspection"):
            await verify(parser, f"{intruder.NAME}folder.trying(True)\nwhile True: pass")
        assert parser.exceeded_limits == 1
        assert (await verify(parser)).outcome == "Accepted"
    assert [each.count for each in caplog.records if getattr(each, "event", "") == "exceededLimit"] == [1]


async def test_the_file_of_zeros_takes_no_room_and_goes_with_the_parser(site) -> None:
    async with Parser(LIMITS) as parser:
        assert parser.zygote.zeros is not None
        (file,) = parser.zygote.zeros.iterdir()
        assert file.stat().st_size == LIMITS.max_model_bytes
        await verify(parser)
        assert file.stat().st_blocks == 0
        folder = parser.zygote.zeros
    assert not folder.exists()


LONE = """
import ctypes, os
from onnx_operator.model.inspection import landlock
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
found = landlock.restrict()
for attempt in (
    lambda: os.open("/etc/passwd", os.O_RDONLY),
    lambda: os.listdir("/tmp"),
    lambda: os.open("/tmp/landlocked", os.O_CREAT | os.O_WRONLY),
    lambda: os.kill(os.getppid(), 0),
):
    try:
        attempt()
        print("done")
    except PermissionError:
        print("refused")
"""


async def test_where_the_kernel_has_landlock_it_holds_without_the_filter() -> None:
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", LONE], capture_output=True, text=True, check=True
    )
    has, signals = landlock.version() > 0, landlock.version() >= 6
    words = {True: "refused", False: "done"}
    assert done.stdout.split() == [words[has]] * 3 + [words[signals]]
    Path("/tmp/landlocked").unlink(missing_ok=True)


async def test_a_machine_without_a_table_parses_nothing() -> None:
    with pytest.raises(OSError, match="riscv64"):
        bpf.program(profiles.parsing(1), "riscv64")


TALK = {
    "no JSON": b"nonsense\n",
    "no object": b"[1]\n",
    "no text": b"\xff\xfe\n",
    "deep": b"[" * 100_000 + b"\n",
    "deep object": b'{"a":' * 100_000 + b"\n",
    "long number": b'{"size": ' + b"9" * 100_000 + b"}\n",
    "flood": b"x" * (17 << 20),
    "many small values": b'{"outcome": [' + b"{}," * 1_000_000 + b"0]}\n",
    "a size of nothing": b'{"size": null}\n',
    "a name that is none": b'{"size": "\\ud800"}\n',
    "a range of words": b'{"read": ["m.onnx", "a", "b"]}\n',
    "a range without an end": b'{"read": ["m.onnx", 1]}\n',
    "a range from behind": b'{"read": ["m.onnx", 9, 3]}\n',
    "a range beyond all": b'{"read": ["m.onnx", 0, 99999999999]}\n',
    "an infinite range": b'{"read": ["m.onnx", 0, Infinity]}\n',
    "an end of words": b'{"status": "well"}\n',
    "an end of another kind": b'{"status": {"a": 1}}\n',
    "an end beyond all": b'{"status": 99999999999999999999}\n',
    "a refusal alone": b'{"refusal": {"reason": "Corrupt", "message": "m"}}\n',
    "a verdict of nothing": b'{"outcome": null}\n',
    "a verdict with another report": b'{"outcome": "Accepted", "report": {"inputs": 5}}\n',
    "a verdict with a list": b'{"outcome": "Accepted", "files": [1]}\n',
    "something else": b'{"manifest": 5}\n',
    "an error": b'{"error": {"a": [1]}}\n',
}


@pytest.mark.parametrize("said", TALK)
async def test_whatever_a_child_says_is_a_verdict_or_our_fault(parser, said) -> None:
    code = f"data = {TALK[said]!r}" if len(TALK[said]) < 1000 else _long(said)
    with pytest.raises(ParserError) as caught:
        await verify(parser, f"{intruder.NAME}{code}\nwhile data: data = data[os.write(3, data):]\nos._exit(0)")
    assert len(str(caught.value)) < 1000
    assert (await verify(parser)).outcome == "Accepted"


def _long(said: str) -> str:
    """The same, in few words."""
    return {
        "deep": "data = b'[' * 100_000 + b'\\n'",
        "deep object": "data = b'{\"a\":' * 100_000 + b'\\n'",
        "long number": "data = b'{\"size\": ' + b'9' * 100_000 + b'}\\n'",
        "flood": "data = b'x' * (17 << 20)",
        "many small values": "data = b'{\"outcome\": [' + b'{},' * 1_000_000 + b'0]}\\n'",
    }[said]


async def test_a_child_that_says_nothing_is_ended_in_its_time(site) -> None:
    async with Parser(InspectionLimits(answer_seconds=1, cpu_seconds=5)) as parser:
        await verify(parser)
        for code in ("os.read(3, 1)", "while True: pass"):
            result = await verify(parser, f"{intruder.NAME}folder.size('m.onnx')\n{code}")
            assert result.refusal is not None
            assert result.refusal.reason == "TooLarge"
        assert (await verify(parser)).outcome == "Accepted"


async def test_a_child_that_goes_without_a_word_is_no_verdict_on_the_model(parser) -> None:
    for code in (0, 1, 7):
        with pytest.raises(ParserError, match="without a word"):
            await run(parser, f"os._exit({code})")


async def test_a_forged_end_is_believed_by_nobody_but_the_intruders_own_model(parser) -> None:
    with pytest.raises(ForbiddenCallError):
        await run(parser, """os.write(3, b'{"status": 31, "forbidden": 7}\\n'); os.read(3, 1)""")
    assert (await verify(parser)).outcome == "Accepted"


WORDS = [
    b'{"size": "weights/w.bin"}\n',
    b'{"read": ["m.onnx", 0, 4096]}\n',
    b'{"expect": ["m.onnx", 4096, 65536]}\n',
    b'{"turn": true}\n',
    b'{"status": 0}\n',
    b'{"status": 7936, "forbidden": 41}\n',
    b'{"error": "Traceback"}\n',
    b'{"memory": true}\n',
    b'{"outcome":"Refused","refusal":{"reason":"Corrupt","message":"m","retriable":false}}\n',
]


@pytest.mark.fuzz
async def test_any_bytes_are_a_message_of_a_known_shape_or_none(fuzz: Fuzz) -> None:
    for rng in fuzz(3000):
        line = mutated(rng, rng.choice(WORDS))
        try:
            message = messages.read_message(line)
        except messages.ConversationError:
            continue
        if isinstance(message, messages.Question):
            message.name.encode()
            assert type(message.begin) is type(message.end) is int
            assert message.asks not in ("read", "expect") or message.begin < message.end
        elif isinstance(message, messages.End):
            assert type(message.status) is int
        else:
            assert not message.keys() & {"size", "read", "expect", "turn", "trying", "status"}


@pytest.mark.fuzz
async def test_a_child_that_babbles_gets_a_verdict_or_is_our_fault(parser, fuzz: Fuzz) -> None:
    for rng in fuzz(150):
        said = b"".join(mutated(rng, rng.choice(WORDS)) for _ in range(rng.randint(1, 3)))
        try:
            result = await verify(parser, f"{intruder.NAME}os.write(3, {said!r})\nos._exit({rng.choice([0, 1, 31])})")
        except ParserError:
            continue
        assert result.outcome == "Refused"
    assert (await verify(parser)).outcome == "Accepted"
