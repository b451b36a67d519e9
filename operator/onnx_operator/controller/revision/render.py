"""Rendering: from the spec, the inspection and the settings to the manifests of a revision. Pure.

The templates beside this file are the platform team's to replace, one by one (``templatesDirectory``). The result
holds what the operator owns, and nothing that belongs to one moment: replicas, tags and the owner are added when
the revision is applied.
"""

import functools
import hashlib
import json
import math
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jinja2
import yaml

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import GPU_PROVIDERS, ExecutionProvider, OnnxModelSpec, Runtime
from onnx_operator.api.report import ModelReport, Refusal
from onnx_operator.api.schemes import claim_of
from onnx_operator.api.sources import ModelFiles, SourceFile
from onnx_operator.controller.revision.fetching import fetch_env, identity_marks, literal
from onnx_operator.controller.revision.merge import strategic_merge
from onnx_operator.controller.revision.pools import stay_off
from onnx_operator.controller.revision.scoring import script_path
from onnx_operator.controller.revision.warm_up import Kept, WarmUpRejectedError, warm_up_text
from onnx_operator.controller.settings.quantities import MEBIBYTE, mebibytes, parse_quantity
from onnx_operator.controller.settings.settings import Pool, Settings

TEMPLATES = {
    "Deployment": "deployment.yaml.j2",
    "Service": "service.yaml.j2",
    "PodDisruptionBudget": "poddisruptionbudget.yaml.j2",
}
START_DEADLINE_SECONDS = 1800
SLOWEST_DOWNLOAD_BYTES_PER_SECOND = 5 * MEBIBYTE
MEMORY_LIMIT_FACTOR = 1.5
"""Headroom of the default memory limit over the estimate: larger batches need more than the one estimated for."""
ACTIVATION_COPIES = 2.5
"""What a request that runs beside the estimated one adds at most, in peaks of activations (measured)."""
LEAST_MEMORY_LIMIT = 256 * MEBIBYTE

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Manifest = dict[str, Any]


class PodTemplateRejectedError(Exception):
    """``spec.podTemplate`` cannot be used; ``refusal`` says which part and why."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason=Reason.POD_TEMPLATE_REJECTED, message=message)


class TemplateError(Exception):
    """A template of the platform team's (``templatesDirectory``) gives no manifest; says which and why."""


@dataclass(frozen=True)
class RenderInput:
    """Everything that a revision's manifests are made from."""

    name: str
    namespace: str
    spec: OnnxModelSpec
    report: ModelReport
    files: ModelFiles
    pool: Pool
    settings: Settings
    scoring: dict[str, str] = field(default_factory=dict)
    """The scoring script's files, by name."""
    test_data: list[SourceFile] = field(default_factory=list)
    kept: Kept | None = None
    """What it takes over from the revisions before."""


def selector_labels(name: str) -> dict[str, str]:
    """Labels that select the stable Deployment's pods. Immutable for the life of the Deployment."""
    return {names.LABEL_MODEL: name, names.LABEL_TRACK: names.TRACK_STABLE}


def service_selector(name: str) -> dict[str, str]:
    """Labels that select all pods of the model, whatever their track."""
    return {names.LABEL_MODEL: name}


def child_labels(name: str) -> dict[str, str]:
    """Labels of every child. Never ``app.kubernetes.io/instance``: Argo CD would take the child for its own."""
    return {
        "app.kubernetes.io/name": "onnx-server",
        "app.kubernetes.io/managed-by": "onnx-operator",
        names.LABEL_MODEL: name,
    }


def version_label(spec: OnnxModelSpec, report: ModelReport) -> str:
    """What the model's version is called: as the user says, else by its digest, else by its pin."""
    digest = report.digest.removeprefix("sha256:") or hashlib.sha256(report.source.value.encode()).hexdigest()
    return spec.model.version or digest[:12]


def _resources(inputs: RenderInput) -> dict[str, dict[str, Any]]:
    memory = inputs.report.memory.resident_bytes
    requests: dict[str, Any] = {"cpu": "100m", "memory": mebibytes(memory)}
    roomy = memory * MEMORY_LIMIT_FACTOR + inputs.report.memory.activations_bytes * ACTIVATION_COPIES
    limits: dict[str, Any] = {"memory": mebibytes(max(LEAST_MEMORY_LIMIT, math.ceil(roomy)))}
    given = inputs.spec.resources
    if given:
        limits |= given.limits or {}
        # As Kubernetes does: a limit without a request is the request.
        requests |= {k: v for k, v in (given.limits or {}).items() if k in requests}
        requests |= given.requests or {}
        for name, value in (given.requests or {}).items():
            # A default limit must not forbid a larger request of the user's.
            if (
                name not in (given.limits or {})
                and name in limits
                and parse_quantity(limits[name]) < parse_quantity(value)
            ):
                limits[name] = value
    if inputs.pool.runtime is Runtime.GPU:
        # Kubernetes overcommits no devices: request and limit are the same.
        gpu = inputs.pool.gpu_resource
        limits.setdefault(gpu, requests.get(gpu, 1))
        requests.setdefault(gpu, limits[gpu])
    return {"requests": requests, "limits": limits}


def execution_providers(spec: OnnxModelSpec) -> list[ExecutionProvider]:
    """The providers asked for, with the default applied."""
    asked = spec.session.execution_providers if spec.session else None
    if asked:
        return asked
    return [ExecutionProvider.CUDA] if spec.effective_runtime is Runtime.GPU else [ExecutionProvider.CPU]


def _server_args(inputs: RenderInput) -> list[str]:
    session = inputs.spec.session
    model = literal(f"--model={names.MODEL_DIRECTORY}/{inputs.files.model}")
    args = ["serve", model, f"--name={inputs.name}", f"--port={names.HTTP_PORT}", f"--grpc-port={names.GRPC_PORT}"]
    if inputs.spec.model.version:
        args.append(literal(f"--version={inputs.spec.model.version}"))
    args += [f"--execution-provider={p.value}" for p in execution_providers(inputs.spec)]
    if session and session.intra_op_threads:
        args.append(f"--intra-op-threads={session.intra_op_threads}")
    if session and session.inter_op_threads:
        args.append(f"--inter-op-threads={session.inter_op_threads}")
    if session and session.on_fallback:
        args.append(f"--on-fallback={session.on_fallback}")
    batching = inputs.spec.batching
    if batching and batching.max_batch_size:
        args.append(f"--max-batch-size={batching.max_batch_size}")
    if batching and batching.max_delay_milliseconds is not None:
        args.append(f"--max-delay-milliseconds={batching.max_delay_milliseconds}")
    args += _warm_up_args(inputs)
    if batching and batching.assume_independent_rows:
        args.append("--assume-independent-rows")
    if inputs.test_data:
        args.append(f"--test-data={names.TEST_DATA_DIRECTORY}")
    if script := script_path(inputs.spec):
        args.append(f"--script={script}")
    if _requirements(inputs.spec):
        args.append(f"--requirements-directory={names.REQUIREMENTS_DIRECTORY}")
    if inputs.settings.page:
        args.append("--page")
    return args


def _warm_up_args(inputs: RenderInput) -> list[str]:
    args = [f"--state-directory={names.STATE_DIRECTORY}"]
    try:
        text = warm_up_text(inputs.spec, inputs.report)
    except WarmUpRejectedError as error:
        raise PodTemplateRejectedError(str(error)) from None
    if text:
        args.append(literal(f"--warm-up={text}"))
    if inputs.kept and inputs.kept.inputs:
        args.append(literal(f"--kept-inputs={inputs.kept.inputs.to_text()}"))
    if inputs.kept and inputs.kept.required:
        args.append("--require-warm-up")
    return args


def _requirements(spec: OnnxModelSpec) -> list[str]:
    return (spec.scoring.requirements or []) if spec.scoring else []


def _pip_env(settings: Settings) -> list[dict[str, str]]:
    pairs = {"PIP_INDEX_URL": settings.pip.index_url, "PIP_TRUSTED_HOST": settings.pip.trusted_host}
    return [{"name": name, "value": literal(value)} for name, value in pairs.items() if value]


def _to_yaml(value: Any) -> str:
    """JSON that YAML reads as the same value: it knows no surrogate pairs, and no raw control characters."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return re.sub(r"[^ -~]", lambda m: f"\\U{ord(m[0]):08x}", text)


@functools.lru_cache(maxsize=4)
def _environment(templates_directory: str) -> jinja2.Environment:
    loaders: list[jinja2.BaseLoader] = [jinja2.PackageLoader("onnx_operator.controller.revision", "templates")]
    if templates_directory:
        loaders.insert(0, jinja2.FileSystemLoader(templates_directory))
    # The result is YAML, never HTML; strings go through tojson.
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701
    )
    environment.filters["tojson"] = _to_yaml
    return environment


def _variables(inputs: RenderInput) -> Mapping[str, Any]:
    settings, pool, name = inputs.settings, inputs.pool, inputs.name
    size = inputs.files.size_bytes + inputs.files.unpacked_bytes
    identity_labels, identity_annotations = identity_marks(inputs.spec, settings)
    gpu_pools = [p for p in settings.pools if p.runtime is Runtime.GPU]
    return {
        "name": name,
        "namespace": inputs.namespace,
        "labels": child_labels(name),
        "selector": selector_labels(name),
        "service_selector": service_selector(name),
        "pod_labels": child_labels(name) | selector_labels(name) | identity_labels,
        "pod_annotations": identity_annotations,
        "service_account_name": inputs.spec.service_account_name,
        "image": settings.image_of(pool),
        "server_image": (inputs.spec.scoring and inputs.spec.scoring.image) or settings.image_of(pool),
        "scoring": bool(inputs.scoring),
        "scoring_directory": names.SCORING_DIRECTORY,
        "requirements": [literal(f"--requirement={requirement}") for requirement in _requirements(inputs.spec)],
        "requirements_directory": names.REQUIREMENTS_DIRECTORY,
        "pip_env": _pip_env(settings),
        "test_data": bool(inputs.test_data),
        "test_data_directory": names.TEST_DATA_DIRECTORY,
        "test_data_volume_size": mebibytes(sum(f.size_bytes for f in inputs.test_data) * 1.05 + 4 * MEBIBYTE),
        "image_pull_policy": settings.image_pull_policy,
        "image_pull_secrets": [{"name": s} for s in settings.image_pull_secrets],
        "node_selector": pool.node_selector,
        "tolerations": [t.model_dump(by_alias=True, exclude_none=True) for t in pool.tolerations],
        "node_selector_terms": stay_off(gpu_pools) if pool.runtime is Runtime.CPU else [],
        "fetch_env": fetch_env(inputs.spec, inputs.files, settings, inputs.scoring, inputs.test_data),
        "server_args": _server_args(inputs),
        "resources": _resources(inputs),
        "model_directory": names.MODEL_DIRECTORY,
        "claim_name": claim_of(inputs.spec.model.uri),
        "source_directory": names.SOURCE_DIRECTORY,
        # A file is renamed when it is complete, not copied; the rest is room for the file system's own blocks.
        "model_volume_size": mebibytes(size * 1.05 + 16 * MEBIBYTE),
        "http_port": names.HTTP_PORT,
        "grpc_port": names.GRPC_PORT,
        "service_port": names.SERVICE_PORT,
        "start_deadline_seconds": START_DEADLINE_SECONDS,
        "progress_deadline_seconds": 600 + size // SLOWEST_DOWNLOAD_BYTES_PER_SECOND,
    }


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise PodTemplateRejectedError(f"{where}: must be a list of objects")


def _with_pod_template(deployment: Manifest, spec: OnnxModelSpec) -> Manifest:
    template = spec.pod_template
    if template is None:
        return deployment
    patch = template.model_dump(by_alias=True, exclude_none=True)
    pod_spec, where = patch.get("spec", {}), "spec.podTemplate.spec"
    taken = [names.VOLUME_MODEL, *([names.VOLUME_SOURCE] if claim_of(spec.model.uri) else [])]
    for volume in _objects(pod_spec.get("volumes"), f"{where}.volumes"):
        if volume.get("name") in taken:
            raise PodTemplateRejectedError(
                f"{where}.volumes: the volume {volume['name']!r} holds the model and cannot be changed; "
                "give your volume another name"
            )
    for group in ("containers", "initContainers"):
        for container in _objects(pod_spec.get(group), f"{where}.{group}"):
            for mount in _objects(container.get("volumeMounts"), f"{where}.{group}.volumeMounts"):
                path = posixpath.normpath(str(mount.get("mountPath")))
                if path == names.MODEL_DIRECTORY or path.startswith(names.MODEL_DIRECTORY + "/"):
                    raise PodTemplateRejectedError(
                        f"{where}.{group}: nothing else can be mounted at {names.MODEL_DIRECTORY}, "
                        "where the model is; choose another mountPath"
                    )
    merged = strategic_merge(deployment["spec"]["template"], patch)
    return {**deployment, "spec": {**deployment["spec"], "template": merged}}


def _manifest(environment: jinja2.Environment, file: str, kind: str, variables: Mapping[str, Any]) -> Manifest | None:
    try:
        manifest = yaml.load(environment.get_template(file).render(variables), _LOADER)  # noqa: S506 - a safe one
    except Exception as error:
        # Templates are code: whatever they raise is theirs.
        raise TemplateError(f"template {file}: {type(error).__name__}: {error}") from error
    if manifest is None and kind != "Deployment":
        return None
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        raise TemplateError(
            f"template {file}: it must give one {kind}" + ("" if kind == "Deployment" else ", or nothing")
        )
    metadata, spec = manifest.get("metadata"), manifest.get("spec")
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        raise TemplateError(f"template {file}: metadata and spec must be maps")
    if kind == "Deployment" and not isinstance(spec.get("template"), dict):
        raise TemplateError(f"template {file}: spec.template must be a map")
    name = metadata.get("name")
    if name != variables["name"]:
        raise TemplateError(
            f"template {file}: metadata.name must be the model's, {variables['name']!r}; it is {name!r}"
        )
    return manifest


def render(inputs: RenderInput) -> list[Manifest]:
    """The manifests of a revision: Deployment, Service, PodDisruptionBudget.

    Raises:
        PodTemplateRejectedError: ``spec.podTemplate`` touches what it must not.
        TooManyFilesError: the list of the model's files is too long for a pod's environment.
        TemplateError: a template of the platform team's is wrong.
    """
    environment, variables = _environment(inputs.settings.templates_directory), _variables(inputs)
    manifests = [m for kind, file in TEMPLATES.items() if (m := _manifest(environment, file, kind, variables))]
    return [_with_pod_template(m, inputs.spec) if m["kind"] == "Deployment" else m for m in manifests]


def render_one(settings: Settings, file: str, kind: str, variables: Mapping[str, Any]) -> Manifest:
    """The manifest that one template gives. Raises :class:`TemplateError`."""
    manifest = _manifest(_environment(settings.templates_directory), file, kind, variables)
    if manifest is None:
        raise TemplateError(f"template {file}: it must give one {kind}")
    return manifest


def uses_gpu(spec: OnnxModelSpec) -> bool:
    """Whether the model should run on a GPU at least in part."""
    return any(p in GPU_PROVIDERS for p in execution_providers(spec))
