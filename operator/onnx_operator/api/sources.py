"""Where models come from, as settings and as facts: shared by inspection, the controller and ``fetch``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """Base of everything that is written as JSON or YAML: camelCase outside, snake_case inside."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, protected_namespaces=())


class SourcePin(ApiModel):
    """What ties later reads to the bytes that were inspected.

    ``Immutable``: a version id, digest or commit. ``Conditional``: a strong ETag, sent as ``If-Match``.
    ``None``: the store has neither, ``value`` is ``sha256:…`` of the bytes that were read.
    """

    kind: Literal["Immutable", "Conditional", "None"]
    value: str


LONGEST_CA_BUNDLE = 64 * 1024
"""Characters. It travels in one environment variable of the pods, of which Linux takes 128 KiB."""


class HttpsSettings(ApiModel):
    """Settings of ``https`` sources."""

    ca_bundle: str = Field(
        default="", max_length=LONGEST_CA_BUNDLE, description="PEM certificates trusted besides the system's"
    )


class S3Settings(ApiModel):
    """Settings of ``s3`` sources. The endpoint is the platform's choice, never the user's."""

    endpoint: str = Field(default="", description="URL of an S3-compatible store; empty: Amazon S3")
    region: str = "us-east-1"
    ca_bundle: str = Field(
        default="", max_length=LONGEST_CA_BUNDLE, description="PEM certificates trusted for the endpoint"
    )
    virtual_hosted_style: bool = Field(default=False, description="Address buckets as host names")


class SourceSettings(ApiModel):
    """How sources may be reached. Part of the operator's settings, handed to inspection and to ``fetch``."""

    allowed_networks: list[str] = Field(
        default_factory=list,
        description="CIDRs of private, loopback or link-local addresses that user-chosen URLs may reach",
    )
    https: HttpsSettings = Field(default_factory=HttpsSettings)
    s3: S3Settings = Field(default_factory=S3Settings)
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = Field(default=10.0, description="Longest silence in the middle of a read")

    def for_scheme(self, scheme: str) -> "SourceSettings":
        """These settings with the defaults for all stores but the one of this URI scheme."""
        unused = {"https": HttpsSettings(), "s3": S3Settings()}
        unused.pop(scheme, None)
        return self.model_copy(update=unused)
