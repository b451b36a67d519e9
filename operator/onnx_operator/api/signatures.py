"""Signatures of models: whom the platform team trusts, and what a verified signature says."""

from typing import Self

from pydantic import ConfigDict, Field, model_validator

from onnx_operator.api.sources import ApiModel

MAX_PEM_LENGTH = 64 * 1024
"""Characters of one setting that holds keys or certificates."""


class SignatureSettings(ApiModel):
    """Whose signatures count. A model is as good when one of the keys or one of the authorities stands for it."""

    required: bool = Field(default=False, description="Refuse models without a signature that is trusted here")
    public_keys: str = Field(
        default="",
        max_length=MAX_PEM_LENGTH,
        description="PEM public keys (elliptic curve), one after another; each may sign",
    )
    certificate_authorities: str = Field(
        default="",
        max_length=MAX_PEM_LENGTH,
        description="PEM certificates of the authorities that certify signers: the root, and intermediates if any",
    )
    certificate_subjects: list[str] = Field(
        default_factory=list,
        description="Names (RFC 4514, as CN=ml-release,O=Example) that may sign by certificate; empty: all that the"
        " authorities certify for signing",
    )

    @model_validator(mode="after")
    def _names_a_signer(self) -> Self:
        if self.required and not self.public_keys.strip() and not self.certificate_authorities.strip():
            raise ValueError(
                "required is true, but nobody is trusted: give PEM public keys as publicKeys, or certificates of"
                " authorities as certificateAuthorities"
            )
        return self


class SignedManifest(ApiModel):
    """What a verified signature says: who signed, and the sha256 of every file that was signed."""

    model_config = ConfigDict(**(ApiModel.model_config | {"frozen": True}))

    signer: str = Field(description="fingerprint of the key, or subject of the certificate")
    digests: dict[str, str] = Field(
        description="lower-case hex by the file's path relative to what was signed; '.' is a file signed by itself"
    )

    @property
    def single_file(self) -> bool:
        """Whether a file was signed by itself, whatever its name, rather than the files of a folder."""
        return self.digests.keys() == {"."}
