"""Models in OCI registries: artifacts as ``oras`` pushes them, and images."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources.base import (
    FileStat,
    Source,
    SourceChangedError,
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
from onnx_operator.model.sources.web.client import WebClient, in_time
from onnx_operator.model.sources.web.documents import MANIFEST
from onnx_operator.model.sources.web.ranges import open_range

_DEEPEST_INDEX = 3


class OciSource(Source):
    """``oci://REGISTRY/REPOSITORY[:TAG|@DIGEST]``.

    An artifact's files are its layers under their titles; a folder that ``oras`` packed is an archive. An image's
    layers are archives named ``layers/NUMBER-DIGEST.tar.gz``. Every file is pinned by its digest, which vouches for
    its sha256. Credentials are those of ``DOCKERCONFIGJSON`` for the URI's registry, and go to it and to the token
    service that it names alone. The tag is resolved once.
    """

    def __init__(
        self,
        uri: str,
        *,
        credentials: Mapping[str, str],
        settings: SourceSettings,
        workload_identity: bool = False,
    ) -> None:
        self._reference = parse_reference(uri)
        self.shown = uri
        plain = settings.oci.plain_http_registries
        scheme = "http" if self._reference.registry in plain else "https"
        try:
            self._base = URL(f"{scheme}://{self._reference.host}/v2/{self._reference.repository}", encoded=True)
            plain_http = {URL(f"http://{each}").origin() for each in plain}
        except ValueError:
            raise SourceError(
                Reason.SOURCE_REFUSED,
                f"The registry of {uri}, or one of the setting sources.oci.plainHttpRegistries, is no HOST:PORT.",
            ) from None
        account = login(credentials.get("DOCKERCONFIGJSON", ""), self._reference)
        self._login = RegistryLogin(self._base.origin(), self._reference, account, uri)
        self._client = WebClient(
            settings=settings,
            ca_bundle=settings.oci.ca_bundle,
            ca_setting="sources.oci.caBundle",
            credentials=self._login.header,
            have_credentials=account is not None,
            advice=self._login.advice,
            plain_http=plain_http,
            challenged=self._challenged,
        )
        self._manifest: Manifest | None = None
        self._lock = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def locate(self) -> list[str]:
        """Give an artifact's model, or an image's layers, the last first."""
        manifest = await self._resolved()
        names = list(manifest.blobs)
        if not names:
            raise SourceError(Reason.SOURCE_NOT_FOUND, f"{self.shown} holds no files.")
        if manifest.image:
            return names[::-1]
        return names if len(names) == 1 else [the_one_model(names, self.shown)]

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
        pinned = pin.value if pin is not None and pin.kind == "Immutable" else ""
        if pinned and not is_digest(pinned):
            raise SourceError(Reason.SOURCE_REFUSED, f"{name} of {self.shown} is pinned by {pinned!r}, no digest.")
        blob = None if pinned else await self._blob(name)
        digest = pinned or (blob.digest if blob else "")
        what = f"{name} of {self.shown}"
        try:
            async with open_range(self._client, self._base / "blobs" / digest, what, begin, end) as part:
                assert part is not None
                yield Stream(_stat(digest, blob.size if blob else part.size), part.begin, part.pieces)
        except SourceError as error:
            if pinned and error.reason is Reason.SOURCE_NOT_FOUND:
                await self._raise_if_moved(name, pinned)
            raise

    async def _raise_if_moved(self, name: str, pinned: str) -> None:
        blob = await self._blob(name)
        if blob.digest != pinned:
            raise SourceChangedError(
                f"{name} of {self.shown} is no longer what was pinned: expected {pinned}, found {blob.digest}.",
                observed=SourcePin(kind="Immutable", value=blob.digest),
            )

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
        for _ in range(_DEEPEST_INDEX):
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
