"""The Python modules that protoc makes of our .proto files."""

import tempfile
from pathlib import Path

# Other programs' output is neither formatted nor judged.
HEADER = '# fmt: off\n# ruff: noqa\n# mypy: disable-error-code="type-arg"\n'
SOURCES = ("onnx_operator/server/rpc/inference.proto", "onnx_operator/model/batching/graph.proto")


def stubs(root: Path) -> dict[Path, str]:
    """Content of each generated module. Raises RuntimeError where protoc fails, which prints why."""
    from grpc_tools import protoc

    operator = root / "operator"
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"-I{operator}", f"--python_out={folder}", f"--pyi_out={folder}", *SOURCES]
        if code := protoc.main(["protoc", *arguments]):
            raise RuntimeError(f"protoc ended with {code} on {SOURCES}")
        found = sorted(Path(folder).rglob("*.py*"))
        return {operator / path.relative_to(folder): HEADER + path.read_text() for path in found}
