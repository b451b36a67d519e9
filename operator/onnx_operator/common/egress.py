"""How the outside is reached: proxies, and certificate authorities that are trusted besides the system's.

They are files, mounted from a ConfigMap or a Secret, and read whenever something is about to be asked: a change takes
no restart. What the files may be called follows the variables that other programs know.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

DIRECTORY = "/etc/onnx-operator/egress"
VARIABLE = "ONNX_EGRESS_DIRECTORY"
"""Names another folder than ``DIRECTORY``."""
CA_FILES = ("ca.crt", "ca-bundle.crt")
"""The second is what OpenShift writes into a ConfigMap that asks for it."""
MAX_BYTES = 1 << 20
"""Of a file: a ConfigMap holds no more."""
MAX_ENTRIES = 256
_NAME = re.compile(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


class EgressError(ValueError):
    """A file holds what cannot be used; the message names it and not what it holds, which may be a password."""


@dataclass(frozen=True)
class Egress:
    """What the files say."""

    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: tuple[str, ...] = ()
    proxied_hosts: tuple[str, ...] = ()
    """Hosts of users' addresses that are asked through the proxy; ``*.example.com`` for all below."""
    ca_bundle: str = ""

    def proxy_for(self, scheme: str, host: str, port: int) -> str:
        """The address of the proxy to ask, or nothing, for whatever the platform team has chosen."""
        proxy = self.https_proxy if scheme == "https" else self.http_proxy
        return "" if not proxy or any(_excludes(entry, host, port) for entry in self.no_proxy) else proxy

    def may_proxy(self, host: str) -> bool:
        """Whether a host that a user has chosen is one that the proxy may be asked for.

        It connects in our place, so that nobody sees to which address. Only what is named here goes through it: the
        platform team says that these names lead to nothing inside.
        """
        return any(host == name or (name[0] == "*" and host.endswith(name[1:])) for name in self.proxied_hosts)


NONE = Egress()


def _excludes(entry: str, host: str, port: int) -> bool:
    name, _, only = entry.rpartition(":") if re.search(r"[^:]:[0-9]+$|\]:[0-9]+$", entry) else (entry, "", "")
    if only and int(only) != port:
        return False
    name = name.strip("[]").removeprefix("*.").lower()
    if name == "*":
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return bool(name) and (host == name.removeprefix(".") or host.endswith(f".{name.removeprefix('.')}"))
    try:
        network = ip_network(name, strict=False)
    except ValueError:
        return False
    return address in network


def read_egress(directory: Path | None = None) -> Egress:
    """Read the files as they are now; those that are not there say nothing.

    Raises:
        EgressError: one cannot be used.
    """
    folder = directory or Path(os.environ.get(VARIABLE) or DIRECTORY)
    if not folder.is_dir():
        return NONE
    return Egress(
        http_proxy=_proxy(folder, "HTTP_PROXY"),
        https_proxy=_proxy(folder, "HTTPS_PROXY"),
        no_proxy=tuple(_list(folder, "NO_PROXY")),
        proxied_hosts=tuple(_hosts(folder, "PROXIED_HOSTS")),
        ca_bundle="\n".join(filter(None, (_text(folder, name) for name in CA_FILES))),
    )


def _text(folder: Path, name: str) -> str:
    try:
        with (folder / name).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise EgressError(f"{name} holds more than {MAX_BYTES} bytes")
        return data.decode().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise EgressError(f"{name} cannot be read: {type(error).__name__}") from None


def _proxy(folder: Path, name: str) -> str:
    text = _text(folder, name)
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = None
    if not usable or parts.path not in ("", "/") or parts.query or parts.fragment or re.search(r"\s", text):
        raise EgressError(f"{name} must be the address of a proxy, such as http://proxy.example.com:3128")
    return text


def _list(folder: Path, name: str) -> Iterable[str]:
    entries = [entry for entry in re.split(r"[\s,]+", _text(folder, name)) if entry]
    if len(entries) > MAX_ENTRIES:
        raise EgressError(f"{name} has more than {MAX_ENTRIES} entries")
    return entries


def _hosts(folder: Path, name: str) -> Iterable[str]:
    for number, entry in enumerate(_list(folder, name), 1):
        host = entry.lower().removesuffix(".")
        # Neither * alone nor *.com: whoever chooses an address would choose a name that leads inside.
        too_wide = host.startswith("*.") and host.count(".") < 2
        if not _NAME.fullmatch(host) or too_wide or _is_address(host):
            raise EgressError(f"entry {number} of {name} must be a host, such as models.example.com or *.example.com")
        yield host


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        # A name whose last label is a number is taken for an IPv4 address by some.
        return host.rpartition(".")[2].isdigit()
    return True
