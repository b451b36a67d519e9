"""MLflow's words: URIs of models, addresses of artifacts, the MLmodel file."""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field
from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.model.sources.base import ARCHIVE_ENDINGS, SourceError, check_name, is_confined
from onnx_operator.model.sources.web.addresses import read_url
from onnx_operator.model.sources.web.documents import Document, Text

_FORMS = "models:/NAME/VERSION, models:/NAME/STAGE, models:/NAME@ALIAS, models:/MODEL_ID or mlflow://RUN_ID/PATH"
_LOGGED = re.compile(r"m-[0-9a-f]{32}")
_RUN = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,255}")
_MAX_LISTED = 10_000
_ANCHOR = "/api/2.0/mlflow-artifacts/artifacts/"


@dataclass(frozen=True)
class ModelUri:
    """What a URI asks the tracking server for: a registered model, a logged model, or a run's artifact."""

    registered: str = ""
    version: str = ""
    stage: str = ""
    """``latest`` is the newest version of all."""
    alias: str = ""
    logged: str = ""
    run: str = ""
    path: str = ""
    """Within the run's artifacts."""

    @property
    def file(self) -> str:
        """Name of the file that the path ends with; empty where it names a folder."""
        return self.path.rpartition("/")[2] if self.path.lower().endswith((".onnx", *ARCHIVE_ENDINGS)) else ""


def parse_model_uri(uri: str) -> ModelUri:
    """Read a URI, of ``models:`` with one slash or two. Raises :class:`SourceError` (``SourceRefused``)."""
    scheme, _, text = uri.partition(":")
    found = None
    if not is_confined(text.strip("/") or "?"):
        pass
    elif scheme.lower() == "models":
        found = _parse_models(text.lstrip("/"))
    elif text.startswith("//"):
        run, _, path = text[2:].partition("/")
        if _RUN.fullmatch(run) and is_confined(path.removesuffix("/")):
            found = ModelUri(run=run, path=path.removesuffix("/"))
    if found is None:
        raise SourceError(Reason.SOURCE_REFUSED, f"The model's URI is not one of {_FORMS}.")
    return found


def _parse_models(text: str) -> ModelUri | None:
    name, slash, last = text.partition("/")
    if slash:
        if not name or not last or any(c in "/?#" for c in last):
            return None
        return ModelUri(registered=name, **({"version": last} if last.isdecimal() else {"stage": last}))
    name, at, alias = text.rpartition("@")
    if at:
        fit = name and alias and not any(c in "?#" for c in alias)
        return ModelUri(registered=name, alias=alias) if fit else None
    return ModelUri(logged=text) if _LOGGED.fullmatch(text) else None


@dataclass(frozen=True)
class ArtifactFolder:
    """Where a folder of artifacts lies."""

    proxied: str | None = None
    """Path below the tracking server's own artifacts, through which it serves them."""
    uri: str = ""
    """Else the URI of a store, with a slash at its end."""


def artifact_folder(uri: str, tracking: URL, shown: str) -> ArtifactFolder:
    """Tell where an artifact URI of the tracking server leads. Raises :class:`SourceError` (``SourceRefused``)."""
    scheme, colon, rest = uri.partition(":")
    scheme = scheme.lower() if colon else ""
    path = ""
    if scheme == "mlflow-artifacts":
        path = rest[2:].partition("/")[2] if rest.startswith("//") else rest
    elif scheme in ("http", "https"):
        try:
            address = read_url(uri)
            if address.origin() == tracking.origin():
                path = address.path.partition(_ANCHOR)[2]
        except ValueError:
            pass  # No address: told below, as one that leads nowhere.
    elif scheme in ("s3", "gs", "az", "abfss"):
        return ArtifactFolder(uri=uri.rstrip("/") + "/")
    elif scheme == "wasbs":
        # The same blobs under the name of the newer interface.
        return ArtifactFolder(uri=f"abfss:{rest.replace('.blob.', '.dfs.', 1).rstrip('/')}/")
    path = path.strip("/")
    if path:
        return ArtifactFolder(proxied=check_name(path, shown))
    raise SourceError(
        Reason.SOURCE_REFUSED,
        f"{shown} has its artifacts at {scheme or 'file'}:, which only the tracking server itself can read. Keep them"
        " in s3, gs or abfss, or let the server serve them (mlflow server --artifacts-destination …).",
    )


def onnx_file(text: str, shown: str) -> str:
    """Find the file of the ``onnx`` flavor in an MLmodel file, as MLflow writes it (YAML in block style).

    Read by its lines, so that pods need no YAML library and no author of a file can keep one busy. Raises
    :class:`SourceError` (``SourceRefused``) where there is no such flavor.
    """
    flavors: dict[str, dict[str, str]] = {}
    within = False
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip(" "))
        key, _, value = line.strip().partition(":")
        if indent == 0:
            within = key == "flavors"
        elif within and indent == 2:
            flavors[key] = {}
        elif within and indent == 4 and flavors:
            flavors[next(reversed(flavors))].setdefault(key, value.strip().strip("'\""))
    data = flavors.get("onnx", {}).get("data", "")
    if not data:
        names = ", ".join(flavor for flavor in flavors if flavor != "python_function")[:200]
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"{shown} was not logged as ONNX (its flavors: {names or 'none'}); convert it and log it with"
            " mlflow.onnx.log_model.",
        )
    return check_name(data, shown)


def said(message: str) -> str:
    """Give the server's own words about a failure, short and printable."""
    return "".join(c if c.isprintable() else " " for c in message[:200]).strip().rstrip(".")


class _Info(Document):
    artifact_uri: Text = ""


class _Holder(Document):
    info: _Info = _Info()


class _Version(Document):
    version: Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)] = ""


class _File(Document):
    path: Text = ""
    is_dir: bool | None = False


class MlflowAnswer(Document):
    """What any of the tracking server's answers may hold, as far as it counts.

    https://mlflow.org/docs/latest/api_reference/rest-api.html
    """

    message: Text = ""
    artifact_uri: Text = ""
    run: _Holder = _Holder()
    model: _Holder = _Holder()
    model_version: _Version = _Version()
    model_versions: Annotated[tuple[_Version, ...], Field(max_length=_MAX_LISTED, fail_fast=True)] = ()
    files: Annotated[tuple[_File, ...], Field(max_length=_MAX_LISTED, fail_fast=True)] = ()
