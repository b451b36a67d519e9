"""The OnnxModel resource: spec and status as typed models, from which the CRD is generated.

Structure and CEL rules live here, so that the API server refuses a bad object at once and names the field.
Only ``replicas`` has a default (``/scale`` needs the field); every other default is applied when rendering.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from onnx_operator.api.conditions import ConditionStatus
from onnx_operator.api.names import GROUP
from onnx_operator.api.report import ModelReport
from onnx_operator.api.sources import ApiModel, SourcePin

MAX_REPLICAS = 1000


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

Quantity = Annotated[
    int | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": r"^\+?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?([0-9]+)))?$",
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
            "store's standard variable names. s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and optionally "
            "AWS_SESSION_TOKEN. gs: GOOGLE_SERVICE_ACCOUNT_KEY, the account's JSON key. az, abfss and addresses of "
            "Azure blobs: AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID "
            "and AZURE_CLIENT_SECRET; always with AZURE_STORAGE_ACCOUNT_NAME, the account that they are for. https: "
            "HTTPS_BEARER_TOKEN, or HTTPS_USERNAME and HTTPS_PASSWORD; always with HTTPS_HOSTS, the hosts that they "
            "may be sent to. oci: .dockerconfigjson, as Secrets that pull images have it. "
            "hf: HF_TOKEN. mlflow and models: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, and the keys of the store that holds the artifacts. pvc: none."
        )
    )


REQUIREMENT = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9._,-]+\])?==[A-Za-z0-9.!+_-]+$"
"""A pinned requirement (https://packaging.python.org/en/latest/specifications/version-specifiers/)."""
_REST = r"/[^#\s]+"
_CONTAINER = r"(\$root|\$web|[a-z0-9](-?[a-z0-9]){2,62})"
_LABEL = "[A-Za-z0-9][A-Za-z0-9._-]*"
URI_FORMS = (
    r"https://[^/?#@\s]+" + _REST,
    "s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]" + _REST,
    "gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]" + _REST,
    "az://" + _CONTAINER + _REST,
    "abfss://"
    + _CONTAINER
    + r"@[a-z0-9]{3,24}\.dfs\.core\.(windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)"
    + _REST,
    r"oci://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?/[a-z0-9]+([._/-]+[a-z0-9]+)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[a-f0-9]{64})?",
    "hf://" + _LABEL + "/" + _LABEL + r"(@[^/?#@\s]+)?(/[^#\s]*)?",
    "mlflow://[A-Za-z0-9][A-Za-z0-9_-]*" + _REST,
    r"models:/([^/:?#@\s]+(/([0-9]+|latest)|@[^/:?#@\s]+)|m-[0-9a-f]{32})",
    "pvc://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?" + _REST,
)
"""Regular expressions (RE2 and Python alike) of the URIs that may name a model, one for each kind of source."""
URI_MESSAGE = (
    "must be https://HOST/PATH, s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/PATH, "
    "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH, oci://REGISTRY/REPOSITORY (with :TAG or @sha256:DIGEST), "
    "hf://ORGANISATION/REPOSITORY (with @REVISION, /PATH), mlflow://RUN_ID/PATH, models:/NAME/VERSION, "
    "models:/NAME@ALIAS or pvc://CLAIM/PATH, without spaces, a user name or a fragment, "
    "for example s3://models/resnet50.onnx"
)


_FOLDER_SCHEMES = ("https", "s3", "gs", "az", "abfss", "hf")


class ModelSource(SpecModel):
    """The desired model: where it is, and what it is called."""

    uri: str = Field(
        min_length=1,
        max_length=2048,
        description=(
            "Where the model is: an .onnx file, a .zip, .tar or .tar.gz that holds one, or a folder (a prefix of "
            "object stores) with exactly one .onnx file and its external data. https://HOST/PATH, s3://BUCKET/KEY, "
            "gs://BUCKET/KEY, az://CONTAINER/PATH, abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH, "
            "oci://REGISTRY/REPOSITORY[:TAG|@sha256:DIGEST], hf://ORGANISATION/REPOSITORY[@REVISION][/PATH], "
            "mlflow://RUN_ID/PATH, models:/NAME/VERSION, models:/NAME@ALIAS, or pvc://CLAIM/PATH (a claim of the same "
            "namespace)."
        ),
        json_schema_extra=_validated(_rule(f"self.matches(r'^({'|'.join(URI_FORMS)})$')", URI_MESSAGE)),
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
            "A folder with recorded inputs and outputs that the model must reproduce before it takes traffic: "
            "input_0.pb … and output_0.pb … as the ONNX Model Zoo has them, or folders test_data_set_0 … that "
            "hold them. https, s3, gs, az, abfss or hf; read with the model's credentials."
        ),
        json_schema_extra=_validated(
            _rule(
                f"self.matches(r'^({'|'.join(f for f in URI_FORMS if f.partition(':')[0] in _FOLDER_SCHEMES)})$')",
                "must be a folder: https://HOST/PATH, s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/PATH, "
                "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH or hf://ORGANISATION/REPOSITORY/PATH, "
                "for example s3://models/resnet50/test_data_set_0",
            )
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
        default=None, ge=1, le=512, description="Threads within an operator. Default: the pod's CPU limit."
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
    requirements: list[Annotated[str, Field(max_length=256, pattern=REQUIREMENT)]] | None = Field(
        default=None,
        max_length=64,
        description="Packages that are installed when a pod starts (for development), each as NAME==VERSION.",
    )


class Resources(SpecModel):
    """Resources of the server container. Default: derived from the model's weights and activations."""

    requests: dict[str, Quantity] | None = Field(default=None, max_length=32)
    limits: dict[str, Quantity] | None = Field(default=None, max_length=32)


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
            "A PodSpec, or a part of one; lists merge by their Kubernetes merge key (containers by name …). The "
            "containers are called server and fetch; the volume model cannot be changed."
        ),
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
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
    scoring: Scoring | None = Field(
        default=None,
        json_schema_extra=_validated(
            _rule(
                "(has(self.configMapName) ? 1 : 0) + (has(self.script) ? 1 : 0) + (has(self.image) ? 1 : 0) == 1",
                "exactly one of configMapName, script and image says where the script is",
            ),
            _rule(
                "!has(self.requirements) || !has(self.image)",
                "an image brings its own packages; requirements go with configMapName or script",
            ),
        ),
    )
    service_account_name: DnsSubdomain | None = Field(
        default=None,
        description="The pods' service account. Its token is not mounted unless podTemplate asks for it.",
    )
    pod_template: PodTemplate | None = None
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


class OnnxModelStatus(ApiModel):
    """What is. At most 16 KiB; holds no heartbeat and no time but the conditions' transitions."""

    observed_generation: int | None = None
    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    url: str | None = None
    runtime: Runtime | None = Field(default=None, description="The runtime of the spec, with its default applied.")
    replicas: int | None = None
    ready_replicas: int | None = None
    selector: str | None = Field(default=None, description="Label selector of the pods, as /scale needs it.")
    interface: str | None = Field(default=None, description="Hash of the inputs and outputs.")
    inspection: Inspection | None = None
    model: ModelReport | None = None
    serving: Serving | None = None
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
