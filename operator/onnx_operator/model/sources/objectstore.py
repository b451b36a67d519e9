"""Making obstore's stores, from the given options and nothing else."""

import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from obstore.exceptions import BaseError

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources.base import SourceError, split_key
from onnx_operator.model.sources.web.connections import current_egress

_environment = threading.Lock()
# Tries are counted outside: obstore's own would not repeat 429, and tell nothing.
_NO_RETRIES = {"max_retries": 0, "retry_timeout": timedelta(seconds=18)}


@dataclass(frozen=True)
class Connected:
    """What a URI names of a store, and who reads it there."""

    container: str
    """The bucket, or container."""
    key: str
    """Of an object, or with a slash at its end of a folder."""
    store: Any
    where: str
    """The store's name in messages."""
    signed: bool
    """Whether requests carry somebody's identity."""


def make_store(
    make: Callable[..., Any],
    uri: str,
    container: str,
    *,
    settings: SourceSettings,
    part: str,
    endpoint: str,
    config: Mapping[str, Any],
    provider: Any,
    hidden: tuple[str, ...],
) -> Any:
    """Make obstore's view of a container at ``endpoint``; ``part`` names the part of the settings.

    No environment variable exists meanwhile whose name begins with one of ``hidden``: stores take many an option from
    there, some of which no argument can overrule: keys, headers, other endpoints. Raises :class:`SourceError`
    (``SourceRefused``), which tells that the settings are of no use.
    """
    with _environment:
        away = {name: value for name, value in os.environ.items() if hidden and name.startswith(hidden)}
        for name in away:
            del os.environ[name]
        try:
            return make(
                container,
                config=config,
                client_options=_client_options(settings, endpoint, getattr(settings, part).ca_bundle),
                retry_config=_NO_RETRIES,
                credential_provider=provider,
            )
        except (BaseError, ValueError) as error:
            cause = str(error).partition("Debug source")[0].strip()
            raise SourceError(
                Reason.SOURCE_REFUSED, f"The settings sources.{part} cannot be used for {uri}: {cause}"
            ) from None
        finally:
            os.environ.update(away)


def bucket_and_key(uri: str, bucket: re.Pattern[str], form: str) -> tuple[str, str]:
    """Take ``SCHEME://BUCKET/KEY`` apart. Raises :class:`SourceError` (``SourceRefused``)."""
    name, _, key = uri.partition("://")[2].partition("/")
    split_key(key, uri, form)
    if not bucket.fullmatch(name):
        raise SourceError(Reason.SOURCE_REFUSED, f"{uri} names no bucket; write {form}.")
    return name, key


def _client_options(settings: SourceSettings, endpoint: str, ca_bundle: str) -> dict[str, Any]:
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
    egress = current_egress()
    if authorities := "\n".join(filter(None, (ca_bundle, egress.ca_bundle))):
        options["root_certificate"] = authorities
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if proxy := egress.proxy_for(parts.scheme, (parts.hostname or "").lower(), port):
        options["proxy_url"] = proxy
        options["proxy_excludes"] = ",".join([*egress.no_proxy, *_OF_THE_CLOUD])
    return options


_OF_THE_CLOUD = ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "metadata.google.internal")
"""Where a cloud gives its own machines an identity; no proxy leads there."""
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")


def _check_endpoint(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    host = (parts.hostname or "").removesuffix(".")
    labels = host.split(".")
    if re.search(r"[\x00-\x20\x7f\\]", endpoint) or parts.scheme not in ("http", "https") or parts.port == 0:
        raise ValueError(f"{endpoint!r:.200} is not the address of a server")
    if ":" in host or re.fullmatch(r"[0-9]+|0[xX].*", labels[-1]):
        # A name that ends in a number is taken for an address.
        ip_address(host.partition("%")[0])
    elif len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{host!r:.200} is not the name of a server")
