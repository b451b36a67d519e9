"""``kubectl onnx serve``: from whatever names a model to the options of the server that pods run."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from onnx_operator.api.report import InspectionResult
from onnx_operator.api.schemes import scheme_of
from onnx_operator.api.serving import Places, serve_arguments
from onnx_operator.api.sources import SourceSettings
from onnx_operator.api.urls import last_name, model_path
from onnx_operator.cli.fetching import cache_folder, fetch_model, is_local
from onnx_operator.cli.manifest import Manifest, is_manifest, read_manifest
from onnx_operator.cli.output import echo
from onnx_operator.common.listening import shown_host
from onnx_operator.model.sources.files import local_path
from onnx_operator.model.sources.opening import may_name_folder

Inspect = Callable[[str, str, bool, bool], InspectionResult]
"""Judges a URI, with the digest that it must have; ends the command where the model is refused.

The last two arguments tell whether a person typed the URI, and whether all files of its folder are wanted."""


@dataclass(frozen=True)
class Prepared:
    """What there is to serve, and the server's arguments that follow from its manifest."""

    path: Path
    folder: Path
    """All that came with the model."""
    name: str
    arguments: list[str]
    scripted: bool = False


def prepare(
    model: str,
    name: str | None,
    inspect: Inspect,
    sources: SourceSettings,
    *,
    workload_identity: bool,
    scripted: bool = False,
) -> Prepared:
    """Judge what ``model`` names, bring it here, and read its manifest if it is one. Raises click's exceptions.

    With a scoring script, ``scripted`` or the manifest's, all files of the model's folder are brought.
    """
    manifest = read_manifest(model) if is_manifest(model) else None
    uri = manifest.spec.model.uri if manifest else model
    if manifest and scheme_of(uri) == "pvc":
        raise click.ClickException(f"{model}: {uri} is a claim of a cluster, which this machine cannot mount")
    script = scripted or bool(manifest and manifest.scoring)
    # What lies on this machine is used where it lies.
    whole_folder = script and not is_local(uri) and may_name_folder(uri)
    result = inspect(uri, (manifest.spec.model.sha256 or "") if manifest else "", manifest is None, whole_folder)
    brought = fetch_model(uri, result, sources, workload_identity=workload_identity, typed=manifest is None)
    found = name or (manifest.name if manifest else _name(uri, brought.path))
    if manifest is None:
        return Prepared(brought.path, brought.folder, found, [])
    return Prepared(brought.path, brought.folder, found, server_arguments(manifest), bool(manifest.scoring))


def _name(uri: str, path: Path) -> str:
    stem = local_path(uri).name if is_local(uri) else last_name(uri).partition("@")[0].partition(":")[0]
    for ending in (".onnx", ".zip", ".tar.gz", ".tgz", ".tar"):
        stem = stem.removesuffix(ending)
    return stem or path.stem


def server_arguments(manifest: Manifest) -> list[str]:
    """What the manifest says of serving, as the pods' server takes it; its script is written and installed for it."""
    spec = manifest.spec
    if spec.warm_up and spec.scoring:
        raise click.ClickException(
            "spec.warmUp: with spec.scoring the script loads the model; let its init() warm it up"
        )
    requirements = spec.scoring.requirements if spec.scoring else None
    places = Places(
        script=str(_written(manifest)) if manifest.scoring else "",
        requirements=str(_installed(requirements)) if requirements else "",
        test_data=_test_data(spec.model.test_data or ""),
    )
    return serve_arguments(spec, places)


def _test_data(uri: str | None) -> str:
    if not uri:
        return ""
    folder = local_path(uri)
    if folder.is_dir():
        return str(folder)
    echo(f"{uri} is not tested here; name a folder with --test-data", err=True)
    return ""


def _written(manifest: Manifest) -> Path:
    """The script's files in a folder, as the pod has them."""
    folder = Path(tempfile.mkdtemp(prefix="onnx-scoring-"))
    for name, text in manifest.scoring.items():
        if "/" in name or name in ("", ".", ".."):
            raise click.ClickException(f"spec.scoring: {name!r} is not a file name")
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
    shown = shown_host(host)
    lines = [f"page    http://{shown}:{port}/"] if page else []
    lines.append(f"score   http://{shown}:{port}/score")
    if grpc_port is not None:
        lines += [f"REST    http://{shown}:{port}{model_path(name)}/infer", f"gRPC    {shown}:{grpc_port}"]
    return lines
