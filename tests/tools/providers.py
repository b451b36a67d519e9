"""Makes the tables of what execution providers compute (``onnx_operator.api.providers``), and their reference page.

``pip download --no-deps`` fetches the wheels, TensorRT's document is ``docs/operators.md`` of onnx/onnx-tensorrt::

    python -m tests.tools.providers --cuda onnxruntime_gpu-….whl --rocm onnxruntime_rocm-….whl \\
        --migraphx onnxruntime_migraphx-….whl --openvino onnxruntime_openvino-….whl --tensorrt operators.md

Only the tables that are asked for are made anew.
"""

import datetime
import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import click
import onnx

from onnx_operator.api import providers
from onnx_operator.api.capabilities import KernelTable
from onnx_operator.api.providers import ProviderTable, Rule, load_tables
from onnx_operator.server.runtime.kernels import list_kernels
from tests.tools import wheels

FOLDER = Path(providers.__file__).parent
_CPU = "CPUExecutionProvider"
_TENSORRT_TYPES = {
    "FP32": ["float", "double"],  # Doubles are computed as floats.
    "FP16": ["float16"],
    "BF16": ["bfloat16"],
    "FP8": ["float8e4m3fn"],
    "FP4": ["float4e2m1"],
    "INT4": ["int4"],
    "INT8": ["int8"],
    "INT32": ["int32"],
    "INT64": ["int64"],
    "UINT8": ["uint8"],
    "BOOL": ["bool"],
}
_OTHER_NAMES = {"is_training": "training_mode"}
_WHERE = "coordinate_transformation_mode"
_RESIZE_MODES: list[int | str] = [
    *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "tf_half_pixel_for_nn"),
    *("align_corners", "asymmetric"),
]
_AUTO_PAD: list[int | str] = ["NOTSET", "VALID"]
_RECURRENT = ["activation_alpha", "activation_beta", "clip"]
_LAST_INDEX = {name: Rule(attributes={"select_last_index": [0]}) for name in ("ArgMax", "ArgMin")}
# Nodes with a kernel that GetCapability of cuda_execution_provider.cc leaves to the CPU all the same. Each was seen in
# the wheel, loaded as `wheels.kernels` does: a session without fallback to the CPU refuses it.
_KERNEL_RULES: dict[providers.Provider, dict[str, Rule]] = {
    "CUDA": {
        "LSTM": Rule(
            absent=_RECURRENT, attributes={"activations": ["Sigmoid", "Tanh"], "input_forget": [0]}, max_inputs=7
        ),
        "GRU": Rule(absent=_RECURRENT, attributes={"activations": ["Sigmoid", "Tanh"], "linear_before_reset": [1]}),
        "RNN": Rule(absent=_RECURRENT, attributes={"activations": ["Tanh"]}),
        "ConvTranspose": Rule(symmetric=["pads"], attributes={"auto_pad": _AUTO_PAD}),
        **_LAST_INDEX,
    },
    "ROCm": _LAST_INDEX,
}
# From IsTypeSupported and IsUnsupportedOpMode of migraphx_execution_provider.cc.
_MIGRAPHX_TYPES = [
    *("float16", "bfloat16", "float", "double", "bool"),
    *("float4e2m1", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"),
    *("int4", "int8", "int16", "int32", "int64", "uint4", "uint8", "uint16", "uint32", "uint64"),
]
_MIGRAPHX_RULES = {
    **_LAST_INDEX,
    **{name: Rule(types=["int8", "uint8"]) for name in ("ConvInteger", "MatMulInteger")},
    **{name: Rule(known_inputs=[0]) for name in ("ConstantOfShape", "NonZero")},
    **{
        name: Rule(known_inputs=[1])
        for name in ("Expand", "OneHot", "ReduceSum", "Reshape", "Split", "Squeeze", "Tile", "TopK", "Unsqueeze")
    },
    "MaxPool": Rule(
        attributes={"dilations": [1], "storage_order": [0]},
        max_outputs=1,
        types=[name for name in _MIGRAPHX_TYPES if name not in ("int8", "uint8")],
    ),
    "Pad": Rule(known_inputs=[1], attributes={"mode": ["constant", "reflect", "edge"]}),
    "Range": Rule(known_inputs=[0, 1, 2]),
    "Resize": Rule(
        attributes={
            _WHERE: _RESIZE_MODES,
            "mode": ["nearest", "linear"],
        }
    ),
    "Slice": Rule(known_inputs=[1, 2, 3, 4]),
    "Upsample": Rule(attributes={"mode": ["nearest", "linear"]}),
}
# From populate_types_supported of ov_versions/data_ops.cc, those of CPUs, which GPUs have too but for the 16-bit ones.
# The wheel takes uint32, int4 and uint4 besides, as its answers to onnx's node tests show, and asks the rules below.
_OPENVINO_TYPES = [
    *("bool", "float", "float16", "int4", "int8", "int16", "int32", "int64"),
    *("uint4", "uint8", "uint16", "uint32"),
]
_OPENVINO_RULES = {"Unsqueeze": Rule(known_inputs=[1]), "Resize": Rule(attributes={_WHERE: _RESIZE_MODES})}


def _defined(operators: Iterable[str], cpu: KernelTable) -> list[str]:
    """Operators that only have a definition: neither the provider, which has ``operators``, nor the CPU has them."""
    known = {*operators, *cpu.operators["ai.onnx"]}
    return sorted(
        {
            schema.name
            for schema in onnx.defs.get_all_schemas()
            if not schema.domain and (schema.has_function or schema.has_context_dependent_function)
        }
        - known
    )


def from_kernels(wheel: Path, provider: providers.Provider, package: str, workdir: Path) -> ProviderTable:
    """The table of a provider that computes node by node."""
    name = f"{provider.upper()}ExecutionProvider"
    listed = wheels.kernels(wheel, [name, _CPU], workdir)
    release = f"ONNX Runtime {wheels.version(wheel)}"
    if provider == "ROCm":
        release += " (the last with this provider: 1.23 dropped it for MIGraphX)"
    return ProviderTable(
        provider=provider,
        release=release,
        source=f"kernels that the wheel {package} {wheels.version(wheel)} registers",
        date=_today(),
        approximate="attributes that single kernels refuse",
        kernels=listed[name],
        rules=_KERNEL_RULES[provider],
        defined=_defined(listed[name].operators["ai.onnx"], listed[_CPU]),
    )


def migraphx(wheel: Path) -> ProviderTable:
    """The table of MIGraphX, from the wheel ``onnxruntime-migraphx``."""
    (operators,) = wheels.operator_lists(wheel, "libonnxruntime_providers_migraphx.so", ("Abs", "Xor"))
    return ProviderTable(
        provider="MIGraphX",
        release=f"ONNX Runtime {wheels.version(wheel)}",
        source=f"operators that the wheel onnxruntime-migraphx {wheels.version(wheel)} lists; types and modes:"
        " onnxruntime/core/providers/migraphx/migraphx_execution_provider.cc",
        date=_today(),
        approximate="versions of operators, what MIGraphX itself refuses while it compiles, and changes of types and"
        " modes between releases: their source may be of another one",
        domains=["", "com.microsoft"],
        operators=dict.fromkeys(operators, 0),
        types=[_MIGRAPHX_TYPES],
        rules=_MIGRAPHX_RULES,
        defined=_defined(operators, list_kernels()),
        whole_bodies=True,
        most_fallbacks=10,
    )


def openvino(wheel: Path) -> ProviderTable:
    """The table of OpenVINO, from the wheel ``onnxruntime-openvino``."""
    library = "libonnxruntime_providers_openvino.so"
    operators, scalars = wheels.operator_lists(wheel, library, ("Abs", "Xor"), ("Add", "Where"))
    return ProviderTable(
        provider="OpenVINO",
        release=f"ONNX Runtime {wheels.version(wheel)}",
        source=f"operators that the wheel onnxruntime-openvino {wheels.version(wheel)} lists; types:"
        " onnxruntime/core/providers/openvino/ov_versions/data_ops.cc",
        date=_today(),
        approximate="differences between Intel's devices, versions and modes of operators",
        domains=["", "com.microsoft"],
        operators=dict.fromkeys(operators, 0),
        types=[_OPENVINO_TYPES],
        scalars=scalars,
        rules=_OPENVINO_RULES,
        defined=_defined(operators, list_kernels()),
        whole_bodies=True,
    )


def tensorrt(document: Path) -> ProviderTable:
    """The table of TensorRT, from ``docs/operators.md`` of onnx/onnx-tensorrt."""
    text = document.read_text()
    release = re.search(r"TensorRT (\d+\.\d+)", text)
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:1] == "|"]
    operators: dict[str, int] = {}
    types: list[list[str]] = []
    rules: dict[str, Rule] = {}
    for name, supported, *more in rows:
        if not supported.startswith("Y"):
            continue
        kinds = sorted({t for kind in more[0].split(",") if kind.strip() for t in _TENSORRT_TYPES[kind.strip()]})
        if kinds not in types:
            types.append(kinds)
        operators[name] = types.index(kinds)
        rule = _tensorrt_rule(name, " ".join(more[1:]))
        if rule != Rule():
            rules[name] = rule
    if release is None or len(operators) < 100:
        raise click.ClickException(f"{document} is not docs/operators.md of onnx/onnx-tensorrt")
    return ProviderTable(
        provider="TensorRT",
        release=f"TensorRT {release[1]}",
        source="docs/operators.md of onnx/onnx-tensorrt",
        date=_today(),
        approximate="versions of operators, zero points that must be zero, and what TensorRT itself refuses while it"
        " builds its engine; what falls back runs on CUDA where the image has it",
        domains=[""],
        operators=operators,
        types=types,
        typed="FirstInput",
        rules=rules,
        defined=_defined(operators, list_kernels()),
    )


def _tensorrt_rule(operator: str, restrictions: str) -> Rule:
    """The part of an operator's restrictions that can be checked without running it."""
    schema = onnx.defs.get_schema(operator) if onnx.defs.has(operator) else None
    inputs = [each.name for each in schema.inputs] if schema else []
    outputs = [each.name for each in schema.outputs] if schema else []
    quoted = r"((?:`[\w ]+`(?:, | and )?)+)"
    rule = Rule()
    constant = r" must be (?:an initializer|a build-time constant|resolvable to a constant)"
    for found in re.findall(quoted + constant, restrictions):
        names = [_OTHER_NAMES.get(name, name) for name in re.findall(r"`(\w+)", found)]
        rule.known_inputs += [inputs.index(name) for name in names if name in inputs]
    for name, value in re.findall(r"`(\w+)`(?: attribute)? must be (-?\d+)\b(?!D)", restrictions):
        if schema and name in schema.attributes:
            rule.attributes[name] = [int(value)]
    for found, side in re.findall(quoted + r" (input|output)s? (?:tensor )?(?:are )?unsupported", restrictions):
        places = inputs if side == "input" else outputs
        first = min(places.index(name) for name in re.findall(r"`(\w+)", found) if name in places)
        if side == "input":
            rule.max_inputs = first
        else:
            rule.max_outputs = first
    if "Only the first output" in restrictions:
        rule.max_outputs = 1
    if "`dilations` must be empty or all ones" in restrictions:
        rule.attributes["dilations"] = [1]
    if re.search(r"2D or 3D pooling only", restrictions, re.IGNORECASE):
        rule.ranks = [4, 5]
    if "Input must be 4D input" in restrictions:
        rule.ranks = [4]
    modes = {
        "reduction": r"`reduction` other than (`none`)",
        "coordinate_transformation_mode": r"transformation modes: ([^.]*)",
        "mode": r"resize modes: ([^.]*)",
        "nearest_mode": r"nearest modes: ([^.]*)",
        "keep_aspect_ratio_policy": r"ratio policy: ([^.]*)",
    }
    for name, pattern in modes.items():
        if found := re.search(pattern, restrictions):
            rule.attributes[name] = list(re.findall(r"`(\w+)`", found[1]))
    if "Antialiasing is not supported" in restrictions:
        rule.attributes["antialias"] = [0]
    return rule


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def page() -> str:
    """The reference page about the tables."""
    rows = "\n".join(
        f"| {t.provider} | {t.release} | {t.known} | {t.source} | {t.date} | {t.approximate} |" for t in load_tables()
    )
    return f"""# Execution providers

Generated by `make generate`. `status.model.coverage` and `kubectl onnx inspect` tell for each execution provider of
ONNX Runtime how many nodes of a model it computes, which operators would fall back to the CPU, and the share of the
model's FLOPs that these carry. The CPU's kernels are those of the server image. Tables tell the others:

| provider | describes | operators | source | made on | does not know |
| --- | --- | --- | --- | --- | --- |
{rows}

What is computed once, while the model is loaded, falls back nowhere, and neither do computations of shapes, which the
runtime leaves on the CPU on purpose. Types that are unknown before the model runs are taken to fit. The share of FLOPs
leaves both out.
"""


def write(table: ProviderTable) -> None:
    """Write a table to its place."""
    content = table.model_dump(by_alias=True, exclude_defaults=True)
    lines = [f"{json.dumps(key)}: {_compact(value)}" for key, value in content.items()]
    (FOLDER / f"{table.provider.lower()}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _compact(value: object) -> str:
    """JSON with a line for each entry of the outer object or two, so that changes can be read."""
    if not isinstance(value, dict) or len(value) < 2 or all(isinstance(each, int) for each in value.values()):
        return json.dumps(value)
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(each)}" for key, each in value.items()) + "\n}"


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--cuda", type=_FILE, help="Wheel of onnxruntime-gpu.")
@click.option("--rocm", type=_FILE, help="Wheel of onnxruntime-rocm.")
@click.option("--migraphx", "migraphx_wheel", type=_FILE, help="Wheel of onnxruntime-migraphx.")
@click.option("--openvino", "openvino_wheel", type=_FILE, help="Wheel of onnxruntime-openvino.")
@click.option("--tensorrt", "tensorrt_document", type=_FILE, help="docs/operators.md of onnx/onnx-tensorrt.")
def main(
    cuda: Path | None,
    rocm: Path | None,
    migraphx_wheel: Path | None,
    openvino_wheel: Path | None,
    tensorrt_document: Path | None,
) -> None:
    """Make tables of execution providers anew."""
    with tempfile.TemporaryDirectory() as workdir:
        if cuda:
            write(from_kernels(cuda, "CUDA", "onnxruntime-gpu", Path(workdir, "cuda")))
        if rocm:
            write(from_kernels(rocm, "ROCm", "onnxruntime-rocm", Path(workdir, "rocm")))
    if migraphx_wheel:
        write(migraphx(migraphx_wheel))
    if openvino_wheel:
        write(openvino(openvino_wheel))
    if tensorrt_document:
        write(tensorrt(tensorrt_document))


if __name__ == "__main__":
    main()
