"""Signatures made by the real ``model_signing`` package: what is trusted, and what is refused with which words."""

import base64
import contextlib
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import model_signing
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from onnx_operator.api.signatures import SignatureSettings, SignedManifest
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.signatures.signing import (
    MAX_SIGNATURE_BYTES,
    SignatureError,
    check_settings,
    expected_digest,
    expected_digests,
    signature_names,
    verify_signature,
)

NOW = datetime.now(UTC)
FILES = {"model.onnx": b"the graph", "weights/part-0.bin": b"the weights"}
DIGESTS = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def new_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


@dataclass
class Holder:
    """A key with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


SIGNING = x509.KeyUsage(True, False, False, False, False, False, False, False, False)


def certify(
    name: str,
    by: Holder | None = None,
    *,
    authority: bool = False,
    days: tuple[int, int] = (-10, 10),
    extensions: tuple[x509.ExtensionType, ...] = (SIGNING,),
) -> Holder:
    key = new_key()
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return Holder(key, builder.sign(by.key if by else key, hashes.SHA256()))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("signed") / "resnet"
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="session")
def key() -> ec.EllipticCurvePrivateKey:
    return new_key()


@pytest.fixture(scope="session")
def root() -> Holder:
    return certify("root", authority=True, days=(-100, 100), extensions=())


@pytest.fixture(scope="session")
def intermediate(root: Holder) -> Holder:
    return certify("intermediate", root, authority=True, days=(-100, 100), extensions=())


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | bytes], Path]:
    """Writes something to a file of its own."""

    def write(content: str | bytes) -> Path:
        path = tmp_path_factory.mktemp("files") / "file"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


Store = Callable[[str | bytes], Path]


def sign_by_key(
    store: Store, model: Path, key: ec.EllipticCurvePrivateKey, hashing: model_signing.hashing.Config | None = None
) -> bytes:
    signature = store(b"")
    config = model_signing.signing.Config().use_elliptic_key_signer(private_key=store(private_pem(key)))
    config.set_hashing_config(hashing or model_signing.hashing.Config()).sign(model, signature)
    return signature.read_bytes()


def sign_by_certificate(store: Store, model: Path, holder: Holder, *chain: Holder) -> bytes:
    signature = store(b"")
    config = model_signing.signing.Config().use_certificate_signer(
        private_key=store(private_pem(holder.key)),
        signing_certificate=store(holder.pem),
        # It refuses to sign with an empty chain.
        certificate_chain=[store(each.pem) for each in chain or (holder,)],
    )
    config.sign(model, signature)
    return signature.read_bytes()


@pytest.fixture(scope="session")
def by_key(store: Store, folder: Path, key: ec.EllipticCurvePrivateKey) -> bytes:
    return sign_by_key(store, folder, key)


@pytest.fixture(scope="session")
def by_certificate(store: Store, folder: Path, intermediate: Holder) -> bytes:
    return sign_by_certificate(store, folder, certify("releases", intermediate), intermediate)


def trust_key(*keys: ec.EllipticCurvePrivateKey) -> SignatureSettings:
    return SignatureSettings(required=True, public_keys="".join(public_pem(each) for each in keys))


def trust(*holders: Holder, subjects: tuple[str, ...] = ()) -> SignatureSettings:
    return SignatureSettings(
        required=True,
        certificate_authorities="".join(each.pem for each in holders),
        certificate_subjects=list(subjects),
    )


def altered(signature: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    bundle = json.loads(signature)
    change(bundle)
    return json.dumps(bundle).encode()


# --- what is trusted


def test_a_trusted_key_tells_the_sha256_of_every_file_and_whose_key_it_was(
    by_key: bytes, key: ec.EllipticCurvePrivateKey
) -> None:
    manifest = verify_signature(by_key, trust_key(key))
    assert manifest.digests == DIGESTS
    assert manifest.signer == f"key sha256:{hashlib.sha256(public_pem(key).encode()).hexdigest()}"


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_keys_on_the_larger_curves_are_as_good(store: Store, folder: Path, curve: ec.EllipticCurve) -> None:
    larger = new_key(curve)
    assert verify_signature(sign_by_key(store, folder, larger), trust_key(larger)).digests == DIGESTS


def test_while_keys_are_exchanged_both_count(by_key: bytes, key: ec.EllipticCurvePrivateKey) -> None:
    assert verify_signature(by_key, trust_key(new_key(), key)).digests == DIGESTS


def test_an_old_signature_that_does_not_name_its_key_is_tried_with_all(
    by_key: bytes, key: ec.EllipticCurvePrivateKey, capfd: pytest.CaptureFixture[str]
) -> None:
    old = altered(by_key, lambda bundle: bundle["verificationMaterial"]["publicKey"].clear())
    assert verify_signature(old, trust_key(new_key(), key)).digests == DIGESTS
    with pytest.raises(SignatureError, match="made with another key"):
        verify_signature(old, trust_key(new_key(), new_key()))
    assert capfd.readouterr().out == ""


def test_a_certificate_of_a_trusted_authority_tells_who_signed(by_certificate: bytes, root: Holder) -> None:
    manifest = verify_signature(by_certificate, trust(root))
    assert manifest.digests == DIGESTS
    assert manifest.signer == "certificate CN=releases,O=Example"


def test_the_settings_may_hold_the_intermediate_that_the_signature_lacks(
    store: Store, folder: Path, root: Holder, intermediate: Holder
) -> None:
    signature = sign_by_certificate(store, folder, certify("releases", intermediate))
    assert verify_signature(signature, trust(root, intermediate)).digests == DIGESTS
    with pytest.raises(SignatureError, match="issuer"):
        verify_signature(signature, trust(root))


def test_a_code_signing_certificate_may_sign(store: Store, folder: Path, root: Holder) -> None:
    holder = certify("code", root, extensions=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),))
    assert verify_signature(sign_by_certificate(store, folder, holder), trust(root)).digests == DIGESTS


def test_keys_and_authorities_may_be_trusted_side_by_side(
    by_key: bytes, by_certificate: bytes, key: ec.EllipticCurvePrivateKey, root: Holder
) -> None:
    both = SignatureSettings(required=True, public_keys=public_pem(key), certificate_authorities=root.pem)
    assert verify_signature(by_key, both).digests == verify_signature(by_certificate, both).digests == DIGESTS


def test_only_the_named_subjects_may_sign_where_some_are_named(by_certificate: bytes, root: Holder) -> None:
    named = trust(root, subjects=("CN=other,O=Example", "CN=releases,O=Example"))
    assert verify_signature(by_certificate, named).digests == DIGESTS
    with pytest.raises(
        SignatureError, match=r"'CN=releases,O=Example', who is not among.*signatures.certificateSubjects"
    ):
        verify_signature(by_certificate, trust(root, subjects=("CN=other,O=Example",)))


def test_what_the_command_line_signs_verifies(
    store: Store, folder: Path, key: ec.EllipticCurvePrivateKey, root: Holder, intermediate: Holder
) -> None:
    def sign(*arguments: str | Path) -> bytes:
        signature = store(b"")
        command = [sys.executable, "-m", "model_signing", "sign", *arguments, "--signature", signature]
        subprocess.run(command, check=True, capture_output=True)
        return signature.read_bytes()

    by_key = sign("key", folder, "--private_key", store(private_pem(key)))
    assert verify_signature(by_key, trust_key(key)).digests == DIGESTS
    holder = certify("releases", intermediate)
    by_certificate = sign(
        *("certificate", folder / "model.onnx", "--private_key", store(private_pem(holder.key))),
        *("--signing_certificate", store(holder.pem), "--certificate_chain", store(intermediate.pem)),
    )
    assert verify_signature(by_certificate, trust(root)).digests == {".": DIGESTS["model.onnx"]}


# --- what is refused


def test_a_changed_manifest_is_refused(by_key: bytes, key: ec.EllipticCurvePrivateKey) -> None:
    def change(bundle: dict[str, Any]) -> None:
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"]).replace(DIGESTS["model.onnx"].encode(), b"0" * 64)
        envelope["payload"] = base64.b64encode(payload).decode()

    with pytest.raises(SignatureError, match=r"does not fit what it signs.*changed since.*Sign the model again"):
        verify_signature(altered(by_key, change), trust_key(key))


def test_another_key_is_named_next_to_those_that_are_trusted(by_key: bytes) -> None:
    with pytest.raises(SignatureError, match=r"signed with another key \('[0-9a-f]{64}'\).*publicKeys: key sha256:"):
        verify_signature(by_key, trust_key(new_key()))


def test_claiming_a_trusted_key_does_not_make_its_signature(
    store: Store, folder: Path, key: ec.EllipticCurvePrivateKey, by_key: bytes
) -> None:
    hint = json.loads(by_key)["verificationMaterial"]["publicKey"]["hint"]
    forged = altered(
        sign_by_key(store, folder, new_key()),
        lambda bundle: bundle["verificationMaterial"]["publicKey"].update(hint=hint),
    )
    with pytest.raises(SignatureError, match="made with another key"):
        verify_signature(forged, trust_key(key))


@pytest.mark.parametrize("days", [(-20, -1), (1, 20)])
def test_a_certificate_that_is_not_valid_now_is_refused_with_its_dates(
    store: Store, folder: Path, root: Holder, days: tuple[int, int]
) -> None:
    signature = sign_by_certificate(store, folder, certify("releases", root, days=days))
    until = f"{NOW + timedelta(days=days[1]):%Y-%m-%d}"
    with pytest.raises(SignatureError, match=f"to {until}, is not trusted: certificate (has expired|is not yet)"):
        verify_signature(signature, trust(root))
    assert verify_signature(signature, trust(root), now=NOW + timedelta(days=sum(days) / 2)).digests == DIGESTS


def test_an_authority_that_has_expired_certifies_nobody(store: Store, folder: Path) -> None:
    old = certify("old root", authority=True, days=(-20, -1), extensions=())
    signature = sign_by_certificate(store, folder, certify("releases", old, days=(-10, 10)))
    with pytest.raises(SignatureError, match="certificate has expired"):
        verify_signature(signature, trust(old))


def test_the_certificate_of_another_authority_is_refused(by_certificate: bytes) -> None:
    # Of the same name: the name alone must not do.
    other = certify("root", authority=True, days=(-100, 100), extensions=())
    with pytest.raises(SignatureError, match=r"'CN=releases,O=Example'.*is not trusted.*certificateAuthorities"):
        verify_signature(by_certificate, trust(other))


def test_an_authority_that_the_signature_itself_brings_is_not_trusted(store: Store, folder: Path, root: Holder) -> None:
    other = certify("other", authority=True, extensions=())
    signature = sign_by_certificate(store, folder, certify("releases", other), other)
    with pytest.raises(SignatureError, match="self-signed certificate in certificate chain"):
        verify_signature(signature, trust(root))


def test_who_is_no_authority_cannot_certify_others(store: Store, folder: Path, root: Holder) -> None:
    person = certify("releases", root)
    signature = sign_by_certificate(store, folder, certify("mallory", person), person)
    with pytest.raises(SignatureError, match=r"'CN=mallory,O=Example'.*is not trusted: invalid CA certificate"):
        verify_signature(signature, trust(root))


def test_a_certificate_for_something_else_may_not_sign(store: Store, folder: Path, root: Holder) -> None:
    encipherment = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    for extensions in ((encipherment, server), ()):
        signature = sign_by_certificate(store, folder, certify("web", root, extensions=extensions))
        with pytest.raises(SignatureError, match="'CN=web,O=Example' is not for signing"):
            verify_signature(signature, trust(root))


def test_a_second_chain_under_another_spelling_cannot_hide_an_expired_certificate(
    store: Store, folder: Path, root: Holder, by_certificate: bytes
) -> None:
    expired = json.loads(sign_by_certificate(store, folder, certify("releases", root, days=(-20, -1))))
    good = json.loads(by_certificate)["verificationMaterial"]["x509CertificateChain"]
    bad = expired["verificationMaterial"]["x509CertificateChain"]
    for one, other in ((good, bad), (bad, good)):
        expired["verificationMaterial"] = {
            "x509CertificateChain": one,
            "x509_certificate_chain": other,
            "tlogEntries": [],
        }
        with pytest.raises(SignatureError):
            verify_signature(json.dumps(expired).encode(), trust(root))


def test_a_kind_that_the_settings_do_not_trust_says_which_one_they_do(
    by_key: bytes, by_certificate: bytes, key: ec.EllipticCurvePrivateKey, root: Holder
) -> None:
    with pytest.raises(SignatureError, match=r"signed with a key, but the setting signatures.publicKeys is empty"):
        verify_signature(by_key, trust(root))
    with pytest.raises(
        SignatureError, match=r"with a certificate, but the setting signatures.certificateAuthorities is empty"
    ):
        verify_signature(by_certificate, trust_key(key))


@pytest.mark.parametrize("form", ["certificate", "x509CertificateChain"])
def test_a_keyless_signature_is_named_as_one_that_cannot_be_verified_here(
    by_certificate: bytes, root: Holder, form: str
) -> None:
    def change(bundle: dict[str, Any]) -> None:
        material = bundle["verificationMaterial"]
        certificate = material.pop("x509CertificateChain")["certificates"][0]
        material[form] = certificate if form == "certificate" else {"certificates": [certificate]}
        material["tlogEntries"] = [
            {"logIndex": "25915956", "logId": {"keyId": "wNI9atQGlz+VWfO6LRygH4QUfY/8W4RFwiT5i5"}}
        ]

    with pytest.raises(SignatureError, match=r"keyless.*not supported.*model_signing sign key"):
        verify_signature(altered(by_certificate, change), trust(root))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff" * 100,
        b"-----BEGIN PGP SIGNATURE-----",
        b"null",
        b"[]",
        b'{"verificationMaterial": null}',
        b'{"verificationMaterial": {}}',
        b'{"verificationMaterial": {"publicKey": {"hint": 5}}}',
        b'{"verificationMaterial": {"publicKey": {"hint": "\\ud800"}, "tlogEntries": []}}',
        b"[" * 500_000,
        b'{"verificationMaterial":' * 20_000,
        b'{"verificationMaterial": {"publicKey": ' + b"[" * 900 + b"]" * 900 + b"}}",
        b"9" * 100_000,
    ],
    ids=lambda content: content[:30].decode("ascii", "replace"),
)
def test_what_is_no_signature_is_refused_in_a_message_of_bounded_length(
    content: bytes, key: ec.EllipticCurvePrivateKey
) -> None:
    with pytest.raises(SignatureError, match="Sign the model again") as caught:
        verify_signature(content, trust_key(key))
    assert len(str(caught.value)) < 600


def test_a_file_of_endless_size_is_refused_unread(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(SignatureError, match=f"larger than {MAX_SIGNATURE_BYTES} bytes"):
        verify_signature(b" " * (MAX_SIGNATURE_BYTES + 1), trust_key(key))


def test_parts_that_are_missing_are_refused(by_key: bytes, by_certificate: bytes, root: Holder, key: Any) -> None:
    def without(signature: bytes, *path: str) -> bytes:
        bundle = json.loads(signature)
        place = bundle
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = [] if isinstance(place[path[-1]], list) else {}
        return json.dumps(bundle).encode()

    for signature in (
        without(by_key, "dsseEnvelope"),
        without(by_key, "dsseEnvelope", "signatures"),
        without(by_key, "verificationMaterial"),
    ):
        with pytest.raises(SignatureError):
            verify_signature(signature, trust_key(key))
    for signature in (
        without(by_certificate, "verificationMaterial", "x509CertificateChain"),
        without(by_certificate, "verificationMaterial", "x509CertificateChain", "certificates"),
    ):
        with pytest.raises(SignatureError):
            verify_signature(signature, trust(root))


@pytest.mark.parametrize(
    ("hashing", "how"),
    [
        (model_signing.hashing.Config().use_shard_serialization(shard_size=4), "'shards' with 'sha256'"),
        (model_signing.hashing.Config().use_file_serialization(hashing_algorithm="blake2"), "'files' with 'blake2b'"),
        (model_signing.hashing.Config().use_file_serialization(hashing_algorithm="blake3"), "'files' with 'blake3'"),
    ],
    ids=["shards", "blake2", "blake3"],
)
def test_digests_that_are_no_sha256_of_whole_files_are_refused(
    store: Store, folder: Path, key: ec.EllipticCurvePrivateKey, hashing: model_signing.hashing.Config, how: str
) -> None:
    with pytest.raises(SignatureError, match=f"signed by {how}.*model_signing's defaults"):
        verify_signature(sign_by_key(store, folder, key, hashing), trust_key(key))


def signed(payload: object, key: ec.EllipticCurvePrivateKey, by_key: bytes) -> bytes:
    """A signature of any payload, by a key that is trusted."""
    raw = json.dumps(payload).encode()
    kind = b"application/vnd.in-toto+json"
    encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(raw), raw)

    def change(bundle: dict[str, Any]) -> None:
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(raw).decode()
        made = key.sign(encoded, ec.ECDSA(hashes.SHA256()))
        bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(made).decode()

    return altered(by_key, change)


def statement(*resources: dict[str, str], **changes: object) -> dict[str, object]:
    total = hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in resources)).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": total}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": list(resources),
        },
        **changes,
    }


def resource(name: str, algorithm: str = "sha256", digest: str = DIGESTS["model.onnx"]) -> dict[str, str]:
    return {"name": name, "algorithm": algorithm, "digest": digest}


def test_a_payload_of_ones_own_making_verifies_so_that_the_refusals_below_mean_something(
    key: ec.EllipticCurvePrivateKey, by_key: bytes
) -> None:
    signature = signed(statement(resource("./a//model.onnx")), key, by_key)
    assert verify_signature(signature, trust_key(key)).digests == {"a/model.onnx": DIGESTS["model.onnx"]}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (statement(resource("../model.onnx")), "'../model.onnx', which is not a file of the model"),
        (statement(resource("/etc/model.onnx")), "'/etc/model.onnx', which is not a file of the model"),
        (statement(resource("a\nb\ud800")), "not a file of the model"),
        (statement(resource("a", "blake3")), "'a' by 'blake3', not sha256"),
        (statement(resource("a", digest="00ff")), "'a' by 'sha256', not sha256"),
        (statement(), "covers no file"),
        (statement(resource("a"), predicateType="https://slsa.dev/provenance/v1"), "Predicate type mismatch"),
        (statement(resource("a"), subject=[{"name": "m", "digest": {"sha256": "00"}}]), "Manifest is inconsistent"),
        (statement(resource("a"), predicate={}), "cannot be read as one of model_signing"),
        ("text", "cannot be read as one of model_signing"),
        ([], "cannot be read as one of model_signing"),
    ],
    ids=[
        "above", "absolute", "unprintable", "blake3", "short", "empty",
        "provenance", "inconsistent", "predicate", "text", "list",
    ],
)  # fmt: skip
def test_a_trusted_signature_over_anything_but_sha256_of_a_models_files_is_refused(
    payload: object, said: str, key: ec.EllipticCurvePrivateKey, by_key: bytes
) -> None:
    with pytest.raises(SignatureError, match=said):
        verify_signature(signed(payload, key, by_key), trust_key(key))


# --- whatever is in the file


@pytest.mark.parametrize("kind", ["key", "certificate"])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_signature_is_refused_or_says_what_the_whole_one_said(
    data: st.DataObject, kind: str, by_key: bytes, by_certificate: bytes, key: ec.EllipticCurvePrivateKey, root: Holder
) -> None:
    damaged = bytearray(by_key if kind == "key" else by_certificate)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    end = data.draw(st.sampled_from([len(damaged), data.draw(st.integers(0, len(damaged)))]))
    with contextlib.suppress(SignatureError):
        manifest = verify_signature(bytes(damaged[:end]), trust_key(key) if kind == "key" else trust(root))
        assert manifest.digests == DIGESTS


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_below_the_encoding_is_refused_or_says_what_the_whole_one_said(
    data: st.DataObject, by_certificate: bytes, root: Holder
) -> None:
    bundle = json.loads(by_certificate)
    envelope = bundle["dsseEnvelope"]
    chain = bundle["verificationMaterial"]["x509CertificateChain"]["certificates"]
    place, field = data.draw(
        st.sampled_from(
            [(chain[0], "rawBytes"), (chain[1], "rawBytes"), (envelope, "payload"), (envelope["signatures"][0], "sig")]
        )
    )
    raw = bytearray(base64.b64decode(place[field]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    place[field] = base64.b64encode(raw).decode()
    with pytest.raises(SignatureError):
        verify_signature(json.dumps(bundle).encode(), trust(root))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_signature_with_any_other_value_in_any_place_is_refused_or_says_what_the_whole_one_said(
    data: st.DataObject, by_key: bytes, by_certificate: bytes, key: ec.EllipticCurvePrivateKey, root: Holder
) -> None:
    trusted = SignatureSettings(required=True, public_keys=public_pem(key), certificate_authorities=root.pem)
    bundle = json.loads(data.draw(st.sampled_from([by_key, by_certificate])))
    place: Any = bundle
    while True:
        step = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[step], dict | list) or not place[step] or data.draw(st.integers(0, 3)) == 0:
            break
        place = place[step]
    place[step] = data.draw(JSON)
    with contextlib.suppress(SignatureError):
        assert verify_signature(json.dumps(bundle).encode(), trusted).digests == DIGESTS


CONFINED = """
import resource, sys
from pathlib import Path

import onnx_operator.model.signatures.signing as signing
from onnx_operator.api.signatures import SignatureSettings

brought = {"model_signing", "sigstore", "cryptography", "OpenSSL", "requests"} & sys.modules.keys()
assert not brought, brought
broken = []
def watch(event, arguments):
    writes = event == "open" and arguments[1] is not None and any(c in arguments[1] for c in "wax+")
    if writes or event.startswith(("socket.", "subprocess.", "os.exec", "os.fork", "os.remove", "os.mkdir")):
        broken.append((event, arguments))
sys.dont_write_bytecode = True
sys.addaudithook(watch)
pages = int(Path("/proc/self/statm").read_text().split()[0])
space = pages * resource.getpagesize() + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (space, space))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
signature, settings = sys.argv[1:]
if settings:
    trusted = SignatureSettings.model_validate_json(settings)
    print(signing.verify_signature(Path(signature).read_bytes(), trusted).signer)
else:
    signing.preload()
    assert "model_signing" in sys.modules
# urllib3 looks by a bind that reaches nobody whether the machine has IPv6.
probe = lambda event, arguments: event == "socket.__new__" or (event == "socket.bind" and arguments[1] == ("::1", 0))
calls = [each for each in broken if not probe(*each)]
assert not calls, calls
"""


@pytest.mark.parametrize("kind", ["key", "certificate", "preload"])
def test_verifying_needs_no_network_no_file_and_no_more_than_the_parsers_limits(
    kind: str, store: Store, by_key: bytes, by_certificate: bytes, key: ec.EllipticCurvePrivateKey, root: Holder
) -> None:
    signature = store(by_key if kind == "key" else by_certificate)
    trusted = {"key": trust_key(key).model_dump_json(), "certificate": trust(root).model_dump_json(), "preload": ""}
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, signature, trusted[kind]],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(each for each in sys.path if each)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith({"key": "key sha256:", "certificate": "certificate CN=", "preload": ""}[kind])


@pytest.mark.parametrize("ahead", [True, False])
async def test_a_sealed_child_verifies_without_a_file(
    ahead: bool, by_key: bytes, by_certificate: bytes, key: ec.EllipticCurvePrivateKey, root: Holder
) -> None:
    async with Parser(InspectionLimits(), signatures=ahead) as parser:
        for signature, trusted in ((by_key, trust_key(key)), (by_certificate, trust(root))):
            assert await parser.verify_signature(signature, trusted) == verify_signature(signature, trusted)
        for signature, trusted in (
            (by_key, trust_key(new_key())),
            (by_certificate[:-9], trust(root)),
            (b"", trust(root)),
        ):
            with pytest.raises(SignatureError) as expected:
                verify_signature(signature, trusted)
            with pytest.raises(SignatureError, match=re.escape(str(expected.value)[:60])):
                await parser.verify_signature(signature, trusted)


# --- settings


def test_requiring_signatures_without_trusting_anybody_is_an_error_of_the_settings() -> None:
    with pytest.raises(ValidationError, match="nobody is trusted: give PEM public keys as publicKeys"):
        SignatureSettings(required=True)
    assert SignatureSettings().required is False


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"public_keys": "ssh-ed25519 AAAA"}, "publicKeys holds no PEM public key"),
        (
            {"public_keys": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"},
            "publicKeys holds a key that cannot be read",
        ),
        ({"public_keys": public_pem(rsa.generate_private_key(65537, 2048))}, "publicKeys.*elliptic curve"),
        ({"public_keys": public_pem(new_key(ec.SECP256K1()))}, "publicKeys.*secp256r1"),
        ({"certificate_authorities": "hello"}, "certificateAuthorities cannot be read"),
        ({"certificate_subjects": ["releases"]}, "certificateSubjects holds 'releases', which is not a name"),
    ],
    ids=["ssh", "broken", "rsa", "curve", "authority", "subject"],
)
def test_settings_that_cannot_be_used_are_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SignatureError, match=said):
        check_settings(SignatureSettings(**wrong))


def test_good_settings_pass(key: ec.EllipticCurvePrivateKey, root: Holder) -> None:
    check_settings(
        SignatureSettings(
            required=True,
            public_keys=f"# ours\n{public_pem(key)}\n# theirs\n{public_pem(new_key())}",
            certificate_authorities=root.pem,
            certificate_subjects=["CN=releases,O=Example"],
        )
    )


# --- files


def test_a_signature_lies_beside_the_file_or_in_a_folder_above() -> None:
    assert signature_names("iris.onnx") == ("iris.onnx.sig", "model.sig")
    assert signature_names("a/b/m.onnx") == ("a/b/m.onnx.sig", "a/b/model.sig", "a/model.sig", "model.sig")
    assert signature_names("model") == ("model.sig",)


def test_the_digest_of_a_file_is_found_by_its_place_below_the_signature() -> None:
    manifest = SignedManifest(signer="key", digests=DIGESTS)
    assert expected_digest(manifest, "weights/part-0.bin") == DIGESTS["weights/part-0.bin"]
    assert expected_digest(manifest, "v1/model.onnx", signature_name="v1/model.sig") == DIGESTS["model.onnx"]
    assert expected_digest(manifest, "v1/model.onnx", signature_name="model.sig") is None
    assert expected_digest(manifest, "model.onnx", signature_name="v1/model.sig") is None
    assert expected_digest(manifest, "weights/../model.onnx") is None


def test_a_file_that_was_signed_by_itself_may_be_renamed(
    store: Store, folder: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    manifest = verify_signature(sign_by_key(store, folder / "model.onnx", key), trust_key(key))
    assert manifest.single_file
    names = expected_digests(manifest, "resnet50.onnx", [], signature_name="resnet50.onnx.sig")
    assert names == {"resnet50.onnx": DIGESTS["model.onnx"]}


def test_all_files_of_a_model_have_to_be_covered(
    store: Store, folder: Path, key: ec.EllipticCurvePrivateKey, by_key: bytes
) -> None:
    whole = verify_signature(by_key, trust_key(key))
    names = ("model.onnx", ["weights/part-0.bin", "model.onnx"])
    assert expected_digests(whole, *names, signature_name="model.sig") == DIGESTS
    alone = verify_signature(sign_by_key(store, folder / "model.onnx", key), trust_key(key))
    with pytest.raises(SignatureError, match=r"signs one file, but the model also reads 'weights/part-0.bin'"):
        expected_digests(alone, *names, signature_name="model.onnx.sig")
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=["weights"])
    some = verify_signature(sign_by_key(store, folder, key, hashing), trust_key(key))
    with pytest.raises(SignatureError, match=r"signed by key sha256:.*does not cover 'weights/part-0.bin'"):
        expected_digests(some, *names, signature_name="model.sig")
