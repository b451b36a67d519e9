"""What this build of ONNX Runtime runs, found by asking it rather than by its documentation.

Tiny models are loaded with rising versions until one is refused. They are written as protobuf bytes here, so
that a server image needs no ``onnx`` package.
"""

from collections.abc import Callable

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from onnx_operator.api.report import Capabilities
from onnx_operator.server.runtime.kernels import list_kernels

_STANDARD_DOMAINS = ("", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training")
"""Domains whose operators the onnx package defines; the empty one is ai.onnx."""
_OLDEST_IR_VERSION, _OLDEST_OPSET = 3, 7
_HIGHEST = 1000
"""No version is this high: a domain that accepts it is not checked at all."""


def capabilities_text(capabilities: Capabilities) -> str:
    """The capabilities as the command prints them and the controller bundles them."""
    return capabilities.model_dump_json(by_alias=True, indent=2) + "\n"


def probe() -> Capabilities:
    """Load tiny models until ONNX Runtime refuses, and list the operators of its own domains."""
    operators: dict[str, set[str]] = {}
    newest_schema: dict[str, int] = {}
    for schema in get_all_operator_schema():
        operators.setdefault(schema.domain, set()).add(schema.name)
        newest_schema[schema.domain] = max(newest_schema.get(schema.domain, 1), schema.since_version)
    opset = _newest(lambda version: _loads(opset=version), _OLDEST_OPSET)
    opsets = {"ai.onnx": opset}
    for domain in sorted({*_STANDARD_DOMAINS, *operators} - {""}):
        newest = _newest(lambda version, d=domain: _loads(opset=opset, other=(d, version)), 1)  # type: ignore[misc]
        # A domain that is unknown to the runtime passes unchecked until one of its operators is used.
        if newest < _HIGHEST:
            opsets[domain] = newest
        elif domain in newest_schema:
            opsets[domain] = newest_schema[domain]
    return Capabilities(
        onnx_runtime_version=ort.__version__,
        ir_version=_newest(lambda version: _loads(ir_version=version), _OLDEST_IR_VERSION),
        opsets=opsets,
        operators={
            domain: sorted(names) for domain, names in sorted(operators.items()) if domain not in _STANDARD_DOMAINS
        },
        kernels=list_kernels(),
    )


def _newest(loads: Callable[[int], bool], first: int) -> int:
    if not loads(first):
        raise RuntimeError(f"ONNX Runtime {ort.__version__} refuses even version {first}")
    if loads(_HIGHEST):
        return _HIGHEST
    version = first
    while loads(version + 1):
        version += 1
    return version


def _loads(
    ir_version: int = _OLDEST_IR_VERSION, opset: int = _OLDEST_OPSET, other: tuple[str, int] | None = None
) -> bool:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    imports = [("", opset), *([other] if other else [])]
    try:
        ort.InferenceSession(identity_model(ir_version, imports), options, providers=["CPUExecutionProvider"])
    except Exception:
        return False
    return True


def identity_model(ir_version: int, opsets: list[tuple[str, int]]) -> bytes:
    """Encode a ModelProto that passes one float through, declaring ``opsets`` (domain and version)."""
    dimension = _bytes(1, _number(1, 1))
    tensor_type = _number(1, 1) + _bytes(2, dimension)
    value_type = _bytes(1, tensor_type)
    node = _bytes(1, b"x") + _bytes(2, b"y") + _bytes(4, b"Identity")
    graph = (
        _bytes(1, node)
        + _bytes(2, b"probe")
        + _bytes(11, _bytes(1, b"x") + _bytes(2, value_type))
        + _bytes(12, _bytes(1, b"y") + _bytes(2, value_type))
    )
    imports = b"".join(_bytes(8, _bytes(1, domain.encode()) + _number(2, version)) for domain, version in opsets)
    return _number(1, ir_version) + _bytes(7, graph) + imports


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content
