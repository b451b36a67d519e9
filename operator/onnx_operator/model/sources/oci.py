"""Models in OCI registries: artifacts as ``oras`` pushes them, and images."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources.base import (
    FileStat,
    SourceError,
    Stream,
    check_name,
    the_one_model,
)
from onnx_operator.model.sources.ociauth import RegistryLogin, login
from onnx_operator.model.sources.ocimanifest import (
    MANIFEST_TYPES,
    Blob,
    Manifest,
    chosen_manifest,
    is_digest,
    parse_reference,
    read_document,
    read_manifest,
)
from onnx_operator.model.sources.web.addresses import destination
from onnx_operator.model.sources.web.client import Login, WebClient, in_time
from onnx_operator.model.sources.web.documents import MANIFEST
from onnx_operator.model.sources.websource import WebSource, pinned_version

_MAX_INDEX_DEPTH = 3


class OciSource(WebSource):
    """``oci://REGISTRY/REPOSITORY[:TAG|@DIGEST]``.

    An artifact's files are its layers under their titles; a folder that ``oras`` packed is an archive. An image's
    layers are archives named ``layers/NUMBER-DIGEST.tar.gz``. Every file is pinned by its digest, which vouches for
    its sha256. Credentials are those of ``DOCKERCONFIGJSON`` for the URI's registry, and go to it and to the token
    service that it names alone. The tag is resolved once.
    """

    version_word = "digest"

    def _connect(self, uri: str, credentials: Mapping[str, str], settings: SourceSettings) -> WebClient:
        self._reference = parse_reference(uri)
        plain = settings.oci.plain_http_registries
        scheme = "http" if self._reference.registry in plain else "https"
        try:
            self._base = URL(f"{scheme}://{self._reference.host}/v2/{self._reference.repository}", encoded=True)
            plain_http = {destination(URL(f"http://{each}")) for each in plain}
        except ValueError:
            raise SourceError(
                Reason.SOURCE_REFUSED,
                f"The registry of {uri}, or one of the setting sources.oci.plainHttpRegistries, is not HOST:PORT.",
            ) from None
        account = login(credentials.get("DOCKERCONFIGJSON", ""), self._reference)
        self._login = RegistryLogin(self._base.origin(), self._reference, account, uri)
        self._manifest: Manifest | None = None
        given = Login(self._login.header, account is not None, self._login.advice, self._challenged)
        return WebClient(settings, "oci", given, plain_http=plain_http)

    async def locate(self) -> list[str]:
        """Give an artifact's model, or an image's layers, the last first."""
        manifest = await self._resolved()
        names = list(manifest.blobs)
        if not names:
            raise SourceError(Reason.SOURCE_NOT_FOUND, f"{self.shown} holds no files.")
        if manifest.image:
            return names[::-1]
        return names if len(names) == 1 else [the_one_model(names, self.shown)]

    async def listing(self) -> list[str] | None:
        """Give the files of an artifact."""
        manifest = await self._resolved()
        return None if manifest.image else list(manifest.blobs)

    async def stat(self, name: str) -> FileStat:
        """Tell what the manifest says."""
        blob = await self._blob(name)
        return _stat(blob.digest, blob.size)

    @asynccontextmanager
    async def open(
        self, name: str, begin: int = 0, end: int | None = None, *, pin: SourcePin | None = None
    ) -> AsyncIterator[Stream]:
        """Read a range of a layer in one request. What is pinned is read by its digest, wherever the tag leads now."""
        check_name(name, self.shown)
        pinned = pinned_version(pin)
        if pinned and not is_digest(pinned):
            raise SourceError(Reason.SOURCE_REFUSED, f"{name} of {self.shown} is pinned by {pinned!r}, no digest.")
        blob = None if pinned else await self._blob(name)
        digest = pinned or (blob.digest if blob else "")
        url = self._base / "blobs" / digest
        async with self._open_version(name, url, f"{name} of {self.shown}", begin, end, pinned) as part:
            yield Stream(_stat(digest, blob.size if blob else part.size), part.begin, part.pieces)

    async def _blob(self, name: str) -> Blob:
        manifest = await self._resolved()
        blob = manifest.blobs.get(check_name(name, self.shown))
        if blob is None:
            few = ", ".join(each[:100] for each in list(manifest.blobs)[:5])
            raise SourceError(Reason.SOURCE_NOT_FOUND, f"{self.shown} holds no file {name}; it holds {few or 'none'}.")
        return blob

    async def _resolved(self) -> Manifest:
        async with self._lock:
            if self._manifest is None:
                async with in_time(self.shown):
                    self._manifest = await self._read_manifest()
            return self._manifest

    async def _read_manifest(self) -> Manifest:
        version = self._reference.version
        for _ in range(_MAX_INDEX_DEPTH):
            url = self._base / "manifests" / version
            accept = {"Accept": ", ".join(MANIFEST_TYPES)}
            async with self._client.document(url, self.shown, MANIFEST, headers=accept) as (_, body):
                if is_digest(version) and f"sha256:{hashlib.sha256(body).hexdigest()}" != version:
                    raise SourceError(
                        Reason.SOURCE_REFUSED, f"The registry of {self.shown} sent another manifest than {version}."
                    )
                document = read_document(body, self.shown)
            chosen = chosen_manifest(document, self.shown)
            if chosen is None:
                return read_manifest(document, self.shown)
            version = chosen
        raise SourceError(Reason.SOURCE_REFUSED, f"{self.shown} is an index of indexes; give the digest of a manifest.")

    async def _challenged(self, url: URL, headers: Mapping[str, str], sent: str) -> bool:
        return await self._login.answer(self._client, url, headers, sent)


def _stat(digest: str, size: int | None) -> FileStat:
    return FileStat(size, SourcePin(kind="Immutable", value=digest), digest.removeprefix("sha256:"))
