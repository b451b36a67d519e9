"""Rendering: from the spec, the inspection and the settings to the manifests of a revision. Pure.

The templates beside this file are the platform team's to replace, one by one (``templatesDirectory``). The result
holds what the operator owns, and nothing that belongs to one moment: replicas, tags and the owner are added when
the revision is applied.
"""

import functools
import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jinja2
import yaml

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import GPU_PROVIDERS, OnnxModelSpec, Runtime
from onnx_operator.api.report import ModelReport
from onnx_operator.api.schemes import claim_of
from onnx_operator.api.serving import Places, execution_providers, serve_arguments
from onnx_operator.api.sources import ModelFiles, SourceFile
from onnx_operator.common.egress import DIRECTORY as EGRESS_DIRECTORY
from onnx_operator.controller.observation.admission import Demands
from onnx_operator.controller.revision.fetching import escape_dollars, fetch_env, identity_marks
from onnx_operator.controller.revision.merge import strategic_merge
from onnx_operator.controller.revision.pools import avoid_pools
from onnx_operator.controller.revision.resources import Containers, Needs, Storage, containers
from onnx_operator.controller.revision.scoring import script_path
from onnx_operator.controller.revision.warm_up import Kept, check_warm_up
from onnx_operator.controller.settings.quantities import MEBIBYTE, mebibytes
from onnx_operator.controller.settings.settings import MAX_START_SECONDS, Pool, Settings
from onnx_operator.model.refusal import RefusedError

TEMPLATES = {
    "Deployment": "deployment.yaml.j2",
    "Service": "service.yaml.j2",
    "PodDisruptionBudget": "poddisruptionbudget.yaml.j2",
}
PROBE_SLACK_SECONDS = 15
"""The kubelet gives what waits for the start so much longer than it waits by itself, to hear what it has to say."""
TMP_VOLUME_BYTES = 64 * MEBIBYTE
REQUIREMENTS_VOLUME_BYTES = 2048 * MEBIBYTE
"""Of packages, and of the folder that they are built in."""
LOG_BYTES = 16 * MEBIBYTE
MAX_LOG_BYTES = 64 * MEBIBYTE
"""The kubelet keeps 50 MiB of a container's log."""
_CPU_REQUEST = {
    "name": names.ENV_CPU_REQUEST,
    "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}},
}
"""What the container really asks for, whoever changed it on the way: its threads follow from that."""
SLOWEST_DOWNLOAD_BYTES_PER_SECOND = 5 * MEBIBYTE
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Manifest = dict[str, Any]


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
    demands: Demands | None = None
    """What the namespace was found to demand of containers."""


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


def pod_resources(inputs: RenderInput) -> Containers:
    """What each container of the pods asks for."""
    kept = inputs.kept or Kept()
    return containers(
        Needs(
            report=inputs.report,
            pool=inputs.pool,
            settings=inputs.settings.resources,
            given=inputs.spec.resources,
            storage=_storage(inputs),
            measured_seconds=kept.request_cpu_seconds,
            demands=inputs.demands,
        )
    )


def _model_volume(inputs: RenderInput) -> int:
    # A file is renamed when it is complete, not copied; the rest is room for the file system's own blocks.
    return int((inputs.files.size_bytes + inputs.files.unpacked_bytes) * 1.05) + 16 * MEBIBYTE


def _test_data_volume(inputs: RenderInput) -> int:
    return int(sum(f.size_bytes for f in inputs.test_data) * 1.05) + 4 * MEBIBYTE if inputs.test_data else 0


def _storage(inputs: RenderInput) -> Storage:
    """What the volumes take on the node's disk, logs included."""
    filled = _model_volume(inputs) + _test_data_volume(inputs)
    if _requirements(inputs.spec):
        packages = REQUIREMENTS_VOLUME_BYTES
        return Storage(filled + packages // 4 + LOG_BYTES, filled + 2 * packages + 2 * MAX_LOG_BYTES)
    return Storage(filled + LOG_BYTES, filled + TMP_VOLUME_BYTES + 2 * MAX_LOG_BYTES)


def _before_start_seconds(inputs: RenderInput) -> int:
    """What may pass from a pod's creation until its server starts."""
    size = inputs.files.size_bytes + inputs.files.unpacked_bytes
    return inputs.settings.start.pull_allowance_seconds + size // SLOWEST_DOWNLOAD_BYTES_PER_SECOND


def _server_args(inputs: RenderInput) -> list[str]:
    kept = inputs.kept or Kept()
    check_warm_up(inputs.spec, inputs.report)
    places = Places(
        script=script_path(inputs.spec),
        requirements=names.REQUIREMENTS_DIRECTORY if _requirements(inputs.spec) else "",
        test_data=names.TEST_DATA_DIRECTORY if inputs.test_data else "",
    )
    args = [
        f"--model={names.MODEL_DIRECTORY}/{inputs.files.model}",
        f"--name={inputs.name}",
        f"--port={names.HTTP_PORT}",
        f"--grpc-port={names.GRPC_PORT}",
        f"--state-directory={names.STATE_DIRECTORY}",
        *serve_arguments(inputs.spec, places),
    ]
    if kept.inputs:
        args.append(f"--kept-inputs={kept.inputs.to_text()}")
    if kept.required:
        args.append("--require-warm-up")
    if inputs.settings.page:
        args.append("--page")
    return ["serve", *map(escape_dollars, args)]


def _requirements(spec: OnnxModelSpec) -> list[str]:
    return (spec.scoring.requirements or []) if spec.scoring else []


def _pip_env(settings: Settings) -> list[dict[str, str]]:
    pairs = {"PIP_INDEX_URL": settings.pip.index_url, "PIP_TRUSTED_HOST": settings.pip.trusted_host}
    return [{"name": name, "value": escape_dollars(value)} for name, value in pairs.items() if value]


def egress_sources(settings: Settings) -> list[dict[str, Any]]:
    """What a volume with the proxies and authorities of a model's pods consists of, as it is when a pod starts.

    Of a Secret alone: whoever may write ConfigMaps in the namespace, and no more, would otherwise have the pods believe
    an authority of theirs and read the store's keys that the pods send.
    """
    name = settings.egress.secret_name
    return [{"secret": {"name": name, "optional": True}}] if name else []


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
    resources = pod_resources(inputs)
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
        "requirements": [escape_dollars(f"--requirement={requirement}") for requirement in _requirements(inputs.spec)],
        "requirements_directory": names.REQUIREMENTS_DIRECTORY,
        "pip_env": _pip_env(settings),
        "run_as_user": settings.run_as_user,
        "egress": egress_sources(settings),
        "egress_directory": EGRESS_DIRECTORY,
        "test_data": bool(inputs.test_data),
        "test_data_directory": names.TEST_DATA_DIRECTORY,
        "test_data_volume_size": mebibytes(_test_data_volume(inputs)),
        "image_pull_policy": settings.image_pull_policy,
        "image_pull_secrets": [{"name": s} for s in settings.image_pull_secrets],
        "node_selector": pool.node_selector,
        "tolerations": [t.model_dump(by_alias=True, exclude_none=True) for t in pool.tolerations],
        "node_selector_terms": avoid_pools(gpu_pools) if pool.runtime is Runtime.CPU else [],
        "fetch_env": [
            *fetch_env(inputs.spec, inputs.files, settings, inputs.scoring, inputs.test_data),
            _CPU_REQUEST,
        ],
        "server_args": _server_args(inputs),
        "resources": resources.server,
        "fetch_resources": resources.fetch,
        "requirements_resources": resources.requirements,
        "server_env": [_CPU_REQUEST],
        "model_directory": names.MODEL_DIRECTORY,
        "claim_name": claim_of(inputs.spec.model.uri),
        "source_directory": names.SOURCE_DIRECTORY,
        "model_volume_size": mebibytes(_model_volume(inputs)),
        "tmp_volume_size": mebibytes(REQUIREMENTS_VOLUME_BYTES if _requirements(inputs.spec) else TMP_VOLUME_BYTES),
        "requirements_volume_size": mebibytes(REQUIREMENTS_VOLUME_BYTES),
        "http_port": names.HTTP_PORT,
        "grpc_port": names.GRPC_PORT,
        "service_port": names.SERVICE_PORT,
        "start_deadline_seconds": settings.start.deadline_seconds,
        "start_probe_seconds": settings.start.deadline_seconds + PROBE_SLACK_SECONDS,
        "progress_deadline_seconds": _before_start_seconds(inputs)
        + settings.start.deadline_seconds
        + PROBE_SLACK_SECONDS,
    }


def _refused(message: str) -> RefusedError:
    return RefusedError(Reason.POD_TEMPLATE_REJECTED, message)


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise _refused(f"{where}: must be a list of objects")


def _mounts(container: Manifest | None) -> set[tuple[Any, Any]]:
    """Where a container has the model."""
    mounts = (container or {}).get("volumeMounts")
    return {
        (mount.get("name"), mount.get("mountPath"))
        for mount in (mounts if isinstance(mounts, list) else [])
        if isinstance(mount, dict) and mount.get("name") in (names.VOLUME_MODEL, names.VOLUME_SOURCE)
    }


def _check_kept(rendered: Manifest, merged: Manifest, where: str) -> None:
    """See that nothing is taken away that a model cannot be served without."""
    for group in ("volumes", "containers", "initContainers"):
        found = {str(item.get("name")): item for item in _objects(merged.get(group), f"{where}.{group}")}
        for ours in (item for item in rendered.get(group) or [] if isinstance(item, dict)):
            name = str(ours.get("name"))
            if group == "volumes" and name in (names.VOLUME_MODEL, names.VOLUME_SOURCE) and found.get(name) != ours:
                raise _refused(f"{where}.volumes: the volume {name!r} holds the model and cannot be taken away")
            if group != "volumes" and not _mounts(ours) <= _mounts(found.get(name)):
                raise _refused(
                    f"{where}.{group}: the container {name!r} and where it has the model cannot be taken away"
                )


def _with_pod_template(deployment: Manifest, spec: OnnxModelSpec) -> Manifest:
    template = spec.pod_template
    if template is None:
        return deployment
    patch = template.model_dump(by_alias=True, exclude_none=True)
    pod_spec, where = patch.get("spec", {}), "spec.podTemplate.spec"
    for group in ("volumes", "containers", "initContainers"):
        for item in _objects(pod_spec.get(group), f"{where}.{group}"):
            if not isinstance(item.get("name"), str) and item != {"$patch": "replace"}:
                raise _refused(f"{where}.{group}: each must have a name, by which it is merged")
    taken = [names.VOLUME_MODEL, *([names.VOLUME_SOURCE] if claim_of(spec.model.uri) else [])]
    for volume in _objects(pod_spec.get("volumes"), f"{where}.volumes"):
        if volume.get("name") in taken:
            raise _refused(
                f"{where}.volumes: the volume {volume['name']!r} holds the model and cannot be changed; "
                "give your volume another name"
            )
    for group in ("containers", "initContainers"):
        for container in _objects(pod_spec.get(group), f"{where}.{group}"):
            for mount in _objects(container.get("volumeMounts"), f"{where}.{group}.volumeMounts"):
                path = posixpath.normpath(str(mount.get("mountPath")))
                if path == names.MODEL_DIRECTORY or path.startswith(names.MODEL_DIRECTORY + "/"):
                    raise _refused(
                        f"{where}.{group}: nothing else can be mounted at {names.MODEL_DIRECTORY}, "
                        "where the model is; choose another mountPath"
                    )
    rendered = deployment["spec"]["template"]
    merged = strategic_merge(rendered, patch)
    _check_kept(rendered.get("spec") or {}, merged.get("spec") or {}, where)
    return {**deployment, "spec": {**deployment["spec"], "template": merged}}


def _start_seconds(deployment: Manifest) -> int:
    """How long the server's startup probe lets it start at most; 0 where that is nothing that the API server takes."""
    pod = deployment["spec"]["template"].get("spec")
    containers = pod.get("containers") if isinstance(pod, dict) else None
    named = [c for c in containers or [] if isinstance(c, dict) and c.get("name") == names.CONTAINER_SERVER]
    probe = named[0].get("startupProbe") if named else None
    if not isinstance(probe, dict):
        return 0
    delay, failures, period, timeout = (
        probe.get(field, default)
        for field, default in (
            ("initialDelaySeconds", 0),
            ("failureThreshold", 3),
            ("periodSeconds", 10),
            ("timeoutSeconds", 1),
        )
    )
    if not all(type(each) is int and 0 <= each <= MAX_START_SECONDS for each in (delay, failures, period, timeout)):
        return 0
    seconds: int = delay + failures * max(period, timeout)
    return min(MAX_START_SECONDS, seconds)


def _with_patience(deployment: Manifest, inputs: RenderInput) -> Manifest:
    """The Deployment, given up no earlier than its pods may take to start, whatever ``spec.podTemplate`` says of it."""
    spec = deployment["spec"]
    least, given = _before_start_seconds(inputs) + _start_seconds(deployment), spec.get("progressDeadlineSeconds")
    if inputs.spec.pod_template is None or type(given) is not int or given >= least:
        return deployment
    return {**deployment, "spec": {**spec, "progressDeadlineSeconds": least}}


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
        RefusedError: ``PodTemplateRejected``, ``spec.podTemplate`` touches what it must not, or ``spec.warmUp`` is
            nothing that the model takes; ``TooLarge``, the list of the model's files is too long for a pod's
            environment.
        TemplateError: a template of the platform team's is wrong.
    """
    environment, variables = _environment(inputs.settings.templates_directory), _variables(inputs)
    manifests = [m for kind, file in TEMPLATES.items() if (m := _manifest(environment, file, kind, variables))]
    return [
        _with_patience(_with_pod_template(m, inputs.spec), inputs) if m["kind"] == "Deployment" else m
        for m in manifests
    ]


def render_one(settings: Settings, file: str, kind: str, variables: Mapping[str, Any]) -> Manifest:
    """The manifest that one template gives. Raises :class:`TemplateError`."""
    manifest = _manifest(_environment(settings.templates_directory), file, kind, variables)
    if manifest is None:
        raise TemplateError(f"template {file}: it must give one {kind}")
    return manifest


def uses_gpu(spec: OnnxModelSpec) -> bool:
    """Whether the model should run on a GPU at least in part."""
    return any(p in GPU_PROVIDERS for p in execution_providers(spec))
