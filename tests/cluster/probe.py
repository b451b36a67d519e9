"""Whether an API server is ready, asked with the standard library alone."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path


def ready(host: str, port: int, authority: Path, timeout: float = 3) -> bool:
    """Whether the API server at this address says that it is ready."""
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except OSError:
        return False
    connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
