"""What went wrong with a request, in words: aiohttp's own texts may hold the whole address with its secrets."""

import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import aiohttp

from onnx_operator.api.conditions import Reason
from onnx_operator.api.urls import taken_literally
from onnx_operator.model.sources.base import SourceError, unreachable


def status_error(what: str, status: int, *, have_credentials: bool, advice: str) -> SourceError:
    """Make the error of an answer that is not the file. ``advice`` says which credentials to check, as a sentence."""
    if status in (401, 403):
        have = "The credentials were not accepted" if have_credentials else "It asks for credentials"
        return SourceError(Reason.SOURCE_UNAUTHORIZED, f"{what} answered {status}. {have}: {advice}")
    if status in (404, 410):
        hint = "" if "https://" in what or "http://" in what else taken_literally(what)
        return SourceError(
            Reason.SOURCE_NOT_FOUND, f"{what} does not exist (HTTP {status}); check spec.model.uri.{hint}"
        )
    if status >= 500 or status in (408, 425, 429):
        return unreachable(what, f"the server answered {status}")
    return SourceError(Reason.SOURCE_REFUSED, f"{what} answered {status} instead of the file; check spec.model.uri.")


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait, 0 when it does not."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def cause(error: BaseException, ca_setting: str) -> str:
    """Say why a connection failed or broke. ``ca_setting`` is the setting that adds authorities."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        detail = getattr(error.certificate_error, "verify_message", "") or "it does not verify"
        return f"the server's certificate is not trusted ({detail}); the setting {ca_setting} adds authorities"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"the TLS handshake failed ({getattr(error.os_error, 'reason', None) or 'protocol error'})"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {error.host} does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {error.host}:{error.port} ({_system(error.os_error)})"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "the connection was not made in time"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the body is shorter than promised"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "the server's answer is not valid HTTP"


def _system(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else "refused"
