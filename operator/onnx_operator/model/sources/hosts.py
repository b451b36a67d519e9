"""Where the credentials of ``https`` addresses may go: to the hosts that their owner named beside them.

An address is chosen by whoever writes the OnnxModel, the Secret belongs to somebody else. Without a list of hosts in
the Secret itself, its token could be sent to any server.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address

from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.api.schemes import HTTPS_CREDENTIALS, HTTPS_HOSTS
from onnx_operator.model.sources.base import SourceError
from onnx_operator.model.sources.web.addresses import is_host, parse_url, read_url

_MOST_HOSTS = 64
_DEFAULT_PORT = 443
Destination = tuple[str, int]
"""A host, in lower case and as DNS has it (IDNA), and a port."""


def destination(url: URL) -> Destination:
    """Where a request to this address goes. Raises ValueError for one that names no host."""
    host = (url.raw_host or "").lower().removesuffix(".")
    if not is_host(host):
        raise ValueError("no host")
    with suppress(ValueError):
        host = str(ip_address(host))
    return host, url.port or _DEFAULT_PORT


def shown_destination(url: URL) -> str:
    """The entry of ``HTTPS_HOSTS`` that names this address's host."""
    host, port = destination(url)
    host = f"[{host}]" if ":" in host else host
    return host if port == _DEFAULT_PORT else f"{host}:{port}"


def parse_hosts(text: str) -> frozenset[Destination]:
    """Read ``HTTPS_HOSTS``: names with an optional port, with commas or white space between them.

    No wildcards: whoever gets hold of any name below a domain would get the token. Raises ValueError, which tells
    nothing of the text but how far it was read.
    """
    entries = [entry for entry in re.split(r"[\s,]+", text) if entry]
    if len(entries) > _MOST_HOSTS:
        raise ValueError(f"it names {len(entries)} hosts, {_MOST_HOSTS} are possible")
    return frozenset(_entry(entry, number) for number, entry in enumerate(entries, 1))


def _entry(entry: str, number: int) -> Destination:
    wrong = f"entry {number} is no HOST or HOST:PORT (no scheme, path or wildcard)"
    if re.search(r"[*/?#@\\%]|^\.|\.\.", entry):
        raise ValueError(wrong)
    try:
        return destination(read_url(f"https://{entry}"))
    except ValueError:
        raise ValueError(wrong) from None


def names_host(uri: str, credentials: Mapping[str, str]) -> bool:
    """Whether ``HTTPS_HOSTS`` among the credentials names the host of an ``https`` address. Raises ValueError."""
    return destination(read_url(uri, encoded=uri.isascii())) in parse_hosts(credentials.get(HTTPS_HOSTS, ""))


def check_https_hosts(uri: str, credentials: Mapping[str, str]) -> None:
    """See that credentials, where there are any, are meant for the host of an ``https`` address.

    Raises :class:`SourceError`: ``CredentialsNotFound``, naming the key and what to put there; ``SourceRefused`` for
    what is no address. Nothing that the Secret holds is repeated: whoever reads the message may not read the Secret.
    """
    if not any(credentials.get(name) for name in HTTPS_CREDENTIALS):
        return
    try:
        url = parse_url(uri)
        wanted = shown_destination(url)
    except ValueError:
        raise SourceError(Reason.SOURCE_REFUSED, "The model's URI is not a valid https address.") from None
    try:
        hosts = parse_hosts(credentials.get(HTTPS_HOSTS, ""))
    except ValueError as error:
        raise _refused(f"the key {HTTPS_HOSTS} of the Secret cannot be read: {error}", wanted) from None
    if not hosts:
        raise _refused(f"the Secret does not say which hosts its keys may be sent to (key {HTTPS_HOSTS})", wanted)
    if destination(url) not in hosts:
        raise _refused(f"the key {HTTPS_HOSTS} of the Secret does not name {wanted}, so nothing is sent there", wanted)


def _refused(what: str, wanted: str) -> SourceError:
    return SourceError(
        Reason.CREDENTIALS_NOT_FOUND,
        f"spec.model.credentials.secretName: {what}; if the Secret's owner means them for that host, add it:"
        f" {HTTPS_HOSTS}: {wanted} (several with commas between them; a port other than 443 as HOST:PORT).",
    )
