"""The ``WWW-Authenticate`` header, read in one pass whatever a stranger writes into it."""

import re

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SPACE = re.compile(r"[ \t]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_PLAIN = re.compile(r'[^\s,"]*')


def challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    """Schemes and their parameters (RFC 9110, 11.6.1), in the header's order and with names in lower case.

    What is malformed is passed over; a quoted text without an end ends the reading. The first of two parameters with
    the same name counts. Nothing is found in a header with other than ASCII characters.
    """
    if not header.isascii():
        return []
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    # Each step begins where the last one ended: the work is linear in the header's length.
    while at < len(header):
        token = _TOKEN.match(header, at)
        if token is None:
            at += 1
            continue
        at = _after_space(header, token.end())
        if header[at : at + 1] != "=":
            found.append((token[0].lower(), {}))
            continue
        at = _after_space(header, at + 1)
        quoted = header[at : at + 1] == '"'
        value = (_QUOTED if quoted else _PLAIN).match(header, at)
        if value is None:
            break
        at = value.end()
        if found:
            text = re.sub(r"\\(.)", r"\1", value[1], flags=re.DOTALL) if quoted else value[0]
            found[-1][1].setdefault(token[0].lower(), text)
    return found


def _after_space(header: str, at: int) -> int:
    space = _SPACE.match(header, at)
    assert space is not None
    return space.end()
