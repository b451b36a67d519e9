"""The kinds of sources that a model may come from: one record for each scheme of a URI, from which all else derives.

The CRD's rule and texts, the credentials that are read, the settings that are handed on, what the command line names
and which source is opened: a new scheme is a record here and a class in ``model/sources``.
"""

from dataclasses import dataclass
from enum import StrEnum

HTTPS_HOSTS = "HTTPS_HOSTS"
"""Names the hosts that the credentials of ``https`` addresses may be sent to; no secret itself."""
HTTPS_CREDENTIALS = ("HTTPS_BEARER_TOKEN", "HTTPS_USERNAME", "HTTPS_PASSWORD")
DOCKER_CONFIG = "DOCKERCONFIGJSON"
_S3 = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_GS = ("GOOGLE_SERVICE_ACCOUNT_KEY",)
_AZ = (
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
)
_MLFLOW = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", *_S3, *_GS, *_AZ)

_REST = r"/[^#\s]+"
_TEXT = r"[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?"
"""A name as the store has it: anything that can be printed, blanks within it too."""
_KEY = "/" + _TEXT
_MODEL = r"[^/:@\x00-\x20\x7f]([^/:@\x00-\x1f\x7f]*[^/:@\x00-\x20\x7f])?"
_CONTAINER = r"(\$root|\$web|[a-z0-9](-?[a-z0-9]){2,62})"
_LABEL = "[A-Za-z0-9][A-Za-z0-9._-]*"


class Identity(StrEnum):
    """Whose cloud identity can read a scheme's URIs without keys."""

    AWS = "aws"
    AZURE = "azure"
    GOOGLE = "google"
    ANY = "any"
    """MLflow tells of artifacts that lie in any of them."""


@dataclass(frozen=True)
class SettingOption:
    """An option of the command line that sets one field of a store's settings."""

    name: str
    store: str
    field: str
    help: str
    variable: str | None = None
    """The environment variable that the store's own tools read for it."""


@dataclass(frozen=True)
class Scheme:
    """One scheme of a model's URI, and all that is known of it."""

    name: str
    pattern: str
    """Of the whole URI: a regular expression that RE2 and Python read alike."""
    forms: tuple[str, ...]
    """How its URIs are written, for messages."""
    source: tuple[str, str]
    """Module in ``model/sources`` and class. Named, not imported: a pod imports the client of its own store alone."""
    holds: str = "none."
    """What a credentials Secret holds for it, for the API's description."""
    credentials: tuple[str, ...] = ()
    """Variables that hold its credentials; the Secret's keys have the same names (:func:`secret_key`)."""
    settings: tuple[str, ...] = ()
    """The parts of the settings ``sources`` that count: those of the stores that a URI may lead to."""
    identity: Identity | None = None
    options: tuple[SettingOption, ...] = ()
    mounted: bool = False
    """Whether it is a volume of the cluster, read where a pod has mounted it."""
    folder: str = ""
    """How a folder of it is written, where one may hold test data; empty: none may."""

    @property
    def prefix(self) -> str:
        """How its URIs begin."""
        return self.forms[0][: len(self.name) + (3 if "://" in self.forms[0] else 1)]


_AZURE = "AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and "
_ALL = (
    Scheme(
        "https",
        pattern=r"https://[^/?#@\s]+" + _REST,
        forms=("https://HOST/PATH",),
        source=("https", "HttpsSource"),
        holds="HTTPS_BEARER_TOKEN, or HTTPS_USERNAME and HTTPS_PASSWORD; always with HTTPS_HOSTS, the hosts that they "
        "may be sent to; for addresses of Azure blobs as az.",
        credentials=(*HTTPS_CREDENTIALS, HTTPS_HOSTS, *_AZ),
        settings=("https", "az"),
        folder="https://HOST/PATH",
    ),
    Scheme(
        "http",
        pattern=r"http://[^/?#@\s]+" + _REST,
        forms=("http://HOST/PATH",),
        source=("https", "HttpsSource"),
        holds="none, since anybody on the way could read them.",
        settings=("https",),
        folder="http://HOST/PATH",
    ),
    Scheme(
        "s3",
        pattern="s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]" + _KEY,
        forms=("s3://BUCKET/KEY",),
        source=("s3", "S3Source"),
        holds="AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and optionally AWS_SESSION_TOKEN.",
        credentials=_S3,
        settings=("s3",),
        options=(
            SettingOption(
                "s3-endpoint", "s3", "endpoint", "An S3-compatible store.  [default: Amazon S3]", "AWS_ENDPOINT_URL"
            ),
            SettingOption("s3-region", "s3", "region", "Region of the bucket.  [default: us-east-1]", "AWS_REGION"),
        ),
        identity=Identity.AWS,
        folder="s3://BUCKET/KEY",
    ),
    Scheme(
        "gs",
        pattern="gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]" + _KEY,
        forms=("gs://BUCKET/KEY",),
        source=("gcs", "GcsSource"),
        holds="GOOGLE_SERVICE_ACCOUNT_KEY, the account's JSON key.",
        credentials=_GS,
        settings=("gs",),
        options=(
            SettingOption(
                "gs-endpoint", "gs", "endpoint", "A store compatible with Google's.", "STORAGE_EMULATOR_HOST"
            ),
        ),
        identity=Identity.GOOGLE,
        folder="gs://BUCKET/KEY",
    ),
    Scheme(
        "az",
        pattern="az://" + _CONTAINER + _KEY,
        forms=("az://CONTAINER/PATH",),
        source=("azure", "AzureSource"),
        holds=_AZURE + "AZURE_CLIENT_SECRET; always with AZURE_STORAGE_ACCOUNT_NAME, the account that they are for.",
        credentials=_AZ,
        settings=("az",),
        options=(
            SettingOption(
                "az-account", "az", "account", "Storage account of az:// addresses.", "AZURE_STORAGE_ACCOUNT_NAME"
            ),
            SettingOption(
                "az-endpoint",
                "az",
                "endpoint",
                "A store compatible with Azure's, such as http://127.0.0.1:10000 (Azurite).",
            ),
        ),
        identity=Identity.AZURE,
        folder="az://CONTAINER/PATH",
    ),
    Scheme(
        "abfss",
        pattern="abfss://"
        + _CONTAINER
        + r"@[a-z0-9]{3,24}\.dfs\.core\.(windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)"
        + _KEY,
        forms=("abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH",),
        source=("azure", "AzureSource"),
        holds="as az.",
        credentials=_AZ,
        settings=("az",),
        identity=Identity.AZURE,
        folder="abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH",
    ),
    Scheme(
        "oci",
        pattern=r"oci://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?/[a-z0-9]+([._/-]+[a-z0-9]+)*"
        r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[a-f0-9]{64})?",
        forms=("oci://REGISTRY/REPOSITORY[:TAG|@sha256:DIGEST]",),
        source=("oci", "OciSource"),
        holds=".dockerconfigjson, as Secrets that pull images have it.",
        credentials=(DOCKER_CONFIG,),
        settings=("oci",),
    ),
    Scheme(
        "hf",
        pattern="hf://" + _LABEL + "/" + _LABEL + rf"(@[^/?#@\s]+)?(/({_TEXT})?)?",
        forms=("hf://ORGANISATION/REPOSITORY[@REVISION][/PATH]",),
        source=("huggingface", "HuggingFaceSource"),
        holds="HF_TOKEN.",
        credentials=("HF_TOKEN",),
        settings=("hf",),
        options=(SettingOption("hf-endpoint", "hf", "endpoint", "A mirror of the Hugging Face hub.", "HF_ENDPOINT"),),
        folder="hf://ORGANISATION/REPOSITORY/PATH",
    ),
    Scheme(
        "mlflow",
        pattern="mlflow://[A-Za-z0-9][A-Za-z0-9_-]*" + _KEY,
        forms=("mlflow://RUN_ID/PATH",),
        options=(
            SettingOption(
                "mlflow-tracking-uri",
                "mlflow",
                "trackingUri",
                "The MLflow server of models: addresses.",
                "MLFLOW_TRACKING_URI",
            ),
        ),
        source=("mlflow", "MlflowSource"),
        holds="MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and the keys of the "
        "store that holds the artifacts.",
        credentials=_MLFLOW,
        settings=("mlflow", "s3", "gs", "az"),
        identity=Identity.ANY,
    ),
    Scheme(
        "models",
        pattern=rf"models:/({_MODEL}(/([0-9]+|[A-Za-z]+)|@[^/:?#@\s]+)|m-[0-9a-f]{{32}})",
        forms=("models:/NAME/VERSION", "models:/NAME/STAGE", "models:/NAME@ALIAS"),
        source=("mlflow", "MlflowSource"),
        holds="as mlflow.",
        credentials=_MLFLOW,
        settings=("mlflow", "s3", "gs", "az"),
        identity=Identity.ANY,
    ),
    Scheme(
        "pvc",
        pattern="pvc://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?" + _KEY,
        forms=("pvc://CLAIM/PATH",),
        source=("files", "FileSource"),
        mounted=True,
    ),
)
SCHEMES = {scheme.name: scheme for scheme in _ALL}
"""Whoever may name a Secret in an OnnxModel chooses the address, but not where the keys go: the endpoints of ``s3``,
``gs``, ``hf`` and MLflow are settings, and what goes to a host of the URI is bound to it by the Secret itself:
``HTTPS_HOSTS``, ``AZURE_STORAGE_ACCOUNT_NAME``, the entries of ``DOCKERCONFIGJSON``.
"""
FOLDERS = tuple(scheme for scheme in _ALL if scheme.folder)
"""Those that may lead to a folder with test data."""
OPTIONS = tuple(option for scheme in _ALL for option in scheme.options)
STORES = tuple(dict.fromkeys(name for scheme in _ALL for name in scheme.settings))
"""The parts of the settings ``sources`` that are each about one kind of store."""
ALL_CREDENTIALS = frozenset(name for scheme in _ALL for name in scheme.credentials)


def scheme_of(uri: str) -> str:
    """The scheme of a model's URI, as the table names it; empty for what has none.

    ``models:/NAME/VERSION`` has no ``//``.
    """
    scheme, colon, _ = uri.partition(":")
    return scheme.lower() if colon else ""


def credential_names(uri: str) -> tuple[str, ...]:
    """The variables that hold the credentials of a URI's source; none for what no source reads."""
    scheme = SCHEMES.get(scheme_of(uri))
    return scheme.credentials if scheme else ()


def identity_of(uri: str) -> Identity | None:
    """Whose cloud identity can read a URI without keys."""
    scheme = SCHEMES.get(scheme_of(uri))
    return scheme.identity if scheme else None


def claim_of(uri: str) -> str:
    """The claim that a ``pvc://CLAIM/PATH`` names; empty for other URIs."""
    return uri.partition("://")[2].partition("/")[0] if scheme_of(uri) == "pvc" else ""


def secret_key(variable: str) -> str:
    """The key of a credentials Secret that fills a variable: its name, but for Secrets of registries."""
    return ".dockerconfigjson" if variable == DOCKER_CONFIG else variable


def alternatives(forms: list[str]) -> str:
    """Write forms as a sentence lists them."""
    return f"{', '.join(forms[:-1])} or {forms[-1]}"
