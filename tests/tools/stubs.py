"""The Python modules of our .proto files: messages that any version of protobuf makes of their description.

What protoc itself writes is bound to the version that wrote it, and refuses an older one.
"""

import tempfile
from pathlib import Path
from typing import Any

# Other programs' output is neither formatted nor judged.
HEADER = '# fmt: off\n# ruff: noqa\n# mypy: disable-error-code="type-arg"\n'
MODULE = '''"""The messages of {name}, made by whatever protobuf imports this. Written by make generate."""

from google.protobuf import descriptor_pool, message_factory

DESCRIPTOR = descriptor_pool.Default().AddSerializedFile(
    {described!r}
)
for _name, _message in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = message_factory.GetMessageClass(_message)
'''
SOURCES = ("onnx_operator/server/rpc/inference.proto", "onnx_operator/model/batching/graph.proto")


def stubs(root: Path) -> dict[Path, str]:
    """Content of each generated module. Raises RuntimeError where protoc fails, which prints why."""
    return {path: HEADER + text for source in SOURCES for path, text in _modules(root / "operator", source).items()}


def _drop_json_names(message: Any) -> None:
    """As protoc leaves them out of what it writes: clients that reflect then show fields by their own names."""
    for field in message.field:
        field.ClearField("json_name")
    for inner in message.nested_type:
        _drop_json_names(inner)


def _modules(operator: Path, source: str) -> dict[Path, str]:
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        described, types = Path(folder) / "described", Path(folder) / source.replace(".proto", "_pb2.pyi")
        arguments = [f"-I{operator}", f"--descriptor_set_out={described}", f"--pyi_out={folder}", source]
        if code := protoc.main(["protoc", *arguments]):
            raise RuntimeError(f"protoc ended with {code} on {source}")
        (file,) = FileDescriptorSet.FromString(described.read_bytes()).file
        for message in file.message_type:
            _drop_json_names(message)
        module = operator / source.replace(".proto", "_pb2.py")
        text = MODULE.format(name=Path(source).name, described=file.SerializeToString(deterministic=True))
        return {module: text, module.with_suffix(".pyi"): types.read_text()}
