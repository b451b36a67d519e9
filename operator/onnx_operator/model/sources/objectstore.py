"""Making obstore's stores, from the given options and nothing else."""

import os
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources.base import SourceError

_Store = TypeVar("_Store")
_environment = threading.Lock()


def make_store(make: Callable[..., _Store], *arguments: Any, hidden: tuple[str, ...], **options: Any) -> _Store:
    """Make a store while no environment variable exists whose name begins with one of ``hidden``.

    Stores take many an option from there, some of which no argument can overrule: keys, headers, other endpoints.
    Raises ValueError and obstore's errors.
    """
    with _environment:
        away = {name: value for name, value in os.environ.items() if hidden and name.startswith(hidden)}
        for name in away:
            del os.environ[name]
        try:
            return make(*arguments, **options)
        finally:
            os.environ.update(away)


def client_options(settings: SourceSettings, endpoint: str, ca_bundle: str) -> dict[str, Any]:
    """The options of a store's HTTP client. Raises ValueError for an endpoint that it would panic over."""
    _check_endpoint(endpoint)
    options: dict[str, Any] = {
        "allow_http": endpoint.startswith("http://"),
        "allow_invalid_certificates": False,
        "connect_timeout": timedelta(seconds=settings.connect_timeout_seconds),
        "read_timeout": timedelta(seconds=settings.read_timeout_seconds),
        # Bounds a whole download, which may be large; silence and slowness have limits of their own.
        "timeout": timedelta(days=1),
        "user_agent": "onnx-operator",
    }
    if ca_bundle:
        options["root_certificate"] = ca_bundle
    return options


_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")


def _check_endpoint(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    host = (parts.hostname or "").removesuffix(".")
    labels = host.split(".")
    if re.search(r"[\x00-\x20\x7f\\]", endpoint) or parts.scheme not in ("http", "https") or parts.port == 0:
        raise ValueError(f"{endpoint!r:.200} is no address of a server")
    if ":" in host or re.fullmatch(r"[0-9]+|0[xX].*", labels[-1]):
        # A name that ends in a number is taken for an address.
        ip_address(host.partition("%")[0])
    elif len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{host!r:.200} is no name of a server")


# Tries are counted here, outside: obstore's own would not repeat 429, and tell nothing.
NO_RETRIES = {"max_retries": 0, "retry_timeout": timedelta(seconds=18)}


def refused_settings(uri: str, setting: str, error: Exception) -> SourceError:
    """Say that a store could not even be made."""
    cause = str(error).partition("Debug source")[0].strip()
    return SourceError(Reason.SOURCE_REFUSED, f"The settings {setting} cannot be used for {uri}: {cause}")
