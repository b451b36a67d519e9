"""Whatever is in a file, an inspection ends within its limits, with a verdict that has a reason."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio
from bombkit import bombs, calls
from feedkit import ModelFeed
from modelkit import CAPABILITIES, linear, reason
from seedkit import light, made
from wirekit import mutant

from onnx_operator.api.report import InspectionResult
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.reading.folder import MemoryFolder
from onnx_operator.model.verdict import verify

LIMITS = InspectionLimits(cpu_seconds=3, answer_seconds=10, memory_bytes=1 << 30)
ZYGOTE_BYTES = 64 << 20
"""What the process that forks may grow by, over all mutants."""
REASONS = {
    *("Corrupt", "TooLarge", "NotOnnx", "InvalidGraph", "UnsupportedOpset", "UnsupportedIRVersion"),
    *("UnknownOperator", "ExternalDataMissing", "SourceRefused"),
}
BOMBS = bombs()


@pytest_asyncio.fixture
async def parser() -> AsyncIterator[Parser]:
    async with Parser(LIMITS) as started:
        yield started


async def _verify(parser: Parser, content: bytes) -> InspectionResult:
    return await parser.verify(ModelFeed(content, 64), "m.onnx", size=len(content), capabilities=CAPABILITIES)


def _verdict(result: InspectionResult, what: str) -> str:
    """Accepted, or the reason; a verdict without one is none."""
    if result.outcome == "Accepted":
        assert result.report is not None, what
        return "Accepted"
    assert result.outcome == "Refused", what
    assert result.refusal is not None, what
    assert result.refusal.message, what
    assert result.refusal.reason in REASONS, f"{what}: {result.refusal}"
    return result.refusal.reason.value


def _resident(parser: Parser) -> int:
    assert parser.zygote.process is not None
    assert parser.zygote.process.poll() is None
    pages = Path(f"/proc/{parser.zygote.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


async def _mutants(parser: Parser, count: int, seed: int) -> Counter[str]:
    """Judge so many mutants of all seeds; the counts by verdict."""
    random, seeds = Random(seed), [*made(), *light()]
    await _verify(parser, seeds[0])  # the process has then read all that it is made of
    before, process = _resident(parser), parser.zygote.process
    verdicts: Counter[str] = Counter()
    faults: list[str] = []
    for index in range(count):
        content = mutant(random, seeds[index % len(seeds)])
        what = f"mutant {index} of seed {seed}"
        try:
            result = await _verify(parser, content)
        except Exception as error:
            faults.append(f"{what}: {str(error)[-300:]}")
            continue
        verdicts[_verdict(result, what)] += 1
        if result.refusal and ("crashed" in result.refusal.message or "processor time" in result.refusal.message):
            verdicts[f"{what}: {result.refusal.message[:60]}"] += 1
    assert not faults, f"{len(faults)} faults of ours:\n" + "\n".join(faults[:20])
    assert parser.zygote.process is process, "one process forked for all of them"
    assert _resident(parser) - before < ZYGOTE_BYTES
    return verdicts


@pytest.mark.parametrize("content", made(), ids=range(len(made())))
def test_what_mutants_are_made_of_is_accepted(content: bytes) -> None:
    folder = MemoryFolder({"m.onnx": content, "w.bin": bytes(64)})
    result = verify(folder, "m.onnx", capabilities=CAPABILITIES)
    assert result.outcome == "Accepted", result.refusal


async def test_mutants_get_a_verdict_with_a_reason(parser) -> None:
    verdicts = await _mutants(parser, 400, seed=4)
    assert verdicts["Corrupt"]
    assert verdicts["Accepted"]
    assert verdicts["InvalidGraph"]


@pytest.mark.soak
async def test_ten_thousand_mutants_get_a_verdict_with_a_reason(parser) -> None:
    verdicts = await _mutants(parser, 10_000, seed=2026)
    print("\n".join(f"{count:6} {name}" for name, count in verdicts.most_common()))
    assert sum(verdicts[each] for each in {*REASONS, "Accepted"}) == 10_000


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", BOMBS)
async def test_what_is_made_to_harm_ends_within_the_limits(shared_parser, name) -> None:
    _verdict(await _verify(shared_parser, BOMBS[name]), name)
    _resident(shared_parser)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_parser() -> AsyncIterator[Parser]:
    async with Parser(LIMITS) as started:
        yield started


@pytest.mark.parametrize(("depth", "width"), [(13, 9), (30, 2), (64, 2)])
def test_calls_that_multiply_are_too_large_without_being_followed(depth, width) -> None:
    # Not in a child with limits: this is to end by itself.
    assert reason(calls(depth, width)) == "TooLarge"


@pytest.mark.parametrize("version", [-1, -(1 << 31), -(1 << 63)])
def test_a_negative_opset_is_refused_as_such(version) -> None:
    negative = linear(4)
    negative.opset_import[0].version = version
    assert reason(negative) == "UnsupportedOpset"
