"""Judging untrusted models in children that can crash, hang or swell without harm."""

from typing import Any, Self, TypeVar

from pydantic import BaseModel, ValidationError

from onnx_operator.api.report import Capabilities, InspectionResult, Refusal
from onnx_operator.api.signatures import SignatureSettings, SignedManifest
from onnx_operator.common.closing import Closing
from onnx_operator.model.inspection.channel import Channel
from onnx_operator.model.inspection.dialogue import Dialogue, Feed
from onnx_operator.model.inspection.endings import MAX_MESSAGE_LENGTH, Endings
from onnx_operator.model.inspection.fair import FairPlaces
from onnx_operator.model.inspection.faults import ForbiddenCallError, ParserError
from onnx_operator.model.inspection.forking import Zygote
from onnx_operator.model.inspection.stopwatch import Stopwatch
from onnx_operator.model.inspection.turn import Turn
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.signatures.signers import SignatureError

_UNPACKED_PER_CPU_SECOND = 50 << 20
"""Archives are unpacked at least this fast."""
_M = TypeVar("_M", bound=BaseModel)


class Parser(Closing):
    """Judges models, each in a child of a process that was started for this. Use it as ``async with``.

    ``signatures`` says that signatures will be verified: what this takes is then imported once, not by each child.
    """

    def __init__(self, limits: InspectionLimits, *, signatures: bool = False) -> None:
        self._limits = limits
        # A tenant whose models are heavy leaves others a place that they get at once.
        self.places = FairPlaces(limits.parsers, max(1, limits.parsers - 1))
        """For children that check."""
        self.readers = FairPlaces(limits.readers, max(1, limits.readers // 2))
        """For children that were given much, and check nothing yet."""
        self.zygote = Zygote(limits, signatures=signatures)
        self._endings = Endings(limits)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Start the process that children are forked from ahead of the first model."""
        self.zygote.start()

    async def aclose(self) -> None:
        """End that process and all its children."""
        await self.zygote.aclose()

    @property
    def forbidden_calls(self) -> int:
        """Children that were ended because of a system call, so far."""
        return self._endings.forbidden_calls

    @property
    def exceeded_limits(self) -> int:
        """Children that were ended because the runtime took more than they may, so far."""
        return self._endings.exceeded_limits

    async def verify(
        self,
        feed: Feed,
        name: str,
        *,
        size: int | None,
        capabilities: Capabilities,
        tenant: str = "",
        stopwatch: Stopwatch | None = None,
    ) -> InspectionResult:
        """Judge the model in the file ``name``; a cancelled call kills its child.

        Args:
            feed: what the child reads from.
            name: the model's file.
            size: its bytes, where known.
            capabilities: of the runtime that will serve it.
            tenant: whose it is: places are shared among tenants.
            stopwatch: stands still while others have the places.

        Raises:
            ParserError: a fault of ours, or of a child that does what no child of ours does.
            SourceError: and whatever else ``feed`` raises.
        """
        job = {
            "judge": name,
            "capabilities": capabilities.model_dump(mode="json", by_alias=True),
            "archives": {"unpacked_bytes": self._limits.max_model_bytes},
            "maxNodes": self._limits.max_nodes,
        }
        extra_seconds = 4 * (size or 0) // _UNPACKED_PER_CPU_SECOND
        turn = Turn(self.places, self.readers, tenant, stopwatch or Stopwatch())
        answer = await self._run(job, b"", feed, turn, extra_seconds, size)
        if "outcome" in answer:
            return _parsed(InspectionResult, answer, "result")
        if isinstance(refusal := answer.get("refusal"), Refusal):
            return InspectionResult(outcome="Refused", refusal=refusal)
        raise ParserError(f"the parsing child answered {answer!r:.200}")

    async def verify_signature(
        self,
        signature: bytes,
        settings: SignatureSettings,
        *,
        tenant: str = "",
        stopwatch: Stopwatch | None = None,
    ) -> SignedManifest:
        """Verify a signature file in a child of its own, which sees no byte of the model.

        Raises :class:`SignatureError`, :class:`ParserError`.
        """
        job = {"signature": len(signature), "settings": settings.model_dump(mode="json", by_alias=True)}
        turn = Turn(self.places, self.readers, tenant, stopwatch or Stopwatch())
        answer = await self._run(job, signature, None, turn, 0, len(signature))
        if "manifest" in answer:
            return _parsed(SignedManifest, answer["manifest"], "manifest")
        if isinstance(refusal := answer.get("refusal"), Refusal):
            raise SignatureError(refusal.message)
        if isinstance(why := answer.get("invalid"), str):
            raise SignatureError(why[:MAX_MESSAGE_LENGTH])
        raise ParserError(f"the parsing child answered {answer!r:.200}")

    async def _run(
        self, job: dict[str, Any], content: bytes, feed: Feed | None, turn: Turn, extra_seconds: int, size: int | None
    ) -> dict[str, Any]:
        limits = self._limits
        job |= {
            "cpuSeconds": limits.cpu_seconds + limits.load_seconds + extra_seconds,
            "memoryBytes": limits.memory_bytes,
            "parsers": limits.parsers,
        }
        try:
            if feed is None:
                # Such a child asks nothing, and takes its memory at once.
                await turn.take()
            with Channel(self.zygote.submit()) as child:
                talk = Dialogue(child, feed, turn, size, limits.answer_seconds + extra_seconds)
                ending = await talk.hold(job, content)
        except ForbiddenCallError as error:
            self._endings.count_forbidden(error)
            raise
        finally:
            turn.give_back()
        return self._endings.answer(ending)


def _parsed(kind: type[_M], value: object, name: str) -> _M:
    """What a child said, as a typed value. Raises :class:`ParserError` for what is none."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        # Without what was said: it may be of any length.
        found = error.errors(include_input=False, include_url=False, include_context=False)[0]
        first = f"{'.'.join(map(str, found['loc']))}: {found['msg']}"[:MAX_MESSAGE_LENGTH]
        raise ParserError(f"the parsing child answered what is not a {name}: {first}") from None
