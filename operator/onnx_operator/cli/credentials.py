"""Credentials on this machine: the stores' standard variables, which belong to the person at the keyboard.

Whoever types an address means it, so that a token goes there without further ado. A manifest may be somebody else's:
the hosts that it names get no token of ``https`` addresses unless ``HTTPS_HOSTS`` names them.
"""

from collections.abc import Mapping

from onnx_operator.api.conditions import Reason
from onnx_operator.api.schemes import HTTPS_CREDENTIALS, HTTPS_HOSTS, credential_names
from onnx_operator.model.sources import SourceError


def credentials_of(uri: str, environment: Mapping[str, str], *, typed: bool) -> dict[str, str]:
    """The variables that count for a URI; ``typed`` where a person gave it to the command, not a manifest.

    With ``HTTPS_HOSTS`` the tokens of ``https`` addresses go to those hosts alone, and others are read without any.
    Raises :class:`SourceError` where that variable cannot be read.
    """
    found = {name: environment[name] for name in credential_names(uri) if environment.get(name)}
    if not any(name in found for name in HTTPS_CREDENTIALS):
        return found

    from onnx_operator.model.sources.hosts import names_host, parse_hosts, shown_destination
    from onnx_operator.model.sources.web.addresses import read_url

    named = found.get(HTTPS_HOSTS, "")
    try:
        parse_hosts(named)
    except ValueError as error:
        raise SourceError(Reason.CREDENTIALS_NOT_FOUND, f"the variable {HTTPS_HOSTS} cannot be read: {error}") from None
    try:
        if typed and not named:
            return found | {HTTPS_HOSTS: shown_destination(read_url(uri, encoded=uri.isascii()))}
        meant = names_host(uri, found)
    except ValueError:
        meant = False  # no address at all: the source says so
    return found if meant else {name: value for name, value in found.items() if name not in HTTPS_CREDENTIALS}
