"""The operator's settings: one typed file, written by the chart from Helm values."""

import ipaddress
import re
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from onnx_operator.api.onnxmodel import DnsSubdomain, Runtime
from onnx_operator.api.rollout import Steps
from onnx_operator.api.signatures import SignatureSettings
from onnx_operator.api.sources import (
    AzureSettings,
    GcsSettings,
    HttpsSettings,
    HuggingFaceSettings,
    MlflowSettings,
    OciSettings,
    S3Settings,
    SourceSettings,
)
from onnx_operator.controller.settings.base import SettingsModel
from onnx_operator.controller.settings.quantities import parse_quantity
from onnx_operator.controller.settings.selector import ModelSelector
from onnx_operator.controller.settings.validators import address, certificates, public_keys, registry
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.sources.hosts import parse_plain_http_hosts

MAX_REQUESTS_PER_SECOND = 1_000_000
MAX_CPUS = 1024
MAX_START_SECONDS = 7 * 24 * 3600


class SettingsError(Exception):
    """The settings file is missing or wrong; the message names the field, the value and what was expected."""


class Toleration(SettingsModel):
    """A Kubernetes toleration."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class PoolRollout(Steps, SettingsModel):
    """How updates move on a pool's nodes, as in ``spec.rollout``."""

    @model_validator(mode="after")
    def _moves(self) -> Self:
        if self.stands_still:
            raise ValueError("maxSurge and maxUnavailable must not both be 0: no pod could ever be replaced")
        return self


class Pool(SettingsModel):
    """Nodes of one kind, which the platform team offers to models."""

    name: DnsSubdomain = Field(description="the name that spec.nodePool of a model says")
    runtime: Runtime = Field(default=Runtime.CPU, description="whether its nodes have accelerators")
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels of its nodes")
    tolerations: list[Toleration] = Field(default_factory=list, description="taints of its nodes that pods tolerate")
    gpu_resource: str = Field(default="nvidia.com/gpu", description="extended resource that a GPU pod asks for")
    accelerator_memory: str = Field(default="", description="memory of one accelerator, as a quantity; empty: unknown")
    server_image: str = Field(default="", description="image of its pods; empty: the image of the settings")
    allowed_namespaces: list[str] = Field(
        default_factory=list, description="namespaces of models that may use it; empty: all"
    )
    requests_per_second: float | None = Field(
        default=None, gt=0, le=MAX_REQUESTS_PER_SECOND, description="in the place of resources.requestsPerSecond"
    )
    rollout: PoolRollout = Field(
        default_factory=PoolRollout, description="how updates move where spec.rollout does not say it"
    )

    @field_validator("accelerator_memory")
    @classmethod
    def _is_quantity(cls, value: str) -> str:
        if value:
            parse_quantity(value)
        return value

    @property
    def accelerator_memory_bytes(self) -> int | None:
        """Memory of one accelerator in bytes; None where unknown."""
        return int(parse_quantity(self.accelerator_memory)) if self.accelerator_memory else None

    def allows(self, namespace: str) -> bool:
        """Whether models of this namespace may use the pool."""
        return not self.allowed_namespaces or namespace in self.allowed_namespaces


class StrictHttpsSettings(HttpsSettings, SettingsModel):
    """``sources.https``, as the file holds it."""

    _checked = field_validator("ca_bundle")(certificates)

    @field_validator("plain_http_hosts")
    @classmethod
    def _are_hosts(cls, value: list[str]) -> list[str]:
        try:
            parse_plain_http_hosts(value)
        except ValueError as error:
            raise ValueError(f"must be hosts such as models.internal or 10.0.0.7:9000; {error}") from None
        return value


class StrictS3Settings(S3Settings, SettingsModel):
    """``sources.s3``, as the file holds it."""

    _checked = field_validator("ca_bundle")(certificates)
    _addressed = field_validator("endpoint")(address)


class StrictGcsSettings(GcsSettings, SettingsModel):
    """``sources.gs``, as the file holds it."""

    _checked = field_validator("ca_bundle")(certificates)
    _addressed = field_validator("endpoint")(address)


class StrictAzureSettings(AzureSettings, SettingsModel):
    """``sources.az``, as the file holds it."""

    _checked = field_validator("ca_bundle")(certificates)
    _addressed = field_validator("endpoint")(address)

    @field_validator("account")
    @classmethod
    def _is_account(cls, value: str) -> str:
        if value and not re.fullmatch(r"[a-z0-9]{3,24}", value):
            raise ValueError("must be the name of a storage account: 3 to 24 lower-case letters and digits")
        return value


class StrictOciSettings(OciSettings, SettingsModel):
    """``sources.oci``, as the file holds it."""

    _checked = field_validator("ca_bundle")(certificates)

    @field_validator("plain_http_registries")
    @classmethod
    def _are_registries(cls, value: list[str]) -> list[str]:
        return [registry(name) for name in value]


class StrictHuggingFaceSettings(HuggingFaceSettings, SettingsModel):
    """``sources.hf``, as the file holds it."""

    _checked = field_validator("ca_bundle")(certificates)
    _addressed = field_validator("endpoint")(address)

    @field_validator("endpoint")
    @classmethod
    def _is_given(cls, value: str) -> str:
        if not value:
            raise ValueError("must be the address of the hub, such as https://huggingface.co")
        return value


class StrictMlflowSettings(MlflowSettings, SettingsModel):
    """``sources.mlflow``, as the file holds it."""

    _checked = field_validator("ca_bundle")(certificates)
    _addressed = field_validator("tracking_uri")(address)


class StrictSignatureSettings(SignatureSettings, SettingsModel):
    """``signatures``, as the file holds it."""

    _checked = field_validator("certificate_authorities")(certificates)
    _keys = field_validator("public_keys")(public_keys)


class StrictSourceSettings(SourceSettings, SettingsModel):
    """``sources``, as the file holds it. Pods and the inspector, maybe of another version, read them leniently."""

    https: StrictHttpsSettings = Field(default_factory=StrictHttpsSettings)
    s3: StrictS3Settings = Field(default_factory=StrictS3Settings)
    gs: StrictGcsSettings = Field(default_factory=StrictGcsSettings)
    az: StrictAzureSettings = Field(default_factory=StrictAzureSettings)
    oci: StrictOciSettings = Field(default_factory=StrictOciSettings)
    hf: StrictHuggingFaceSettings = Field(default_factory=StrictHuggingFaceSettings)
    mlflow: StrictMlflowSettings = Field(default_factory=StrictMlflowSettings)

    @field_validator("allowed_networks")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        for network in value:
            ipaddress.ip_network(network, strict=False)
        return value


class InspectionSettings(SettingsModel):
    """How models are looked at."""

    max_model_bytes: int = Field(
        default=InspectionLimits.max_model_bytes, description="larger models are refused as TooLarge"
    )
    max_nodes: int = Field(
        default=InspectionLimits.max_nodes,
        ge=1,
        description="structures of more nodes are refused as TooLarge; those of local functions count at each call",
    )
    timeout_seconds: float = Field(
        default=InspectionLimits.timeout_seconds,
        description="longest inspection, from the moment at which it is its turn",
    )


class ResourceSettings(SettingsModel):
    """What pods ask for by themselves; ``spec.resources`` of a model wins. Holds for revisions made from now on."""

    requests_per_second: float = Field(
        default=10,
        gt=0,
        le=MAX_REQUESTS_PER_SECOND,
        description="requests that a pod should be able to answer in a second: it asks for as much CPU as these take",
    )
    max_cpu: str = Field(
        default="1", description="most CPU that a pod asks for by itself, as a quantity: a node must have room for it"
    )
    limits: Literal["WhenRequired", "Always"] = Field(
        default="WhenRequired",
        description="whether containers have limits of CPU and disk too: always, or where the namespace refused a pod "
        "for want of them; memory always has one",
    )
    ephemeral_storage: bool = Field(
        default=True,
        description="whether pods ask for the disk that the model takes; off for nodes that do not report theirs",
    )

    @field_validator("max_cpu")
    @classmethod
    def _is_cpu(cls, value: str) -> str:
        if not 0 < parse_quantity(value) <= MAX_CPUS:
            raise ValueError(f'must be a quantity of CPU above 0 and at most {MAX_CPUS}, such as "1" or "500m"')
        return value


class StartSettings(SettingsModel):
    """How long a pod may take to start. Holds for revisions made from now on."""

    deadline_seconds: int = Field(
        default=1800,
        ge=10,
        le=MAX_START_SECONDS,
        description="longest time from the server's start until the model is ready; then the kubelet starts it anew",
    )
    pull_allowance_seconds: int = Field(
        default=600,
        ge=0,
        le=MAX_START_SECONDS,
        description="time for what comes before that, but for the model's download: a node, images, a script's "
        "packages; a rollout without progress is given up after all three together",
    )


class PipSettings(SettingsModel):
    """Where the packages of scoring scripts come from."""

    index_url: str = Field(default="", description="a package index; empty: the public one")
    trusted_host: str = Field(default="", description="HOST:PORT of an index without a certificate that is trusted")


class EgressSettings(SettingsModel):
    """How pods and the inspector reach the outside; what it says is in each namespace, and read when it is needed."""

    config_map_name: DnsSubdomain | Literal[""] = Field(
        default="",
        description="ConfigMap in the operator's namespace with HTTP_PROXY, HTTPS_PROXY, NO_PROXY, PROXIED_HOSTS and "
        "ca.crt (PEM), each where it is needed, for the inspector; empty: none",
    )
    secret_name: DnsSubdomain | Literal[""] = Field(
        default="",
        description="Secret with such keys in the operator's namespace, for the inspector, and in those of models, for "
        "their pods, which read no ConfigMap; empty: none",
    )


class Settings(SettingsModel):
    """Everything that the platform team decides for all models."""

    server_image: str = Field(min_length=1)
    inspector_image: str = Field(
        default="",
        description="image of the short pods that look at what only a model's own pods can read (pvc, the identity of "
        "a service account); empty: such models are refused",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[str] = Field(default_factory=list)
    namespaces: list[str] = Field(default_factory=list, description="namespaces to watch; empty: all")
    model_selector: ModelSelector = Field(
        default_factory=ModelSelector,
        description="labels of the OnnxModels that this installation looks after; empty: all. Others are left alone, "
        "so that several installations share a cluster",
    )
    pools: list[Pool] = Field(default_factory=list)
    sources: StrictSourceSettings = Field(default_factory=StrictSourceSettings)
    signatures: StrictSignatureSettings = Field(
        default_factory=StrictSignatureSettings, description="whose signatures models carry (OpenSSF model signing)"
    )
    inspection: InspectionSettings = Field(default_factory=InspectionSettings)
    allow_scoring: bool = Field(default=True, description="whether models may bring scripts (spec.scoring)")
    allow_pod_template: bool = Field(
        default=True, description="whether models may change their pods (spec.podTemplate)"
    )
    allow_credentials: bool = Field(
        default=True,
        description="whether models may name Secrets with their store's keys (spec.model.credentials); without, the "
        "operator reads no Secret of theirs, and the chart grants it none",
    )
    allow_inspection_pods: bool = Field(
        default=True,
        description="whether short pods look at what only a model's own pods can read (pvc, the identity of a service "
        "account); without, such models are refused, and the chart grants no pod to be made",
    )
    hold_source_changes: list[str] = Field(
        default_factory=list,
        description="namespaces (patterns such as prod-*) whose models are not rolled out anew where only the bytes at "
        "their source have changed, unless spec.model.onChange says Follow",
    )
    page: bool = Field(default=False, description="whether pods serve a page to try the model at /")
    resources: ResourceSettings = Field(default_factory=ResourceSettings)
    start: StartSettings = Field(default_factory=StartSettings)
    pip: PipSettings = Field(default_factory=PipSettings)
    egress: EgressSettings = Field(
        default_factory=EgressSettings, description="proxies and private certificate authorities"
    )
    run_as_user: int | None = Field(
        default=65532,
        ge=1,
        description="user, group and group of volumes that pods run as; null leaves it to the platform, such as "
        "OpenShift's restricted-v2",
    )
    templates_directory: str = Field(default="", description="folder of templates that replace ours, by file name")
    workers: int = Field(default=8, ge=1, le=64, description="models reconciled at the same time")

    @model_validator(mode="after")
    def _unique_pools(self) -> "Settings":
        seen: set[str] = set()
        for pool in self.pools:
            if pool.name in seen:
                raise ValueError(f"pools: the name {pool.name!r} is used twice; give each pool its own name")
            seen.add(pool.name)
        return self

    def effective_pools(self) -> list[Pool]:
        """The pools, with one for CPU that covers all nodes where the settings define none."""
        if any(p.runtime is Runtime.CPU for p in self.pools):
            return self.pools
        return [Pool(name="cpu"), *self.pools]

    def image_of(self, pool: Pool) -> str:
        """The server image that a pool's pods run."""
        return pool.server_image or self.server_image


def parse_settings(document: Any) -> Settings:
    """Validate a decoded settings document.

    Raises:
        SettingsError: a field is missing, unknown or wrong.
    """
    try:
        return Settings.model_validate(document or {})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'settings'}: {e['msg']} (got {e['input']!r})"
            for e in error.errors()
        )
        raise SettingsError(f"the settings are wrong: {problems}") from None


def load_settings(path: Path) -> Settings:
    """Read the settings file.

    Raises:
        SettingsError: the file cannot be read, is no YAML, or holds a wrong field.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}") from error
    return parse_settings(document)
