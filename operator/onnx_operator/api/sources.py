"""Where models come from, as settings and as facts: shared by inspection, the controller and ``fetch``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from onnx_operator.api.schemes import SCHEMES, STORES


class ApiModel(BaseModel):
    """Base of everything that is written as JSON or YAML: camelCase outside, snake_case inside."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, protected_namespaces=(), defer_build=True
    )


class SourcePin(ApiModel):
    """What ties later reads to the bytes that were inspected.

    ``Immutable``: a version id, digest or commit. ``Conditional``: a strong ETag, sent as ``If-Match``.
    ``None``: the store has neither, ``value`` is ``sha256:…`` of the bytes that were read.
    """

    kind: Literal["Immutable", "Conditional", "None"]
    value: str


MAX_CA_BUNDLE_LENGTH = 64 * 1024
"""Characters. It travels in one environment variable of the pods, of which Linux takes 128 KiB."""


class HttpsSettings(ApiModel):
    """Settings of ``https`` sources, and of ``http`` ones."""

    plain_http_hosts: list[str] = Field(
        default_factory=list, description="HOST or HOST:PORT of servers that http:// URIs may lead to, without TLS"
    )
    ca_bundle: str = Field(
        default="", max_length=MAX_CA_BUNDLE_LENGTH, description="PEM certificates trusted besides the system's"
    )


class S3Settings(ApiModel):
    """Settings of ``s3`` sources. The endpoint is the platform's choice, never the user's."""

    endpoint: str = Field(default="", description="URL of an S3-compatible store; empty: Amazon S3")
    region: str = "us-east-1"
    ca_bundle: str = Field(
        default="", max_length=MAX_CA_BUNDLE_LENGTH, description="PEM certificates trusted for the endpoint"
    )
    virtual_hosted_style: bool = Field(default=False, description="Address buckets as host names")


class GcsSettings(ApiModel):
    """Settings of ``gs`` sources."""

    endpoint: str = Field(default="", description="URL of a compatible store; empty: Google Cloud Storage")
    ca_bundle: str = Field(
        default="", max_length=MAX_CA_BUNDLE_LENGTH, description="PEM certificates trusted for the endpoint"
    )


class AzureSettings(ApiModel):
    """Settings of ``az`` and ``abfss`` sources, and of the addresses of Azure blobs."""

    account: str = Field(default="", description="storage account of az:// URIs, which name none")
    endpoint: str = Field(
        default="",
        description="URL of a compatible store, in front of the account's name as Azurite has it; empty: Azure",
    )
    ca_bundle: str = Field(
        default="", max_length=MAX_CA_BUNDLE_LENGTH, description="PEM certificates trusted for the endpoint"
    )


class OciSettings(ApiModel):
    """Settings of ``oci`` sources."""

    plain_http_registries: list[str] = Field(
        default_factory=list, description="HOST:PORT of registries that are asked without TLS"
    )
    ca_bundle: str = Field(
        default="", max_length=MAX_CA_BUNDLE_LENGTH, description="PEM certificates trusted besides the system's"
    )


class HuggingFaceSettings(ApiModel):
    """Settings of ``hf`` sources."""

    endpoint: str = Field(default="https://huggingface.co", description="URL of the hub, or of a mirror")
    ca_bundle: str = Field(
        default="", max_length=MAX_CA_BUNDLE_LENGTH, description="PEM certificates trusted besides the system's"
    )


class MlflowSettings(ApiModel):
    """Settings of ``mlflow`` and ``models:`` sources."""

    tracking_uri: str = Field(default="", description="URL of the MLflow tracking server; empty: there is none")
    ca_bundle: str = Field(
        default="", max_length=MAX_CA_BUNDLE_LENGTH, description="PEM certificates trusted besides the system's"
    )


class SourceSettings(ApiModel):
    """How sources may be reached. Part of the operator's settings, handed to inspection and to ``fetch``."""

    allowed_networks: list[str] = Field(
        default_factory=list,
        description="CIDRs of private, loopback or link-local addresses that user-chosen URLs may reach",
    )
    use_operator_identity: bool = Field(
        default=False,
        description="Whether models without credentials are read with the operator's own cloud identity",
    )
    https: HttpsSettings = Field(default_factory=HttpsSettings)
    s3: S3Settings = Field(default_factory=S3Settings)
    gs: GcsSettings = Field(default_factory=GcsSettings)
    az: AzureSettings = Field(default_factory=AzureSettings)
    oci: OciSettings = Field(default_factory=OciSettings)
    hf: HuggingFaceSettings = Field(default_factory=HuggingFaceSettings)
    mlflow: MlflowSettings = Field(default_factory=MlflowSettings)
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = Field(default=10.0, description="Longest silence in the middle of a read")

    def for_schemes(self, *schemes: str) -> "SourceSettings":
        """These settings with the defaults for all stores but those that a URI of these schemes may lead to."""
        used = {name for scheme in schemes if scheme in SCHEMES for name in SCHEMES[scheme].settings}
        return self.model_copy(update={name: type(getattr(self, name))() for name in STORES if name not in used})


class SourceFile(ApiModel):
    """One file of a source, exactly as it was inspected."""

    name: str = Field(description="relative to the folder that the URI leads to, with / between its parts")
    pin: SourcePin
    size_bytes: int
    sha256: str = Field(default="", description="hex digest that the bytes must have; empty: the pin alone ties them")
    claimed: bool = Field(
        default=False,
        description="whether sha256 is what the spec or a signature says, not what was read or the store vouches for",
    )


class ModelFiles(ApiModel):
    """The files that a model consists of, and where the model is among them."""

    files: list[SourceFile]
    archive: bool = Field(default=False, description="whether the one file is an archive, to be unpacked")
    model: str = Field(description="path of the .onnx file: a file's name, or the path within the archive")
    unpacked_bytes: int = Field(default=0, description="bytes of all that an archive holds")
    folders: list[str] = Field(
        default_factory=list,
        description="folders that must be there: ONNX Runtime follows paths such as weights/../w.bin through them",
        # What pods are made of has the same digest as before where there are none.
        exclude_if=lambda folders: not folders,
    )

    @property
    def size_bytes(self) -> int:
        """Bytes to be fetched."""
        return sum(file.size_bytes for file in self.files)
