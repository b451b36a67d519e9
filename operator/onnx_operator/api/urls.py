"""Addresses are written and read by one rule each.

Where a model is asked: what is printed, what is asked, and what describes itself are quoted alike.

Where a model lies: ``https``, ``http`` and ``file`` addresses are URLs, in which ``%20`` is a blank; a ``?`` or ``#``
of a name on the web is written ``%3F`` or ``%23``. All others name what lies there as the store's own tools do
(``aws s3 cp``, ``gcloud storage cp``, ``az``, ``huggingface_hub``, ``mlflow``): to the letter.
"""

import re
from urllib.parse import quote, unquote

WEB_SCHEMES = ("https", "http")
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_USER = re.compile("^([a-z]+://)[^/#]*@", re.I)


def segment(name: str) -> str:
    """A name as one part of a path: all but letters, digits and ``-._~`` by ``%`` (RFC 3986, section 2)."""
    return quote(name, safe="")


def model_path(name: str) -> str:
    """Where the Open Inference Protocol has a model."""
    return f"/v2/models/{segment(name)}"


def prediction_path(name: str) -> str:
    """Where KServe's V1 protocol takes rows for a model."""
    return f"/v1/models/{segment(name)}:predict"


def is_web(uri: str) -> bool:
    """Tell a URL of the web, whose query may be a signature, from the name of an object."""
    return uri.partition(":")[0].lower() in WEB_SCHEMES


def shown_uri(uri: str) -> str:
    """A model's URI as messages may show it: a query can carry a signature, and what precedes an @ a password."""
    return _USER.sub(r"\1", uri.partition("?")[0]) if is_web(uri) else uri


def last_name(uri: str) -> str:
    """The last part of a model's URI, as the file or folder there is called."""
    if not is_web(uri):
        return uri.rstrip("/").rpartition("/")[2]
    return unquote(shown_uri(uri).partition("#")[0].rstrip("/")).rpartition("/")[2]


def taken_literally(uri: str) -> str:
    """A sentence for who may have meant something else by ``%20``; empty where there is nothing to say."""
    escape = None if is_web(uri) else _ESCAPE.search(uri)
    return f" Such names are taken to the letter: {escape[0]} stands for itself." if escape else ""
