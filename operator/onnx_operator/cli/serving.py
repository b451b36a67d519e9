"""``kubectl onnx serve``: from whatever names a model to the options of the server that pods run."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from onnx_operator.api.report import InspectionResult
from onnx_operator.api.schemes import scheme_of
from onnx_operator.api.sources import SourceSettings
from onnx_operator.cli.bringing import bring, cache_folder
from onnx_operator.cli.manifest import Manifest, is_manifest, read_manifest
from onnx_operator.cli.output import echo

Inspect = Callable[[str, str, bool], InspectionResult]
"""Judges a URI, with the digest that it must have; ends the command where the model is refused.

The last argument tells whether a person typed the URI."""


@dataclass(frozen=True)
class Prepared:
    """What there is to serve, and the server's options that follow from it."""

    uri: str
    path: Path
    name: str
    options: dict[str, Any]


def prepare(
    model: str, name: str | None, inspect: Inspect, sources: SourceSettings, *, workload_identity: bool
) -> Prepared:
    """Judge what ``model`` names, bring it here, and read its manifest if it is one. Raises click's exceptions."""
    manifest = read_manifest(model) if is_manifest(model) else None
    uri = manifest.spec.model.uri if manifest else model
    if manifest and scheme_of(uri) == "pvc":
        raise click.ClickException(f"{model}: {uri} is a claim of a cluster, which this machine cannot mount")
    result = inspect(uri, (manifest.spec.model.sha256 or "") if manifest else "", manifest is None)
    brought = bring(uri, result, sources, workload_identity=workload_identity, typed=manifest is None)
    found = name or (manifest.name if manifest else _name(uri, brought.path))
    return Prepared(uri, brought.path, found, _options(manifest) if manifest else {})


def _name(uri: str, path: Path) -> str:
    last = uri.partition("?")[0].rstrip("/").rpartition("/")[2]
    stem = last.partition("@")[0].partition(":")[0]
    for ending in (".onnx", ".zip", ".tar.gz", ".tgz", ".tar"):
        stem = stem.removesuffix(ending)
    return stem or path.stem


def _options(manifest: Manifest) -> dict[str, Any]:
    spec, options = manifest.spec, dict[str, Any]()
    if spec.model.version:
        options["version"] = spec.model.version
    if spec.session:
        session = spec.session
        providers = tuple(provider.value for provider in session.execution_providers or ())
        found = {
            "providers": providers,
            "intra_op_threads": session.intra_op_threads,
            "inter_op_threads": session.inter_op_threads,
            "on_fallback": session.on_fallback,
        }
        options |= {option: value for option, value in found.items() if value}
    if spec.batching and spec.batching.max_batch_size:
        options["max_batch_size"] = spec.batching.max_batch_size
    if spec.batching and spec.batching.max_delay_milliseconds is not None:
        options["max_delay_milliseconds"] = float(spec.batching.max_delay_milliseconds)
    if spec.warm_up and spec.scoring:
        raise click.ClickException(
            "spec.warmUp: with spec.scoring the script loads the model; let its init() warm it up"
        )
    if spec.warm_up:
        options["warm_up"] = spec.warm_up.inputs()
    if spec.batching and spec.batching.assume_independent_rows:
        options["assume_independent_rows"] = True
    if manifest.scoring:
        options["script"] = _written(manifest)
        if spec.scoring and spec.scoring.requirements:
            options["requirements"] = _installed(spec.scoring.requirements)
    if spec.model.test_data:
        data = Path(spec.model.test_data.removeprefix("file://"))
        if data.is_dir():
            options["test_data"] = data
        else:
            echo(f"{spec.model.test_data} is not tested here; name a folder with --test-data", err=True)
    return options


def _written(manifest: Manifest) -> Path:
    """The script's files in a folder, as the pod has them."""
    folder = Path(tempfile.mkdtemp(prefix="onnx-scoring-"))
    for name, text in manifest.scoring.items():
        if "/" in name or name in ("", ".", ".."):
            raise click.ClickException(f"spec.scoring: {name!r} is no file name")
        (folder / name).write_text(text)
    return folder


def _installed(requirements: list[str]) -> Path:
    from onnx_operator.server.script.requirements import run

    key = hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()[:24]
    target = cache_folder().parent / "requirements" / key
    if run(target, tuple(requirements), (), ()):
        shutil.rmtree(target, ignore_errors=True)
        raise click.ClickException("the script's requirements cannot be installed; the log above says why")
    return target


def state_folder(model: Path) -> Path:
    """Where the server of a local model notes which made-up inputs killed it; another file has another folder."""
    stat = model.stat()
    key = hashlib.sha256(f"{model.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:24]
    return cache_folder().parent / "warm-up" / key


def addresses(host: str, port: int, grpc_port: int | None, name: str, *, page: bool) -> list[str]:
    """Lines that tell where the server answers; without gRPC it is a scoring script that does."""
    shown = "127.0.0.1" if host in ("::", "0.0.0.0") else host  # noqa: S104 - only shown
    lines = [f"page    http://{shown}:{port}/"] if page else []
    lines.append(f"score   http://{shown}:{port}/score")
    if grpc_port is not None:
        lines += [f"REST    http://{shown}:{port}/v2/models/{name}/infer", f"gRPC    {shown}:{grpc_port}"]
    return lines
