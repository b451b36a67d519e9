"""Checks of texts in the settings, in words that say what was expected."""

import base64
import binascii
import re
import ssl
from urllib.parse import urlsplit


def certificates(value: str) -> str:
    """PEM certificates, or nothing. Raises ValueError."""
    if value.strip():
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=value)
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(
                "must be PEM certificates, one after another, each from -----BEGIN CERTIFICATE----- to "
                f"-----END CERTIFICATE----- ({error})"
            ) from None
    return value


_PUBLIC_KEY = re.compile(r"-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----")


def public_keys(value: str) -> str:
    """PEM public keys, or nothing. Raises ValueError."""
    expected = "must be PEM public keys, each from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----"
    if _PUBLIC_KEY.sub("", value).strip():
        raise ValueError(expected)
    for body in _PUBLIC_KEY.findall(value):
        try:
            base64.b64decode("".join(body.split()), validate=True)
        except binascii.Error as error:
            raise ValueError(f"{expected} ({error})") from None
    return value


def address(value: str) -> str:
    """The address of a server, without credentials, or nothing. Raises ValueError."""
    if value:
        try:
            parts = urlsplit(value)
            # Read for its own check of the port.
            complete = parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            complete = None
        if not complete or parts.scheme not in ("https", "http") or parts.username or parts.query or parts.fragment:
            raise ValueError(
                "must be an address such as https://store.example.com:9000, without a user name, a query or a fragment"
            )
    return value


def registry(value: str) -> str:
    """A registry, as images name it. Raises ValueError."""
    if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", value):
        raise ValueError("must be HOST or HOST:PORT, such as registry.example.com:5000, without a scheme or a path")
    return value
