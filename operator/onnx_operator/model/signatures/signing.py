"""OpenSSF model signatures: from the bytes of a signature file to the sha256 of every file that was signed.

Only the signature file is read, never the model: comparing digests is the caller's part. No function here touches
network or disk. ``model_signing`` and what it brings (about 50 MiB and a third of a second) are imported by the first
use, or ahead of it by :func:`preload`.

The package's public interface verifies a model on disk and hands out no manifest. So its readers and verifiers are
used directly, here and nowhere else, and the range of the dependency is tight.
"""

import contextlib
import importlib
import io
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast

from onnx_operator.api.signatures import SignatureSettings, SignedManifest
from onnx_operator.model.signatures.signers import (
    SignatureError,
    Signer,
    authorities,
    public_keys,
    shown,
    signer_by_certificate,
    signers_by_key,
    subjects,
    text,
)

if TYPE_CHECKING:
    from model_signing._signing.sign_sigstore_pb import Signature
    from model_signing.manifest import Manifest

__all__ = [
    "MAX_SIGNATURE_BYTES",
    "SignatureError",
    "check_settings",
    "expected_digest",
    "expected_digests",
    "preload",
    "signature_names",
    "verify_signature",
]

MAX_SIGNATURE_BYTES = 512 << 10
"""Of a signature file: about 2,500 signed files. Read no more than this and one byte from a source."""
_SIGN_AGAIN = "Sign the model again with `model_signing sign key` or `model_signing sign certificate`"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def signature_names(model_file: str) -> tuple[str, ...]:
    """Where the signature of a model may be, most particular first; the first that exists is the one that counts.

    ``model_file`` is the path of the ``.onnx`` file relative to the model's folder, and so are the results: beside
    the file under its own name, then as ``model.sig`` in its folder and in each one above.
    """
    path = PurePosixPath(model_file)
    names = [f"{path}.sig", *(str(folder / "model.sig") for folder in path.parents)]
    return tuple(dict.fromkeys(names))


def verify_signature(signature: bytes, settings: SignatureSettings, *, now: datetime | None = None) -> SignedManifest:
    """Verify the bytes of a signature file against the keys and authorities of the settings.

    ``now`` is the time at which certificates must be valid, with a time zone; the clock's where it is absent.
    Not for several threads at a time.

    Raises:
        SignatureError: the signature does not hold, or is of a kind that cannot be verified here.
        MemoryError: reading it takes more memory than this process may have.
    """
    _check_is_ours(signature)
    with _quiet():
        parsed = _parse(signature)
        # All that follows looks at this one object: a second reading could be made to differ.
        material = parsed.bundle.verification_material
        if material.public_key is not None:
            signers = signers_by_key(settings, material.public_key)
        elif material.x509_certificate_chain is not None:
            time = (now or datetime.now(UTC)).astimezone(UTC)
            with _refusing():
                signers = [signer_by_certificate(settings, material.x509_certificate_chain, time)]
        else:
            raise SignatureError(f"The signature file names nobody who signed it. {_SIGN_AGAIN}.")
        for signer in signers:
            manifest = _verify(parsed, signer)
            if manifest is not None:
                return _signed_manifest(manifest, signer.name)
    raise SignatureError(
        f"The signature does not fit what it signs, as one by {signers[0].name}: it was made with another key, or the"
        f" signature file was changed since. {_SIGN_AGAIN}."
    )


def check_settings(settings: SignatureSettings) -> None:
    """Check that the keys, authorities and subjects of the settings can be used.

    Raises:
        SignatureError: one cannot; the message names the setting.
    """
    public_keys(settings)
    authorities(settings)
    subjects(settings)


def preload() -> None:
    """Import what verifying takes, so that processes forked from this one need not; they may be unable to."""
    for name in ("model_signing.verifying", "OpenSSL.crypto", "cryptography.hazmat.backends.openssl.backend"):
        importlib.import_module(name)


def expected_digest(manifest: SignedManifest, file_name: str, *, signature_name: str = "model.sig") -> str | None:
    """The sha256 that was signed for a file, in hex; None where the signature does not cover it.

    Both names are relative to the model's folder. A signature of one file by itself knows no name: its digest is
    the answer whatever the name, and no file but that one has it.
    """
    if manifest.single_file:
        return manifest.digests["."]
    path, folder = PurePosixPath(file_name), PurePosixPath(signature_name).parent
    return manifest.digests.get(str(path.relative_to(folder))) if path.is_relative_to(folder) else None


def expected_digests(
    manifest: SignedManifest, model_file: str, other_files: Iterable[str], *, signature_name: str
) -> dict[str, str]:
    """The signed sha256, in hex, of each file that a model consists of; names are relative to the model's folder.

    Raises:
        SignatureError: the signature does not cover all of them.
    """
    others = list(dict.fromkeys(name for name in other_files if name != model_file))
    if manifest.single_file and others:
        raise SignatureError(
            f"{signature_name} signs one file, but the model also reads {shown(others[0])}, which it does not cover."
            " Sign the folder that holds both, and store the signature there as model.sig."
        )
    digests = {}
    for name in (model_file, *others):
        digest = expected_digest(manifest, name, signature_name=signature_name)
        if digest is None:
            raise SignatureError(
                f"{signature_name}, signed by {manifest.signer}, does not cover {shown(name)}. Sign the folder again"
                " when all files are in it, without ignoring this one."
            )
        digests[name] = digest
    return digests


def _check_is_ours(signature: bytes) -> None:
    """Name what was stored in the place of a signature with a key or certificate, where that can be told."""
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise SignatureError(
            f"The signature file is larger than {MAX_SIGNATURE_BYTES} bytes. Sign a folder with fewer files, or"
            " the model's file alone."
        )
    try:
        bundle = json.loads(signature.decode())
    except (ValueError, RecursionError) as error:
        raise SignatureError(
            f"The signature file is not a signature made by model_signing ({text(error)}). {_SIGN_AGAIN}."
        ) from None
    material = bundle.get("verificationMaterial") if isinstance(bundle, dict) else None
    if not isinstance(material, dict):
        raise SignatureError(
            f"The signature file holds JSON, but no signature of model_signing (verificationMaterial). {_SIGN_AGAIN}."
        )
    if material.get("certificate") or (material.get("x509CertificateChain") and material.get("tlogEntries")):
        raise SignatureError(
            "The model is signed without a key of one's own (keyless, by Sigstore), which takes outside services to"
            f" verify and is not supported. {_SIGN_AGAIN}."
        )


class _InMemory:
    """Bytes in the place of a file's path, as far as ``model_signing`` uses one."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_bytes(self) -> bytes:
        return self._data

    def read_text(self, encoding: str) -> str:
        return self._data.decode(encoding)


def _parse(signature: bytes) -> "Signature":
    from model_signing._signing.sign_sigstore_pb import Signature

    with _refusing():
        return Signature.read(cast(Path, _InMemory(signature)))


def _verify(signature: "Signature", signer: Signer) -> "Manifest | None":
    """What the signer signed; None where the signer did not make this signature."""
    from cryptography.exceptions import InvalidSignature
    from model_signing._signing.sign_certificate import Verifier as CertificateVerifier
    from model_signing._signing.sign_ec_key import Verifier as KeyVerifier

    trusted = cast(Path, _InMemory(signer.pem))
    verifier = KeyVerifier(trusted) if signer.kind == "key" else CertificateVerifier([trusted])
    with _refusing():
        try:
            return verifier.verify(signature)
        except InvalidSignature:
            return None


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Whatever a stranger's bytes make the package raise says only that they are none of its signatures."""
    try:
        yield
    except (SignatureError, MemoryError):
        raise
    except Exception as error:
        raise SignatureError(
            f"The signature file cannot be read as one of model_signing ({text(error)}). {_SIGN_AGAIN}."
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the package's advice on old signatures and certificates off the output."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _signed_manifest(manifest: "Manifest", signer: str) -> SignedManifest:
    how = manifest.serialization_type
    method, hash_type = how.get("method"), how.get("hash_type")
    if method != "files" or hash_type != "sha256":
        raise SignatureError(
            f"The model was signed by {shown(method)} with {shown(hash_type)}, from which the sha256 of its files"
            " cannot be taken. Sign it with model_signing's defaults: whole files with sha256."
        )
    digests = {}
    for resource in manifest.resource_descriptors():
        name, digest = resource.identifier, resource.digest.digest_hex
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not name.isprintable():
            raise SignatureError(
                f"The signature covers {shown(name)}, which is not a file of the model. {_SIGN_AGAIN}."
            )
        if resource.digest.algorithm != "sha256" or not _SHA256.fullmatch(digest):
            raise SignatureError(
                f"The signature covers {shown(name)} by {shown(resource.digest.algorithm)}, not sha256. Sign it with"
                " model_signing's defaults: whole files with sha256."
            )
        digests[name] = digest
    if not digests:
        raise SignatureError(f"The signature covers no file. {_SIGN_AGAIN}, with the model in the signed folder.")
    return SignedManifest(signer=signer, digests=digests)
