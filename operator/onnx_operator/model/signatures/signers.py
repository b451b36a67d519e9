"""Who is trusted to sign models: the keys, authorities and names of the settings, against what a signature brings.

``cryptography`` and ``pyopenssl`` are imported by the first use.
"""

import contextlib
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from onnx_operator.api.signatures import SignatureSettings

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore_models.common.v1 import PublicKeyIdentifier, X509CertificateChain

MAX_TEXT_LENGTH = 200
"""Characters of one thing of others' making in a message."""
_PEM_KEY = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_KEY_PREFIX = "key sha256:"


class SignatureError(Exception):
    """A signature does not hold, or not for what is asked; the message says what was found and what to do."""


@dataclass(frozen=True)
class Signer:
    """Somebody who is trusted: a public key, or the holder of a certificate together with the authorities."""

    name: str
    kind: Literal["key", "certificate"]
    pem: bytes
    """The public key, or the certificates of the authorities."""


def public_keys(settings: SignatureSettings) -> list[Signer]:
    """A signer for each key of the settings, under the fingerprint by which ``model_signing`` names it.

    Raises:
        SignatureError: a key cannot be used.
    """
    if not settings.public_keys.strip():
        return []
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    signers = []
    for block in _PEM_KEY.findall(settings.public_keys):
        try:
            key = serialization.load_pem_public_key(block.encode())
        except Exception as error:
            raise SignatureError(
                f"The setting signatures.publicKeys holds a key that cannot be read ({text(error)})."
            ) from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
            raise SignatureError(
                "The setting signatures.publicKeys holds a key of another kind than model_signing signs with. Expected"
                f" elliptic curve keys on {', '.join(_CURVES)}."
            )
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        signers.append(Signer(f"{_KEY_PREFIX}{hashlib.sha256(pem).hexdigest()}", "key", pem))
    if not signers:
        raise SignatureError(
            "The setting signatures.publicKeys holds no PEM public key. Expected text that begins with"
            " -----BEGIN PUBLIC KEY-----"
        )
    return signers


def authorities(settings: SignatureSettings) -> "list[Certificate]":
    """The certificates of the settings' authorities.

    Raises:
        SignatureError: they cannot be read.
    """
    if not settings.certificate_authorities.strip():
        return []
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(settings.certificate_authorities.encode())
    except Exception as error:
        raise SignatureError(
            f"The setting signatures.certificateAuthorities cannot be read as PEM certificates ({text(error)})."
        ) from None


def subjects(settings: SignatureSettings) -> set[str]:
    """The names that may sign by certificate, as RFC 4514 writes them; none: all.

    Raises:
        SignatureError: one is no such name.
    """
    from cryptography import x509

    names = set()
    for subject in settings.certificate_subjects:
        try:
            names.add(x509.Name.from_rfc4514_string(subject).rfc4514_string())
        except Exception as error:
            raise SignatureError(
                f"The setting signatures.certificateSubjects holds {shown(subject)}, which is not a name as in RFC"
                f" 4514, such as CN=ml-release,O=Example ({text(error)})."
            ) from None
    return names


def signers_by_key(settings: SignatureSettings, identifier: "PublicKeyIdentifier") -> list[Signer]:
    """The keys of the settings that may have made a signature with this hint of its key.

    Raises:
        SignatureError: none may.
    """
    signers = public_keys(settings)
    if not signers:
        raise SignatureError(
            "The model is signed with a key, but the setting signatures.publicKeys is empty: only signatures with a"
            " certificate count. Sign it with `model_signing sign certificate`, or ask the platform team to trust the"
            " key."
        )
    if not identifier.hint:
        return signers
    named = [signer for signer in signers if signer.name == f"{_KEY_PREFIX}{identifier.hint}"]
    if not named:
        known = ", ".join(signer.name for signer in signers)[:MAX_TEXT_LENGTH]
        raise SignatureError(
            f"The model is signed with another key ({shown(identifier.hint)}) than those of the setting"
            f" signatures.publicKeys: {known}. Sign it with the key of one of these, or ask the platform team to trust"
            " the other."
        )
    return named


def signer_by_certificate(settings: SignatureSettings, brought: "X509CertificateChain", now: datetime) -> Signer:
    """The holder of the certificate that a signature brings, once an authority of the settings stands for it.

    This checks more than the package, which takes a certificate as it was on its first day, whoever it names:
    nothing proves when a signature was made, so that the whole chain has to be valid ``now``.

    Raises:
        SignatureError: the certificate is not trusted for signing models.
    """
    trusted = authorities(settings)
    if not trusted:
        raise SignatureError(
            "The model is signed with a certificate, but the setting signatures.certificateAuthorities is empty: only"
            " signatures with a key count. Sign it with `model_signing sign key`, or ask the platform team to trust"
            " the certificate's authority."
        )
    chain, subject = _chain(brought)
    _check_chain(chain, trusted, now, subject)
    _check_usage(chain[0], subject)
    allowed = subjects(settings)
    if allowed and subject not in allowed:
        raise SignatureError(
            f"The model is signed by {shown(subject)}, who is not among the setting"
            " signatures.certificateSubjects. Have it signed by one of these, or ask the platform team to add the"
            " signer."
        )
    return Signer(f"certificate {printable(subject)}", "certificate", settings.certificate_authorities.encode())


def _chain(brought: "X509CertificateChain") -> "tuple[list[Certificate], str]":
    """The signing certificate with the intermediates that the signature brings, and the signer's name."""
    from cryptography import x509

    try:
        chain = [x509.load_der_x509_certificate(each.raw_bytes) for each in brought.certificates]
        return chain, chain[0].subject.rfc4514_string()
    except MemoryError:
        raise
    except Exception as error:
        raise SignatureError(
            f"The signature file brings no certificates that can be read ({text(error)}). Sign the model again."
        ) from None


def _check_chain(chain: "list[Certificate]", trusted: "list[Certificate]", now: datetime, subject: str) -> None:
    from OpenSSL import crypto

    store = crypto.X509Store()
    for authority in trusted:
        store.add_cert(crypto.X509.from_cryptography(authority))
    store.set_time(now)
    leaf, *between = (crypto.X509.from_cryptography(each) for each in chain)
    try:
        crypto.X509StoreContext(store, leaf, between).verify_certificate()
    except (crypto.X509StoreContextError, crypto.Error, ValueError) as error:
        raise SignatureError(
            f"The certificate of {shown(subject)}, valid from {chain[0].not_valid_before_utc:%Y-%m-%d} to"
            f" {chain[0].not_valid_after_utc:%Y-%m-%d}, is not trusted: {text(error)}. Sign the model with a valid"
            " certificate of an authority that is in the setting signatures.certificateAuthorities."
        ) from None


def _check_usage(certificate: "Certificate", subject: str) -> None:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    with contextlib.suppress(x509.ExtensionNotFound):
        if certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            return
    with contextlib.suppress(x509.ExtensionNotFound):
        if (
            ExtendedKeyUsageOID.CODE_SIGNING
            in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        ):
            return
    raise SignatureError(
        f"The certificate of {shown(subject)} is not for signing: neither its key usage says digitalSignature, nor"
        " its extended key usage codeSigning. Sign the model with a certificate for signing."
    )


def shown(value: object) -> str:
    """A value of others' making, quoted for a message."""
    return repr(printable(str(value)))


def text(error: BaseException) -> str:
    """What an error of a library says, for a message."""
    return printable(" ".join(str(error).split())) or type(error).__name__


def printable(value: str) -> str:
    """Text of others' making: bounded, and nothing in it that a terminal or JSON trips over."""
    return "".join(each if each.isprintable() else "?" for each in value[:MAX_TEXT_LENGTH])
