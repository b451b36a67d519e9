"""The OnnxModel resource: spec and status as typed models, from which the CRD is generated.

Structure and CEL rules live here, so that the API server refuses a bad object at once and names the field.
Only ``replicas`` has a default (``/scale`` needs the field); every other default is applied when rendering.
"""

import math
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from onnx_operator.api.conditions import ConditionStatus
from onnx_operator.api.names import GROUP
from onnx_operator.api.origins import ORIGIN
from onnx_operator.api.report import ModelReport
from onnx_operator.api.rollout import PodCount
from onnx_operator.api.schemes import FOLDERS, SCHEMES, alternatives
from onnx_operator.api.sources import ApiModel, SourcePin
from onnx_operator.api.warm_up import FILLING, MAX_WARM_UP_INPUTS, Sizes, WarmUpInputs

MAX_REPLICAS = 1000
MAX_PROGRESS_SECONDS = 7 * 24 * 3600
ANY_INTERFACE = "Any"
"""What lets a version of any interface through."""


class Runtime(StrEnum):
    """Where a model runs."""

    CPU = "CPU"
    GPU = "GPU"


class ExecutionProvider(StrEnum):
    """Execution providers of ONNX Runtime that our server images may hold, in the field's short names."""

    CPU = "CPU"
    CUDA = "CUDA"
    TENSORRT = "TensorRT"

    @property
    def runtime_name(self) -> str:
        """The provider's name in ONNX Runtime (https://onnxruntime.ai/docs/execution-providers/)."""
        return "TensorrtExecutionProvider" if self is self.TENSORRT else f"{self.value}ExecutionProvider"


GPU_PROVIDERS = (ExecutionProvider.CUDA, ExecutionProvider.TENSORRT)


def _rule(rule: str, message: str) -> dict[str, Any]:
    return {"rule": rule, "message": message}


def _matches(patterns: list[str], message: str) -> dict[str, Any]:
    return _rule(f"self.matches(r'^({'|'.join(patterns)})$')", message)


def _validated(*rules: dict[str, Any], **schema: Any) -> dict[str, Any]:
    return {"x-kubernetes-validations": list(rules), **schema}


DnsSubdomain = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    ),
]


def _quantity(value: Any) -> Any:
    """A number as text: YAML makes one of 0.5 without quotes, and manifests of Deployments may hold it so."""
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("must be a quantity, such as 500m, 0.5 or 2Gi")
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else value


# A CRD has `x-kubernetes-int-or-string`, which takes no 0.5, and no type for text or any number. So the type is left
# open: texts must match, numbers must not be negative, and what is neither is refused by its value or size.
Quantity = Annotated[
    int | str,
    BeforeValidator(_quantity),
    WithJsonSchema(
        {
            "x-kubernetes-preserve-unknown-fields": True,
            "minimum": 0,
            "pattern": r"^\+?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?([0-9]+)))?$",
            "maxItems": 0,
            "maxProperties": 0,
            "not": {"enum": [True, False, [], {}, None]},
        }
    ),
]


class SpecModel(ApiModel):
    """Base of the spec: what this version does not know is ignored, so that a newer CRD never stops an operator."""

    model_config = ConfigDict(**(ApiModel.model_config | {"extra": "ignore"}))


class Credentials(SpecModel):
    """Keys to read the source with."""

    secret_name: DnsSubdomain = Field(
        description=(
            f'A Secret of the same namespace that carries the label {GROUP}/credentials: "true". Its keys are the '
            "store's standard variable names. "
            + " ".join(f"{scheme.name}: {scheme.holds}" for scheme in SCHEMES.values())
        )
    )


REQUIREMENT = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9._,-]+\])?==[A-Za-z0-9.!+_-]+$"
"""A pinned requirement (https://packaging.python.org/en/latest/specifications/version-specifiers/)."""
URI_FORMS = [scheme.pattern for scheme in SCHEMES.values()]
"""Regular expressions of the URIs that a model may have."""
_FORMS = [form for scheme in SCHEMES.values() for form in scheme.forms]
_FOLDER_FORMS = [scheme.folder for scheme in FOLDERS]


class ModelSource(SpecModel):
    """The desired model: where it is, and what it is called."""

    uri: str = Field(
        min_length=1,
        max_length=2048,
        description=(
            "Where the model is: an .onnx file, a .zip, .tar or .tar.gz that holds one, or a folder (a prefix of "
            f"object stores) with exactly one .onnx file and its external data. {alternatives(_FORMS)} (a claim of the "
            "same namespace)."
        ),
        json_schema_extra=_validated(
            _matches(
                URI_FORMS,
                f"must be {alternatives(_FORMS)}, without a user name, control characters, or spaces at an end (an "
                "address of the web: without any, and without a fragment), for example s3://models/resnet50.onnx",
            )
        ),
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^[a-f0-9]{64}$",
        description=(
            "Pins the file by its SHA-256 digest, 64 hex digits: the .onnx file, or the archive if the URI names one. "
            "A file with another digest is refused."
        ),
    )
    credentials: Credentials | None = None
    test_data: str | None = Field(
        default=None,
        min_length=1,
        max_length=2048,
        description=(
            "A folder with test inputs and the outputs that the model must give for them before it takes traffic: "
            "input_0.pb … and output_0.pb … as the ONNX Model Zoo has them, or folders test_data_set_0 … that "
            f"hold them. {alternatives([scheme.name for scheme in FOLDERS])}; read with the model's credentials."
        ),
        json_schema_extra=_validated(
            _matches(
                [scheme.pattern for scheme in FOLDERS],
                f"must be a folder: {alternatives(_FOLDER_FORMS)}, for example s3://models/resnet50/test_data_set_0",
            )
        ),
    )
    on_change: Literal["Follow", "Hold"] | None = Field(
        default=None,
        description=(
            "What is done where the source holds other bytes by now: Follow inspects them and rolls them out; Hold "
            "rolls out nothing until sha256 or the annotation refresh asks for them. Default: Hold in namespaces that "
            "the operator's settings name, else Follow."
        ),
    )
    version: str | None = Field(
        default=None, min_length=1, max_length=64, description="The model's version in your own words."
    )
    tags: dict[str, Annotated[str, Field(max_length=256)]] | None = Field(
        default=None,
        max_length=32,
        description="Written to annotations of the children.",
        json_schema_extra=_validated(
            _rule(
                "self.all(k, k.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
                "each key must be 1 to 63 letters, digits, '-', '_' or '.', and begin and end with a letter or digit",
            )
        ),
    )
    description: str | None = Field(default=None, max_length=1024)


class Session(SpecModel):
    """Options of the ONNX Runtime session."""

    execution_providers: list[ExecutionProvider] | None = Field(
        default=None,
        min_length=1,
        max_length=len(ExecutionProvider),
        description=(
            "In order of preference; the CPU is always the last resort. Default: CPU, or CUDA with runtime GPU."
        ),
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    intra_op_threads: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="Threads within an operator. Default: the container's CPU limit, else its CPU request, rounded up.",
    )
    inter_op_threads: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="Operators that run at the same time. Default: 1, one after the other.",
    )
    on_fallback: Literal["Serve", "Fail"] | None = Field(
        default=None,
        description=(
            "What a pod does when operators fall to the CPU although a GPU was asked for. Serve (default) serves and "
            "says so in the condition Accelerated; Fail does not become ready."
        ),
    )


class Batching(SpecModel):
    """How requests that arrive together run together."""

    max_batch_size: int | None = Field(
        default=None, ge=1, le=4096, description="Rows of one run; 1 runs each request alone. Default: 32."
    )
    max_delay_milliseconds: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="How long a request waits for others. Default: 0, which runs together what is waiting already.",
    )
    assume_independent_rows: bool | None = Field(
        default=None,
        description="Let requests share a run although status.model.batching is Unproven: you know that no row of a "
        "batch changes the answer to another.",
    )


# Taken as manifests on a disk write them, where YAML may read 1e3 as a text; WarmUpInputs is stricter.
_Number = Annotated[int | Annotated[float, Field(allow_inf_nan=False)], WithJsonSchema({"type": "number"})]
_ShortText = Annotated[str, Field(max_length=256)]


class WarmUp(SpecModel):
    """Inputs to warm the model up with, where they cannot be found from its graph and there is no test data."""

    shapes: dict[str, Sizes] | None = Field(
        default=None,
        max_length=MAX_WARM_UP_INPUTS,
        description="Sizes by the input's name, such as audio: [1, 16000].",
    )
    values: dict[str, Annotated[list[_Number], FILLING]] | None = Field(
        default=None,
        max_length=MAX_WARM_UP_INPUTS,
        description=(
            "Numbers (for truth values 0 and 1) by the input's name, which fill it in turn, again and again, such as "
            "speed: [1.0]."
        ),
    )
    texts: dict[str, Annotated[list[_ShortText], FILLING]] | None = Field(
        default=None,
        max_length=MAX_WARM_UP_INPUTS,
        description="Texts by the input's name, which fill it in turn, again and again, such as color: [red, green].",
    )

    def inputs(self) -> WarmUpInputs:
        """The same, as the server takes it."""
        return WarmUpInputs.model_validate(self.model_dump(exclude_none=True))


ENTRY_SCRIPT = r"^([A-Za-z0-9_][A-Za-z0-9_.-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*\.py$"
"""A Python file, or one in folders; none of them hidden, and none above."""


class Scoring(SpecModel):
    """An Azure ML style scoring script with init() and run(raw_data), which answers /score."""

    config_map_name: DnsSubdomain | None = Field(
        default=None,
        description=(
            f"A ConfigMap of the same namespace with score.py and the files that it reads, at most 64 KiB. Its content "
            f'is part of the revision; with the label {GROUP}/scoring: "true" a change is seen at once.'
        ),
    )
    script: str | None = Field(default=None, min_length=1, max_length=65536, description="The text of score.py.")
    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="A server image that holds the script and its packages, made by kubectl onnx package.",
    )
    entry_script: str | None = Field(
        default=None,
        max_length=256,
        pattern=ENTRY_SCRIPT,
        description="The script's path in the ConfigMap or image, such as src/score.py. Default: score.py, the only "
        "Python file, or the only score.py in the folders within.",
    )
    requirements: list[Annotated[str, Field(max_length=256, pattern=REQUIREMENT)]] | None = Field(
        default=None,
        max_length=64,
        description="Packages that are installed when a pod starts (for development), each as NAME==VERSION.",
    )


class Cors(SpecModel):
    """Web pages of other origins that may ask and read the answers, without cookies."""

    allow_origins: list[Annotated[str, Field(max_length=262, pattern=ORIGIN)]] = Field(
        min_length=1,
        max_length=64,
        description="Origins such as https://app.example.com, in small letters and without a path; * is any.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class Endpoint(SpecModel):
    """How callers reach the model."""

    cors: Cors | None = None


class Resources(SpecModel):
    """Resources of the server container. Default: derived from the model's weights and activations."""

    requests: dict[str, Quantity] | None = Field(
        default=None, max_length=32, description="Amounts by resource, such as cpu: 500m (or 0.5) and memory: 2Gi."
    )
    limits: dict[str, Quantity] | None = Field(default=None, max_length=32, description="As requests.")


_OWN_LABEL = f"k.startsWith('{GROUP}/')"


class PodTemplateMetadata(SpecModel):
    """Labels and annotations to add to the pods."""

    labels: dict[str, Annotated[str, Field(max_length=63)]] | None = Field(
        default=None,
        max_length=64,
        json_schema_extra=_validated(
            _rule(
                f"self.all(k, !{_OWN_LABEL})",
                f"labels of {GROUP}/ select the model's pods and cannot be set here",
            )
        ),
    )
    annotations: dict[str, Annotated[str, Field(max_length=65536)]] | None = Field(default=None, max_length=64)


class PodTemplate(SpecModel):
    """The last word on the pods: merged strategically over what was rendered."""

    metadata: PodTemplateMetadata | None = None
    spec: dict[str, Any] | None = Field(
        default=None,
        description=(
            "A PodSpec, or a part of one, merged as kubectl patch --type=strategic does; a volume or probe of another "
            "kind takes the place of ours. The containers are called server and fetch; the volume model cannot be "
            "changed."
        ),
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )


def _is_no_pod(field: str) -> str:
    return f"(has(self.{field}) && (type(self.{field}) == int ? self.{field} == 0 : self.{field} == '0%'))"


class Rollout(SpecModel):
    """How an update reaches the pods, and whether it stays. Nothing of it restarts a pod that serves."""

    max_surge: PodCount | None = Field(
        default=None,
        description="Pods that an update may run beside those that are wanted: a number, or a share of the replicas "
        "such as 25%. Default: what the pool says; else 1, or 25% of more than four replicas.",
    )
    max_unavailable: PodCount | None = Field(
        default=None,
        description="Pods that an update may take away before new ones are ready, as maxSurge. Default: what the pool "
        "says; else 0, or with maxSurge 0 what is the default there.",
    )
    progress_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=MAX_PROGRESS_SECONDS,
        description="After how long without progress an update counts as failed. Never less than a pod may take to "
        "pull its image, download the model and start, which is the default.",
    )
    auto_rollback: bool | None = Field(
        default=None,
        description=(
            "Whether the last good revision is applied again where an update fails by its own fault: it does not "
            "load, fails its test data, ends again and again, or needs more memory than its limit. Default: true."
        ),
    )
    accept_interface: str | None = Field(
        default=None,
        pattern=r"^(Any|[a-f0-9]{12})$",
        description="Lets a version through that would break callers of the one that serves: the hash of its inputs "
        "and outputs, as the condition Progressing and status.interface tell it, or Any. Until then it is held "
        "(InterfaceChanged).",
    )


class OnnxModelSpec(SpecModel):
    """What the user wants. Never written to by the operator."""

    model: ModelSource
    runtime: Literal["CPU", "GPU"] | None = Field(default=None, description="Where the model runs. Default: CPU.")
    node_pool: DnsSubdomain | None = Field(
        default=None,
        description="A pool that the platform team defined. Default: the best-fitting one for runtime and memory.",
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=MAX_REPLICAS,
        description=f"Pods to run, 0 to {MAX_REPLICAS}; also through /scale.",
    )
    resources: Resources | None = None
    session: Session | None = None
    batching: Batching | None = None
    warm_up: WarmUp | None = None
    scoring: Scoring | None = Field(
        default=None,
        json_schema_extra=_validated(
            _rule(
                "(has(self.configMapName) ? 1 : 0) + (has(self.script) ? 1 : 0) + (has(self.image) ? 1 : 0) == 1",
                "exactly one of configMapName, script and image says where the script is",
            ),
            _rule(
                "!has(self.entryScript) || !has(self.script)",
                "script is the whole script; entryScript names one in the ConfigMap or image",
            ),
            _rule(
                "!has(self.requirements) || !has(self.image)",
                "an image brings its own packages; requirements go with configMapName or script",
            ),
        ),
    )
    endpoint: Endpoint | None = None
    service_account_name: DnsSubdomain | None = Field(
        default=None,
        description="The pods' service account. Its token is not mounted unless podTemplate asks for it.",
    )
    pod_template: PodTemplate | None = None
    rollout: Rollout | None = Field(
        default=None,
        json_schema_extra=_validated(
            _rule(
                f"!({_is_no_pod('maxSurge')} && {_is_no_pod('maxUnavailable')})",
                "maxSurge and maxUnavailable must not both be 0: no pod could ever be replaced",
            )
        ),
    )
    suspend: bool | None = Field(default=None, description="Keep the object, run no pods.")

    @property
    def effective_runtime(self) -> Runtime:
        """``runtime`` with its default applied."""
        return Runtime(self.runtime or Runtime.CPU)


class Condition(ApiModel):
    """One condition, by KEP-1623."""

    type: str = Field(max_length=316)
    status: ConditionStatus
    reason: str = Field(max_length=128)
    message: str = Field(max_length=2048)
    last_transition_time: Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
    observed_generation: int = Field(ge=0)


class Serving(ApiModel):
    """The revision that takes traffic."""

    revision: str
    digest: str = Field(description="sha256:… of the model's file; empty where the whole of it was not read")
    version: str = ""
    interface: str = ""


class PodFailure(ApiModel):
    """Pods that fail for one cause."""

    reason: str
    message: str
    count: int
    pods: list[str] = Field(description="the first few names")


class Inspection(ApiModel):
    """What was last looked at; decides whether looking again is due."""

    key: str = Field(description="hash of uri, sha256, credentials, refresh and whose identity reads")
    outcome: Literal["Accepted", "Refused"]
    source: SourcePin | None = None


class Started(ApiModel):
    """Facts of a revision's first good start, as its server reported them."""

    revision: str
    execution_providers: list[str] = Field(max_length=8)
    fallback_operators: list[str] = Field(default_factory=list, max_length=64)
    fallback_causes: list[str] = Field(default_factory=list, max_length=8)
    resident_memory_bytes: int
    intra_op_threads: int | None = Field(default=None, description="threads within an operator, in each process")
    processes: int | None = Field(default=None, description="processes that answer")
    request_cpu_microseconds: int | None = Field(
        default=None,
        description="CPU time that a run of one row took at the warm-up; the CPU request of the next revision follows",
    )
    warmed: bool | None = Field(default=None, description="whether the model has answered an input before traffic")
    warm_up: str = Field(default="", description="where that input came from, or what was tried in vain")


class EffectiveResources(ApiModel):
    """What each pod of the newest revision asks for, and why."""

    requests: dict[str, str] = Field(default_factory=dict, description="of the server container")
    limits: dict[str, str] = Field(default_factory=dict, description="of the server container")
    cpu_from: str = Field(default="", description="what the CPU request follows from")
    limits_from: str = Field(default="", description="why containers have limits of more than memory")
    threads: int | None = Field(default=None, description="threads within an operator, once a pod has told")
    threads_from: str = Field(default="", description="what the number of threads follows from")


class OnnxModelStatus(ApiModel):
    """What is. At most 16 KiB; holds no heartbeat and no time but the conditions' transitions."""

    observed_generation: int | None = None
    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    url: str | None = None
    version: str | None = Field(
        default=None,
        description="Version or digest of the model that serves; until one does, of the one that is wanted.",
    )
    runtime: Runtime | None = Field(default=None, description="The runtime of the spec, with its default applied.")
    replicas: int | None = None
    ready_replicas: int | None = None
    selector: str | None = Field(default=None, description="Label selector of the pods, as /scale needs it.")
    interface: str | None = Field(default=None, description="Hash of the inputs and outputs.")
    inspection: Inspection | None = None
    model: ModelReport | None = None
    serving: Serving | None = None
    resources: EffectiveResources | None = None
    started: Started | None = None
    failures: list[PodFailure] | None = Field(default=None, json_schema_extra={"x-kubernetes-list-type": "atomic"})


ROOT_RULES = [
    _rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 52",
        "metadata.name must be a DNS-1035 label of at most 52 characters: lower case letters, digits and '-', "
        "beginning with a letter and ending with a letter or digit (the Service is called the same)",
    ),
]

SPEC_RULES = [
    {
        **_rule(
            "!has(self.session) || !has(self.session.executionProviders) "
            "|| (has(self.runtime) && self.runtime == 'GPU') "
            "|| self.session.executionProviders.all(p, p == 'CPU')",
            "a GPU execution provider (CUDA, TensorRT) needs runtime: GPU",
        ),
        "fieldPath": ".session.executionProviders",
    },
    {
        **_rule(
            "!has(self.session) || !has(self.session.onFallback) || self.session.onFallback != 'Fail' "
            "|| (has(self.runtime) && self.runtime == 'GPU')",
            "onFallback: Fail needs runtime: GPU; on the CPU nothing falls back",
        ),
        "fieldPath": ".session.onFallback",
    },
]
