"""Models on the Hugging Face hub, or on a mirror of it."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, unquote

from pydantic import Field
from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources.base import FileStat, SourceError, Stream, check_name, the_one_model
from onnx_operator.model.sources.web.client import Answer, Login, WebClient, authorization
from onnx_operator.model.sources.web.documents import HUB_LISTING, Document, decode
from onnx_operator.model.sources.web.ranges import open_range
from onnx_operator.model.sources.websource import WebSource, pinned_version, platform_url

_ADVICE = (
    "check HF_TOKEN in the Secret named in spec.model.credentials.secretName. The terms of a gated repository must be"
    " accepted on its page with that token's account; for a repository that does not exist the hub answers the same."
)
_URI = re.compile(
    r"hf://([A-Za-z0-9._-]{1,96}/[A-Za-z0-9._-]{1,96})(?:@(refs/(?:convert|pr)/[^/?#]+|[^/?#]+))?(?:/(.*))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
_MAX_FILES = 10_000
_FORM = "hf://ORG/REPOSITORY[@REVISION][/PATH]"


@dataclass(frozen=True)
class HubUri:
    """Where ``hf://ORG/REPOSITORY[@REVISION][/PATH]`` leads."""

    repository: str
    revision: str
    """Branch, tag or commit."""
    folder: str
    """With a slash at its end, unless it is the repository's root."""
    name: str
    """The file in the folder; empty where the one model of the folder is meant."""


def parse_hub_uri(uri: str) -> HubUri:
    """Read the URI of a file, or, with a slash at its end or without a path, of a folder.

    The revision is ``main`` where none is given. Raises :class:`SourceError` (``SourceRefused``).
    """
    match = _URI.fullmatch(uri)
    parts = match[1].split("/") if match else []
    if match is None or any(part.strip(".") == "" for part in parts):
        raise SourceError(Reason.SOURCE_REFUSED, f"The model's URI is not {_FORM}.")
    # A slash can only be written so, and the hub's own client reads it so; paths are taken to the letter there.
    revision, path = unquote(match[2] or "main"), match[3] or ""
    check_name(revision, uri)
    if path:
        check_name(path.removesuffix("/"), uri)
    folder, _, name = path.rpartition("/")
    return HubUri(match[1], revision, f"{folder}/" if folder else "", name)


class _HubFile(Document):
    rfilename: str


class _HubModel(Document):
    sha: str
    siblings: Annotated[list[_HubFile], Field(max_length=_MAX_FILES, fail_fast=True)]


class HuggingFaceSource(WebSource):
    """``hf://ORG/REPOSITORY[@REVISION][/PATH]``; without a path, or with a slash at its end, the one model there.

    The revision is resolved to a commit once, which pins all files; the hub vouches for the sha256 of large files.
    ``HF_TOKEN`` goes to the hub alone, which the platform team chose (``sources.hf.endpoint``); every address that it
    redirects to is checked as any other.
    """

    version_word = "commit"

    def _connect(self, uri: str, credentials: Mapping[str, str], settings: SourceSettings) -> WebClient:
        self._uri = parse_hub_uri(uri)
        hub = platform_url(settings.hf.endpoint, "sources.hf.endpoint")
        self._hub = str(hub)
        self._origin = hub.origin()
        self._commit: str | None = None
        """None until asked for; empty where the hub tells none."""
        self._names: list[str] = []
        self._stats: dict[str, FileStat] = {}
        login = Login.of(self._origin, authorization(uri, credentials.get("HF_TOKEN", "")), _ADVICE)
        return WebClient(settings, "hf", login, platform=self._origin)

    async def locate(self) -> list[str]:
        """Give the file that the URI names, or look for the one model of its folder."""
        if self._uri.name:
            return [self._uri.name]
        await self._resolved()
        return [the_one_model(self._names, self.shown)]

    async def listing(self) -> list[str] | None:
        """Give the files that the hub lists in the commit."""
        if self._uri.name:
            return None
        await self._resolved()
        return self._names

    async def stat(self, name: str) -> FileStat:
        """Ask the hub, which knows of a large file what it redirects to."""
        check_name(name, self.shown)
        await self._resolved()
        if name not in self._stats:
            self._stats[name] = await self._stat(name, self._commit or self._uri.revision)
        return self._stats[name]

    @asynccontextmanager
    async def open(
        self, name: str, begin: int = 0, end: int | None = None, *, pin: SourcePin | None = None
    ) -> AsyncIterator[Stream]:
        """Read a range of a file in one request, as it is in the pinned commit, wherever the revision leads now."""
        check_name(name, self.shown)
        pinned = pinned_version(pin)
        if pinned and not _COMMIT.fullmatch(pinned):
            raise SourceError(Reason.SOURCE_REFUSED, f"{name} of {self.shown} is pinned by {pinned!r}, no commit.")
        commit = pinned or await self._resolved()
        known = self._stats.get(name)
        url = self._address(name, commit or self._uri.revision)
        async with self._open_version(name, url, self._what(name), begin, end, pinned) as part:
            sha256 = known.sha256 if known is not None and known.pin == _pin(commit) else None
            yield Stream(FileStat(part.size, _pin(commit), sha256), part.begin, part.pieces)

    async def _resolved(self) -> str:
        async with self._lock:
            if self._commit is not None:
                return self._commit
            if self._uri.name:
                stat = await self._stat(self._uri.name, self._uri.revision)
                self._stats[self._uri.name] = stat
                self._commit = stat.pin.value if stat.pin else ""
            else:
                self._names, self._commit = await self._list()
            return self._commit

    async def _list(self) -> tuple[list[str], str]:
        url = f"{self._hub}/api/models/{self._uri.repository}/revision/{quote(self._uri.revision, safe='')}"
        malformed = (
            f"{self.shown}: the setting sources.hf.endpoint leads to what does not list files as the hub does (give the"
            " path of the file)"
        )
        accept = {"Accept": "application/json"}
        async with self._client.document(URL(url, encoded=True), self.shown, HUB_LISTING, headers=accept) as (_, body):
            answer = decode(_HubModel, body, self.shown, malformed)
        folder = self._uri.folder
        files = [each.rfilename for each in answer.siblings]
        return [each.removeprefix(folder) for each in files if each.startswith(folder)], (
            answer.sha if _COMMIT.fullmatch(answer.sha) else ""
        )

    async def _stat(self, name: str, revision: str) -> FileStat:
        async with open_range(
            self._client, self._address(name, revision), self._what(name), 0, 1, remember=False
        ) as part:
            assert part is not None
            told = self._hub_headers(part.answer)
            commit, size, etag = (told.get(each, "") for each in ("X-Repo-Commit", "X-Linked-Size", "X-Linked-Etag"))
            vouched = _SHA256.fullmatch(etag)
            return FileStat(
                size=int(size) if size.isascii() and size.isdigit() and len(size) < 20 else part.size,
                pin=_pin(commit),
                sha256=vouched[1] if vouched else None,
            )

    def _hub_headers(self, answer: Answer) -> dict[str, str]:
        """Headers of the hub itself, not of where it redirects to."""
        told: dict[str, str] = {}
        for url, headers in [*answer.redirects, (answer.url, answer.headers)]:
            if url.origin() == self._origin:
                for each in ("X-Repo-Commit", "X-Linked-Size", "X-Linked-Etag"):
                    if headers.get(each):
                        told.setdefault(each, headers[each].strip())
        return told

    def _address(self, name: str, revision: str) -> URL:
        path = f"{self._uri.repository}/resolve/{quote(revision, safe='')}/{quote(self._uri.folder + name)}"
        return URL(f"{self._hub}/{path}", encoded=True)

    def _what(self, name: str) -> str:
        return self.shown if name == self._uri.name else f"{name} of {self.shown}"


def _pin(commit: str) -> SourcePin | None:
    return SourcePin(kind="Immutable", value=commit) if _COMMIT.fullmatch(commit) else None
