"""What controller and inspector say to each other over the socket.

``POST /inspect`` carries a request that names its capabilities by their digest; the bundled ones every inspector has,
others are sent once by ``PUT /capabilities/DIGEST``, which ``424`` asks for. The answer is one line of JSON every few
seconds, ``{"state": "queued"}`` or ``{"state": "running"}``, and at last ``{"result": …}`` or ``{"error": "…"}``.
Whoever closes the connection gives the inspection up. ``GET /healthz`` tells what the inspector counts.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from onnx_operator.api.capabilities import Capabilities, load_capabilities
from onnx_operator.api.report import InspectionRequest, InspectionResult

KEEPALIVE_SECONDS = 5.0
MAX_REQUEST_LENGTH = 4 << 20
MAX_LINE_LENGTH = 4 << 20
"""Bytes of a line of an answer; a result has about 200 bytes for each file of the model."""
MAX_CAPABILITIES_LENGTH = 1 << 20
MAX_HEALTH_LENGTH = 4096
_MAX_COUNT = 1 << 53
_MAX_CAPABILITIES = 8
_DIGEST = "capabilitiesDigest"


@dataclass(frozen=True)
class Counts:
    """What an inspector has counted since it began."""

    forbidden_calls: int = 0
    """Children that were ended because of a system call."""
    exceeded_limits: int = 0
    """Children that were ended because the runtime took more than they may."""


class UnknownCapabilitiesError(Exception):
    """A request names capabilities that were not sent."""


class WireError(Exception):
    """What came is no message of the protocol; the text says why, and repeats none of it."""


class CapabilityStore:
    """Capabilities by the digest of their JSON: the bundled ones, and the last few that were sent."""

    def __init__(self) -> None:
        bundled = load_capabilities()
        self._bundled = {_digest(_dump(each)): each for each in (bundled, bundled.without_kernels())}
        self._sent: OrderedDict[str, Capabilities] = OrderedDict()

    def find(self, digest: str) -> Capabilities:
        """Raises :class:`UnknownCapabilitiesError`."""
        found = self._bundled.get(digest) or self._sent.get(digest)
        if found is None:
            raise UnknownCapabilitiesError
        return found

    def put(self, digest: str, body: bytes) -> None:
        """Keep what was sent. Raises :class:`WireError`."""
        if _digest(body) != digest:
            raise WireError("the capabilities have another digest")
        try:
            self._sent[digest] = Capabilities.model_validate_json(body)
        except ValidationError as error:
            raise WireError(_faults(error)) from None
        self._sent.move_to_end(digest)
        while len(self._sent) > _MAX_CAPABILITIES:
            self._sent.popitem(last=False)


class CapabilityTexts:
    """Digests and JSON of capabilities, made once for each of the last few."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[Capabilities, str, bytes]] = OrderedDict()

    def text(self, capabilities: Capabilities) -> tuple[str, bytes]:
        """Digest and JSON."""
        known = self._known.get(id(capabilities))
        if known is None:
            body = _dump(capabilities)
            # The object is kept with its id, so that no other one gets this id.
            known = self._known[id(capabilities)] = (capabilities, _digest(body), body)
            while len(self._known) > _MAX_CAPABILITIES:
                self._known.popitem(last=False)
        return known[1:]


def write_request(request: InspectionRequest, digest: str) -> bytes:
    """A request without its capabilities."""
    content = request.model_dump(mode="json", by_alias=True, exclude={"capabilities"})
    return json.dumps({**content, _DIGEST: digest}, separators=(",", ":")).encode()


def read_request(body: bytes, store: CapabilityStore) -> InspectionRequest:
    """Raises :class:`WireError`, :class:`UnknownCapabilitiesError`."""
    content = _parsed(body)
    digest = content.pop(_DIGEST, None)
    if isinstance(digest, str):
        content["capabilities"] = store.find(digest)
    try:
        return InspectionRequest.model_validate(content)
    except ValidationError as error:
        raise WireError(_faults(error)) from None


def write_health(counts: Counts, *, running: int, queued: int) -> bytes:
    """What ``GET /healthz`` answers."""
    told = {"forbiddenCalls": counts.forbidden_calls, "exceededLimits": counts.exceeded_limits}
    return json.dumps({"status": "ok", "running": running, "queued": queued, **told}).encode()


def read_counts(body: bytes) -> Counts:
    """What it counts, of that answer. Raises :class:`WireError`."""
    content = _parsed(body)
    numbers = [content.get(name, 0) for name in ("forbiddenCalls", "exceededLimits")]
    if not all(type(number) is int and 0 <= number <= _MAX_COUNT for number in numbers):
        raise WireError("its counts are not numbers")
    return Counts(*numbers)


def write_state(running: bool) -> bytes:
    """A line that tells that the inspector is alive."""
    return b'{"state":"running"}\n' if running else b'{"state":"queued"}\n'


def write_result(result: InspectionResult) -> bytes:
    """The line that tells the result."""
    return b'{"result":' + result.model_dump_json(by_alias=True).encode() + b"}\n"


def write_error(message: str) -> bytes:
    """The line that tells a fault of the inspector's own."""
    return json.dumps({"error": message}).encode() + b"\n"


def read_line(line: bytes) -> InspectionResult | None:
    """The result, or None for a line that tells that the inspector is alive. Raises :class:`WireError`."""
    content = _parsed(line)
    match content:
        case {"state": "queued" | "running"}:
            return None
        case {"error": str(message)}:
            raise WireError(message[:200])
        case {"result": dict(result)}:
            try:
                return InspectionResult.model_validate(result)
            except ValidationError as error:
                raise WireError(f"its result is none: {_faults(error)}") from None
    raise WireError("it says something else")


class Lines:
    """Cuts what comes into lines. Raises :class:`WireError` for one that is too long."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are whole now."""
        searched = len(self._rest)
        self._rest += data
        while (end := self._rest.find(b"\n", searched)) >= 0:
            line = bytes(self._rest[:end])
            del self._rest[: end + 1]
            searched = 0
            yield line
        if len(self._rest) > MAX_LINE_LENGTH:
            raise WireError(f"a line of its answer has more than {MAX_LINE_LENGTH} bytes")


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise WireError("that is not a JSON object")
    return content


def _faults(error: ValidationError) -> str:
    """What is wrong where. The input may hold credentials: it is neither sent back nor logged."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, each['loc']))[:100]}: {each['msg'][:200]}" for each in found[:5])


def _dump(capabilities: Capabilities) -> bytes:
    return capabilities.model_dump_json(by_alias=True).encode()


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
