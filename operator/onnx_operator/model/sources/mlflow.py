"""Models that an MLflow tracking server knows."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote

from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.sources.base import (
    BrokenStreamError,
    FileStat,
    Source,
    SourceError,
    Stream,
    check_name,
    the_one_model,
    unreachable,
)
from onnx_operator.model.sources.mlflowapi import (
    ArtifactFolder,
    MlflowAnswer,
    ModelUri,
    artifact_folder,
    onnx_file,
    parse_model_uri,
    said,
)
from onnx_operator.model.sources.web.client import Login, WebClient, authorization, in_time
from onnx_operator.model.sources.web.documents import DESCRIPTION, MLFLOW_ANSWER, budget, decode
from onnx_operator.model.sources.web.ranges import open_pinned, stat_of
from onnx_operator.model.sources.websource import WebSource, platform_url

_ADVICE = (
    "check the Secret named in spec.model.credentials.secretName (MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME"
    " and MLFLOW_TRACKING_PASSWORD)."
)
_MAX_DEPTH = 3
_MAX_LISTED, _MAX_FOLDERS = 1000, 100
"""Of a model's folder; each folder is a question of its own to the tracking server."""
_NO_MLFLOW = "The server at the setting sources.mlflow.trackingUri does not answer as MLflow does"


class MlflowSource(WebSource):
    """A model of the tracking server that the settings name.

    ``models:/NAME/VERSION``, ``models:/NAME/STAGE`` (``latest`` too), ``models:/NAME@ALIAS``, ``models:/MODEL_ID``, all
    of them with two slashes as well, and ``mlflow://RUN_ID/PATH`` of a file or a folder among a run's artifacts.

    Artifacts come through the tracking server, or from the store where they lie with the same credentials and settings;
    they are pinned by what that gives, and not by the version, which is immutable in name only. The tracking server is
    the platform team's choice and may have any network address; ``MLFLOW_TRACKING_*`` go to it alone.
    """

    def _connect(self, uri: str, credentials: Mapping[str, str], settings: SourceSettings) -> WebClient:
        self._uri = parse_model_uri(uri)
        self._tracking = _tracking(settings.mlflow.tracking_uri, uri)
        self._folder: ArtifactFolder | None = None
        self._store: Source | None = None
        given = (credentials.get(f"MLFLOW_TRACKING_{each}", "") for each in ("TOKEN", "USERNAME", "PASSWORD"))
        origin = self._tracking.origin()
        login = Login.of(origin, authorization(uri, *given), _ADVICE)
        return WebClient(settings, "mlflow", login, platform=origin)

    async def aclose(self) -> None:
        """Close the connections."""
        await super().aclose()
        if self._store is not None:
            await self._store.aclose()

    async def locate(self) -> list[str]:
        """Give the file of the model's ``onnx`` flavor; without an MLmodel file, the one model of the folder."""
        if self._uri.file:
            return [self._uri.file]
        folder = await self._resolved()
        names = None if folder.proxied is None else await self._list(folder.proxied)
        if names is None or "MLmodel" in names:
            try:
                async with in_time(self.shown):
                    return [await self._flavor()]
            except SourceError as error:
                if error.reason is not Reason.SOURCE_NOT_FOUND:
                    raise
        if self._store is not None:
            return await self._store.locate()
        return [the_one_model(names or [], self.shown)]

    async def listing(self) -> list[str] | None:
        """Ask the tracking server for one folder after the other, or the store where the artifacts lie."""
        if self._uri.file:
            return None
        folder = await self._resolved()
        if self._store is not None:
            return await self._store.listing()
        names: list[str] = []
        waiting = [""]
        for prefix in waiting:
            for name, is_folder in await self._entries(f"{folder.proxied}/{prefix}".rstrip("/")):
                (waiting if is_folder else names).append(f"{prefix}{name}{'/' if is_folder else ''}")
            if len(names) > _MAX_LISTED or len(waiting) > _MAX_FOLDERS:
                raise SourceError(
                    Reason.SOURCE_REFUSED,
                    f"{self.shown} holds more than {_MAX_LISTED} files, or {_MAX_FOLDERS} folders; log the model in "
                    "one of its own.",
                )
        return names

    async def stat(self, name: str) -> FileStat:
        """Ask the tracking server, or the store where the artifacts lie."""
        check_name(name, self.shown)
        folder = await self._resolved()
        if self._store is not None:
            return await self._store.stat(name)
        return await stat_of(self._client, self._address(folder, name), self._what(name))

    @asynccontextmanager
    async def open(
        self, name: str, begin: int = 0, end: int | None = None, *, pin: SourcePin | None = None
    ) -> AsyncIterator[Stream]:
        """Read a range from wherever the artifacts come."""
        check_name(name, self.shown)
        folder = await self._resolved()
        if self._store is not None:
            async with self._store.open(name, begin, end, pin=pin) as stream:
                yield stream
            return
        url = self._address(folder, name)
        async with open_pinned(self._client, url, self._what(name), begin, end, pin) as stream:
            yield stream

    async def _flavor(self) -> str:
        """The file that the MLmodel file names. Its beginning is enough: MLflow writes signatures behind flavors."""
        what = f"The MLmodel file of {self.shown}"
        limit = DESCRIPTION.limit
        try:
            async with self.open("MLmodel") as stream, budget().hold(limit):
                text = bytearray()
                async for piece in stream.pieces:
                    text += piece[: limit + 1 - len(text)]
                    if len(text) > limit:
                        break
                cut = len(text) > limit
                try:
                    return onnx_file(
                        text[: text.rfind(b"\n") + 1 if cut else limit].decode(errors="replace"), self.shown
                    )
                except SourceError:
                    if cut:
                        raise DESCRIPTION.too_large(what, len(text)) from None
                    raise
        except BrokenStreamError as broken:
            raise unreachable(what, str(broken)) from None

    async def _resolved(self) -> ArtifactFolder:
        async with self._lock:
            if self._folder is None:
                async with in_time(self.shown):
                    folder = artifact_folder(await self._artifact_uri(), self._tracking, self.shown)
                if folder.uri:
                    # The table of all sources, which names this one too.
                    from onnx_operator.model.sources.opening import open_source

                    self._store = open_source(
                        folder.uri,
                        credentials=self._credentials,
                        settings=self._settings,
                        workload_identity=self._workload_identity,
                    )
                self._folder = folder
            return self._folder

    async def _artifact_uri(self) -> str:
        wanted = self._uri
        for _ in range(_MAX_DEPTH):
            uri = await self._ask_for(wanted)
            if not uri.startswith("models:"):
                return uri
            # A version of a registered model may stand for a logged one.
            wanted = parse_model_uri(uri)
        raise SourceError(Reason.SOURCE_REFUSED, f"{self.shown} leads from model to model and to no artifacts.")

    async def _ask_for(self, wanted: ModelUri) -> str:
        if wanted.run:
            answer = await self._ask("runs/get", run_id=wanted.run)
            uri = _given(answer.run.info.artifact_uri, "run.info.artifact_uri")
            folder = wanted.path.rpartition("/")[0] if wanted.file else wanted.path
            return f"{uri.rstrip('/')}/{folder}"
        if wanted.logged:
            answer = await self._ask(f"logged-models/{wanted.logged}")
            return _given(answer.model.info.artifact_uri, "model.info.artifact_uri")
        version = wanted.version or await self._version(wanted)
        answer = await self._ask("model-versions/get-download-uri", name=wanted.registered, version=version)
        return _given(answer.artifact_uri, "artifact_uri")

    async def _version(self, wanted: ModelUri) -> str:
        if wanted.alias:
            answer = await self._ask("registered-models/alias", name=wanted.registered, alias=wanted.alias)
            return _given(answer.model_version.version, "model_version.version")
        stages = {} if wanted.stage.lower() == "latest" else {"stages": wanted.stage}
        answer = await self._ask("registered-models/get-latest-versions", name=wanted.registered, **stages)
        versions = [_given(each.version, "model_versions.version") for each in answer.model_versions]
        if not versions:
            raise SourceError(
                Reason.SOURCE_NOT_FOUND, f"{self.shown} does not exist: no version of the model is in that stage."
            )
        return max(versions, key=lambda each: int(each) if each.isdecimal() and len(each) < 20 else 0)

    async def _ask(self, call: str, **query: str) -> MlflowAnswer:
        status, answer = await self._call(self._tracking / "api/2.0/mlflow" / call, query)
        if status != 200:
            why = said(answer.message) or f"HTTP {status}"
            raise SourceError(
                Reason.SOURCE_NOT_FOUND,
                f"{self.shown} does not exist on the MLflow server ({why}); check spec.model.uri, and the setting"
                " sources.mlflow.trackingUri.",
            )
        return answer

    async def _list(self, path: str) -> list[str]:
        return [name for name, is_folder in await self._entries(path) if not is_folder]

    async def _entries(self, path: str) -> list[tuple[str, bool]]:
        """What lies directly in a folder: names, and whether each is a folder."""
        _, answer = await self._call(self._tracking / "api/2.0/mlflow-artifacts/artifacts", {"path": path})
        return [(each.path.rpartition("/")[2], bool(each.is_dir)) for each in answer.files]

    async def _call(self, url: URL, query: Mapping[str, str]) -> tuple[int, MlflowAnswer]:
        headers = {"Accept": "application/json"}
        async with self._client.document(
            url.with_query(query), self.shown, MLFLOW_ANSWER, headers=headers, expected=(200, 400, 404)
        ) as (answer, body):
            try:
                return answer.status, decode(MlflowAnswer, body, self.shown, _NO_MLFLOW)
            except SourceError:
                if answer.status == 200:
                    raise
                # A failure's words are worth having, and no more.
                return answer.status, MlflowAnswer()

    def _address(self, folder: ArtifactFolder, name: str) -> URL:
        path = quote(f"{folder.proxied}/{name}")
        return URL(f"{str(self._tracking).rstrip('/')}/api/2.0/mlflow-artifacts/artifacts/{path}", encoded=True)

    def _what(self, name: str) -> str:
        return self.shown if name == self._uri.file else f"{name} of {self.shown}"


def _given(text: str, name: str) -> str:
    """The text of a field. Raises :class:`SourceError` where there is none."""
    if not text:
        raise SourceError(Reason.SOURCE_REFUSED, f"{_NO_MLFLOW}: {name} is missing.")
    return text


def _tracking(text: str, shown: str) -> URL:
    if not text:
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{shown} needs an MLflow tracking server; the platform team names it in the setting"
            " sources.mlflow.trackingUri.",
        )
    return platform_url(text, "sources.mlflow.trackingUri")
