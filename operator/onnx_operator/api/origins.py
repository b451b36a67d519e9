"""Origins of web pages, as browsers write them: https://www.rfc-editor.org/rfc/rfc6454, section 6.2."""

import re

ANY_ORIGIN = "*"
ORIGIN = r"^(\*|[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?)$"
"""``*``, or scheme, host and port: in small letters, no path, other than ASCII as IDNA writes it."""
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def read_origin(text: str) -> str:
    """An origin without its scheme's own port, which browsers leave out. Raises ValueError for what is none."""
    origin = text.strip().lower()
    if not re.match(ORIGIN, origin):
        raise ValueError(f"{text!r} is not an origin; expected * or such as https://app.example.com, without a path")
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition(":")[0], "\0"))


def read_azure_origins(text: str) -> tuple[list[str], list[str]]:
    """What ``AML_CORS_ORIGINS`` lists, by commas: the origins, and what is none.

    Azure's documentation writes them as domains, which stand for their pages with and without TLS.
    """
    found: list[str] = []
    wrong: list[str] = []
    for entry in filter(None, (each.strip() for each in text.split(","))):
        written = [entry] if entry == ANY_ORIGIN or "://" in entry else [f"http://{entry}", f"https://{entry}"]
        try:
            found += [read_origin(each) for each in written]
        except ValueError:
            wrong.append(entry)
    return found, wrong
