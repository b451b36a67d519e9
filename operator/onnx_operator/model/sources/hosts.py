"""Where the credentials of ``https`` addresses may go: to the hosts that their owner named beside them.

An address is chosen by whoever writes the OnnxModel, the Secret belongs to somebody else. Without a list of hosts in
the Secret itself, its token could be sent to any server.
"""

import re
from collections.abc import Iterable, Mapping

from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.api.schemes import HTTPS_CREDENTIALS, HTTPS_HOSTS, scheme_of
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources.base import SourceError
from onnx_operator.model.sources.web.addresses import Destination, destination, parse_url, read_url

_MAX_HOSTS = 64
_DEFAULT_PORTS = {"https": 443, "http": 80}
_PLAIN_HTTP = "sources.https.plainHttpHosts"


def shown_destination(url: URL) -> str:
    """The entry of a list of hosts, such as ``HTTPS_HOSTS``, that names this address's host."""
    host, port = destination(url)
    host = f"[{host}]" if ":" in host else host
    return host if port == _DEFAULT_PORTS.get(url.scheme) else f"{host}:{port}"


def parse_hosts(text: str) -> frozenset[Destination]:
    """Read ``HTTPS_HOSTS``: names with an optional port, with commas or white space between them.

    No wildcards: whoever gets hold of any name below a domain would get the token. Raises ValueError, which tells
    nothing of the text but how far it was read.
    """
    entries = [entry for entry in re.split(r"[\s,]+", text) if entry]
    if len(entries) > _MAX_HOSTS:
        raise ValueError(f"it names {len(entries)} hosts; expected at most {_MAX_HOSTS}")
    return frozenset(_entry(entry, number, "https") for number, entry in enumerate(entries, 1))


def parse_plain_http_hosts(entries: Iterable[str]) -> frozenset[Destination]:
    """Read the setting ``sources.https.plainHttpHosts``. Raises ValueError, which tells the number of the entry."""
    return frozenset(_entry(entry, number, "http") for number, entry in enumerate(entries, 1))


def _entry(entry: str, number: int, scheme: str) -> Destination:
    wrong = f"entry {number} is not HOST or HOST:PORT (no scheme, path or wildcard)"
    if re.search(r"[*/?#@\\%\s]|^\.|\.\.", entry):
        raise ValueError(wrong)
    try:
        host, port = destination(read_url(f"{scheme}://{entry}"))
    except ValueError:
        raise ValueError(wrong) from None
    if not port:  # nothing can listen there
        raise ValueError(wrong)
    return host, port


def plain_http_hosts(settings: SourceSettings) -> frozenset[Destination]:
    """What addresses of users may be asked without TLS. Raises :class:`SourceError` (``SourceRefused``)."""
    try:
        return parse_plain_http_hosts(settings.https.plain_http_hosts)
    except ValueError as error:
        raise SourceError(Reason.SOURCE_REFUSED, f"The setting {_PLAIN_HTTP} is malformed: {error}.") from None


def check_plain_http(uri: str, settings: SourceSettings) -> None:
    """See that an ``http`` address leads to a host that may be asked without TLS; others are of no concern.

    Raises :class:`SourceError` (``SourceRefused``), which says who can allow it.
    """
    if scheme_of(uri) != "http":
        return
    try:
        url = read_url(uri, encoded=uri.isascii())
        allowed = destination(url) in plain_http_hosts(settings)
    except ValueError:
        raise SourceError(Reason.SOURCE_REFUSED, "The model's URI is not a valid http address.") from None
    if not allowed:
        raise SourceError(
            Reason.SOURCE_REFUSED,
            f"Plain http is not allowed for the host {shown_destination(url)}: anybody on the way could read and change"
            f" what it sends. Use https, or ask the platform team to add the host to the setting {_PLAIN_HTTP}"
            " (kubectl onnx: --plain-http).",
        )


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
