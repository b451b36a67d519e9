"""What the documents of a registry say: references, indexes, manifests."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from onnx_operator.api.conditions import Reason
from onnx_operator.model.sources.base import SourceError, check_name
from onnx_operator.model.sources.web.documents import Document, Text, decode

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_EMPTY = "application/vnd.oci.empty.v1+json"
_MAX_LAYERS = 1000
_REGISTRY = re.compile(r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True)
class Reference:
    """``REGISTRY/REPOSITORY`` with a tag or a digest."""

    registry: str
    """As the URI writes it: the name that credentials are kept under."""
    repository: str
    version: str
    """Tag or digest."""

    @property
    def host(self) -> str:
        """Where the registry answers, with its port: Docker Hub does so under another name than its own."""
        return "registry-1.docker.io" if self.registry in _DOCKER_HUB else self.registry

    @property
    def names(self) -> frozenset[str]:
        """All names of the registry."""
        return _DOCKER_HUB if self.registry in _DOCKER_HUB else frozenset({self.registry})


@dataclass(frozen=True)
class Blob:
    """One layer."""

    digest: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """Files of an artifact or of an image by their names, in the manifest's order."""

    blobs: Mapping[str, Blob]
    image: bool
    """Whether the files are an image's layers."""


class _Annotations(Document):
    title: Text = Field(default="", alias="org.opencontainers.image.title")
    unpack: Text = Field(default="", alias="io.deis.oras.content.unpack")
    attests: Text = Field(default="", alias="vnd.docker.reference.type")


class _Platform(Document):
    os: Text = ""
    architecture: Text = ""


class _Part(Document):
    media_type: Text = Field(default="", alias="mediaType")
    digest: Text = ""
    size: Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)] | None = None
    annotations: _Annotations | None = None
    platform: _Platform | None = None

    @property
    def title(self) -> str:
        return self.annotations.title if self.annotations else ""

    @property
    def shown_platform(self) -> str:
        return f"{self.platform.os or None}/{self.platform.architecture or None}"[:64] if self.platform else ""


_Parts = Annotated[list[_Part], Field(max_length=_MAX_LAYERS, fail_fast=True)]


class RegistryDocument(Document):
    """A manifest or an index, as far as it counts."""

    manifests: _Parts | None = None
    layers: _Parts | None = None


def is_digest(text: str) -> bool:
    """Tell whether this is a sha256 digest, as registries write it."""
    return _DIGEST.fullmatch(text) is not None


def parse_reference(uri: str) -> Reference:
    """Read ``oci://REGISTRY/REPOSITORY[:TAG|@DIGEST]``; the tag is ``latest`` where none is given.

    Raises :class:`SourceError` (``SourceRefused``).
    """
    registry, _, rest = uri.partition("://")[2].partition("/")
    name, _, digest = rest.partition("@")
    repository, _, tag = name.partition(":")
    if registry in _DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    wrong = ""
    port = registry.rpartition("]")[2].partition(":")[2]
    if not _REGISTRY.fullmatch(registry) or int(port or 1) > 65535:
        wrong = "the registry is not HOST or HOST:PORT"
    elif not _REPOSITORY.fullmatch(repository) or len(repository) > 255:
        wrong = "the repository is not made of lower-case parts between slashes"
    elif ":" in name and not _TAG.fullmatch(tag):
        wrong = "the tag is not one that a registry can have"
    elif "@" in rest and not is_digest(digest):
        wrong = "the digest is not sha256: and 64 hexadecimal digits"
    if wrong:
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"The model's URI is not oci://REGISTRY/REPOSITORY, with :TAG or @sha256:DIGEST behind it: {wrong}.",
        )
    return Reference(registry, repository, digest or tag or "latest")


def read_document(body: bytes, shown: str) -> RegistryDocument:
    """Read a manifest or an index; of several values of one name the last counts. Raises :class:`SourceError`."""
    return decode(RegistryDocument, body, shown, f"{shown} has a malformed manifest")


def chosen_manifest(document: RegistryDocument, shown: str) -> str | None:
    """Give the digest of the manifest that an index stands for; None where the document is no index.

    Of several platforms linux/amd64 is taken: a model is the same on all. Raises :class:`SourceError`.
    """
    if document.manifests is None:
        return None
    entries = [each for each in document.manifests if not _is_attestation(each)]
    platforms = [each.shown_platform for each in entries]
    if "linux/amd64" in platforms:
        entry = entries[platforms.index("linux/amd64")]
    elif len(entries) == 1:
        entry = entries[0]
    else:
        few = ", ".join(each or "none" for each in platforms[:8]) or "nothing"
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{shown} is an index of {len(entries)} manifests ({few}), of which none is for linux/amd64; give the"
            " digest of one.",
        )
    return _blob(entry, shown).digest


def read_manifest(document: RegistryDocument, shown: str) -> Manifest:
    """Name the files of a manifest. Raises :class:`SourceError`."""
    if document.layers is None:
        raise SourceError(
            Reason.SOURCE_REFUSED, f"{shown} is neither an OCI artifact nor an image: its manifest has no layers."
        )
    entries = [each for each in document.layers if each.media_type != _EMPTY]
    titled = {each.title: each for each in entries if each.title}
    if titled:
        return Manifest({_name(each, shown): _blob(each, shown) for each in titled.values()}, image=False)
    blobs: dict[str, Blob] = {}
    for number, entry in enumerate(entries):
        blob = _blob(entry, shown)
        if ending := _archive_ending(entry.media_type):
            blobs[f"layers/{number:02}-{blob.digest.removeprefix('sha256:')[:12]}{ending}"] = blob
    if entries and not blobs:
        kinds = ", ".join(sorted({each.media_type[:80] or "no type" for each in entries})[:3])
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{shown} has no layer that can be read ({kinds}). Push files with their names, as `oras push` does, or an"
            " image with layers of type tar or tar+gzip.",
        )
    return Manifest(blobs, image=True)


def _archive_ending(media_type: str) -> str:
    if "foreign" in media_type or "nondistributable" in media_type:
        return ""
    if media_type.endswith(("tar+gzip", "tar.gzip")):
        return ".tar.gz"
    return ".tar" if media_type.endswith("tar") else ""


def _name(entry: _Part, shown: str) -> str:
    # A folder, packed by the client that pushed it.
    packed = entry.annotations is not None and entry.annotations.unpack == "true"
    return check_name(f"{entry.title}.tar.gz" if packed else entry.title, shown)


def _is_attestation(entry: _Part) -> bool:
    attests = entry.annotations.attests if entry.annotations else ""
    return bool(attests) or entry.shown_platform == "unknown/unknown"


def _blob(entry: _Part, shown: str) -> Blob:
    if not is_digest(entry.digest):
        raise _malformed(shown, "a part's digest is not sha256: and 64 hexadecimal digits")
    if entry.size is None:
        raise _malformed(shown, "a part's size is not a number of bytes")
    return Blob(entry.digest, entry.size)


def _malformed(shown: str, why: str) -> SourceError:
    return SourceError(Reason.SOURCE_REFUSED, f"{shown} has a malformed manifest: {why}.")
