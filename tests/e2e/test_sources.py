"""Sources that misbehave give the right reason, soon, and hold up nobody else."""

import pytest

from tests import models as files
from tests.e2e.faults import FaultServer
from tests.e2e.system import CREDENTIALS, READY_SECONDS, Models, conditions, operator_undisturbed, wait_for_operator

BEHAVIOURS = [
    ("status-403", "SourceUnauthorized", "Stalled"),
    ("status-404", "SourceNotFound", "Stalled"),
    ("status-500", "SourceUnreachable", "Reconciling"),
    ("hang", "SourceUnreachable", "Reconciling"),
    ("short", "SourceUnreachable", "Reconciling"),
    ("redirect-link-local", "SourceRefused", "Stalled"),
]
SOON_SECONDS = 30


@pytest.mark.parametrize(("behaviour", "reason", "kstatus"), BEHAVIOURS, ids=[b for b, _, _ in BEHAVIOURS])
def test_a_bad_source_gives_its_reason_while_another_model_becomes_ready(
    models: Models, faults: FaultServer, behaviour: str, reason: str, kstatus: str
) -> None:
    name = faults.unique("bad")
    faults.put(name, files.linear(40))
    # Each kill of the operator by another test would begin the wait anew.
    with operator_undisturbed():
        wait_for_operator(models.cluster)
        models.apply("bad", faults.url(behaviour, name))
        models.apply("good", models.upload(files.linear(41)))
        model = models.wait_for("bad", ready="False", reason=reason, timeout=SOON_SECONDS)
        models.wait_ready("good")
    assert kstatus in conditions(model)
    assert models.cluster.find("deployment", "bad", models.namespace) is None


def test_a_source_that_recovers_is_served_without_anybody_doing_anything(models: Models, faults: FaultServer) -> None:
    name = faults.unique("later")
    faults.put(name, files.linear(42))
    faults.behave(name, "status-500")
    models.apply("later", faults.url("ok", name))
    models.wait_for("later", ready="False", reason="SourceUnreachable", timeout=READY_SECONDS)
    faults.behave(name, None)
    models.wait_ready("later")


def test_https_without_an_etag_is_served_and_said_to_be_not_reproducible(models: Models, faults: FaultServer) -> None:
    name = faults.unique("plain")
    faults.put(name, files.linear(43))
    models.apply("plain", faults.url("no-etag", name))
    model = models.wait_ready("plain")
    assert conditions(model)["ModelValid"]["reason"] == "NotReproducible"
    assert model["status"]["model"]["source"]["kind"] == "None"


def test_a_secret_must_exist_consent_and_hold_the_keys(models: Models) -> None:
    uri = models.upload(files.linear(44))
    model = {"credentials": {"secretName": "later"}}
    models.apply("secret", uri, model=model)
    found = models.wait_for("secret", ready="False", reason="CredentialsNotFound", timeout=READY_SECONDS)
    assert "'later'" in conditions(found)["ModelValid"]["message"]

    secret = models.system.store.credentials_secret("later")
    label = secret["metadata"].pop("labels")
    models.cluster.apply(secret, models.namespace)
    models.wait_for(
        "secret",
        reason="CredentialsNotFound",
        where=lambda m: "consent" in conditions(m)["ModelValid"]["message"],
    )
    ((key, value),) = label.items()
    models.cluster.kubectl("label", "secret", "later", f"{key}={value}", "-n", models.namespace)
    models.wait_ready("secret")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [("s3://no-such-bucket/model.onnx", "SourceNotFound"), ("s3://models/no/such/key.onnx", "SourceNotFound")],
    ids=["bucket", "key"],
)
def test_what_is_not_there_is_named(models: Models, uri: str, reason: str) -> None:
    models.apply("missing", uri)
    model = models.wait_for("missing", ready="False", reason=reason, timeout=READY_SECONDS)
    missing = uri.split("/")[2] if "bucket" in uri else "no/such/key.onnx"
    assert missing in conditions(model)["ModelValid"]["message"]


def test_wrong_keys_are_unauthorised(models: Models) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "wrong", "labels": {"onnx-operator.dev/credentials": "true"}},
        "stringData": {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"},
    }
    models.cluster.apply(secret, models.namespace)
    models.apply("wrong", models.upload(files.linear(45)), model={"credentials": {"secretName": "wrong"}})
    models.wait_for("wrong", ready="False", reason="SourceUnauthorized", timeout=READY_SECONDS)
    models.patch("wrong", {"model": {"credentials": {"secretName": CREDENTIALS}}})
    models.wait_ready("wrong")


def test_a_wrong_digest_and_files_that_are_no_model_are_refused(models: Models) -> None:
    good = files.linear(46)
    models.apply("digest", models.upload(good, "digest"), model={"sha256": "0" * 64})
    models.apply("text", models.upload(b"<html><body>Sign in</body></html>", "text"))
    models.apply("cut", models.upload(good[: len(good) // 2], "cut"))
    models.apply("graph", models.upload(files.invalid_graph(), "graph"))
    expected = {"digest": "DigestMismatch", "text": "NotOnnx", "cut": "Corrupt", "graph": "InvalidGraph"}
    for name, reason in expected.items():
        models.wait_for(name, ready="False", reason=reason, timeout=READY_SECONDS)
    assert "dangling" in conditions(models.get("graph"))["ModelValid"]["message"]
    assert not models.cluster.list("pods", models.namespace)


def test_a_pod_that_cannot_download_says_why(models: Models, faults: FaultServer) -> None:
    name = faults.unique("gone")
    faults.put(name, files.linear(47))
    models.apply("gone", faults.url("ok", name))
    models.wait_ready("gone")
    faults.behave(name, "status-403")
    models.patch("gone", {"replicas": 2})
    # The pod that serves goes on, and the model is Ready by it.
    failing = models.wait_for("gone", ready="True", where=lambda m: m["status"].get("failures"))
    assert failing["status"]["failures"][0]["reason"] == "DownloadFailed"
    assert conditions(failing)["Progressing"]["reason"] == "Scaling"
    assert "403" in conditions(failing)["Progressing"]["message"]
    faults.behave(name, None)
    models.wait_for("gone", ready="True", reason="Complete", timeout=240)
