"""What others say, without what differs from try to try: written into a status, it would be news each time. Pure."""

import re
from ipaddress import ip_address

_CANDIDATE = re.compile(
    r"(?P<dial>\b(?:tcp|udp)[46]? )?(?<![\w./-])"
    r"(?P<first>\[[0-9A-Fa-f:.]{2,45}(?:%[\w.-]{1,20})?\]:[0-9]{1,5}|(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?::[0-9]{1,5})?)"
    r"(?:->(?P<second>\[[0-9A-Fa-f:.]{2,45}(?:%[\w.-]{1,20})?\]:[0-9]{1,5}|(?:[0-9]{1,3}\.){3}[0-9]{1,3}:[0-9]{1,5}))?"
    r"(?![\w/]|[.:]\w)"
)
_ADDRESS = "ADDRESS"


def steady(message: str) -> str:
    """The message with ``ADDRESS`` for what a connection leads to: addresses with a port, and those of a dialled one.

    Names stay, and so do addresses alone, which may be what is wrong with somebody's object.
    """
    return _CANDIDATE.sub(_shown, message)


def _shown(found: re.Match[str]) -> str:
    first = found["first"]
    has_port = first.startswith("[") or ":" in first
    if not (has_port or found["dial"]) or not _is_address(first):
        return found[0]
    return f"{found['dial'] or ''}{_ADDRESS}"


def _is_address(text: str) -> bool:
    host = text[1:].partition("]")[0].partition("%")[0] if text.startswith("[") else text.partition(":")[0]
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
