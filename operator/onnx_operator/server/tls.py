"""TLS, and mutual TLS, for both protocols."""

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the server's certificate (with its chain) and key, and the CA whose clients are let in."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A context for TLS 1.2 and later. Raises ValueError naming the file that is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{files.certificate} and {files.key} are not a certificate and its key: {error}") from None
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"{files.client_ca} holds no certificates: {error}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context
