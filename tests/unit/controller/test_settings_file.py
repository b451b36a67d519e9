"""The settings file: what is wrong in it is named, nothing is ignored in silence."""

import pytest
import yaml

from onnx_operator.controller.settings.settings import SettingsError, load_settings, parse_settings
from tests.unit.controller.samples import A100, T4, certificate, public_key, settings

SMALLEST = {"serverImage": "registry.example/onnx-server:1.0"}


def test_the_smallest_file_is_the_server_image(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(SMALLEST))

    loaded = load_settings(path)

    assert loaded.server_image == SMALLEST["serverImage"]
    assert [p.name for p in loaded.effective_pools()] == ["cpu"]


def test_a_gpu_pool_alone_leaves_the_other_nodes_to_cpu_models():
    assert [(p.name, p.runtime) for p in settings(pools=[T4]).effective_pools()] == [("cpu", "CPU"), ("t4", "GPU")]


def test_a_cpu_pool_of_the_platform_team_is_the_only_one():
    assert [p.name for p in settings(pools=[{"name": "general"}, T4]).effective_pools()] == ["general", "t4"]


def test_a_pools_own_image_wins():
    loaded = settings(pools=[{"name": "general"}, T4])
    assert [loaded.image_of(p) for p in loaded.pools] == [SMALLEST["serverImage"], T4["serverImage"]]


def test_a_pool_is_open_to_all_namespaces_unless_it_names_some():
    loaded = settings(pools=[T4, A100])
    assert loaded.pools[0].allows("anything")
    assert loaded.pools[1].allows("research")
    assert not loaded.pools[1].allows("default")


def test_the_memory_of_an_accelerator_is_read():
    assert settings(pools=[T4]).pools[0].accelerator_memory_bytes == 16 * 2**30
    assert settings(pools=[{"name": "x", "runtime": "GPU"}]).pools[0].accelerator_memory_bytes is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"serverImage": None}, "serverImage"),
        ({"serverImage": ""}, "serverImage"),
        ({"severImage": "x"}, "severImage"),
        ({"workers": "many"}, "workers"),
        ({"workers": 0}, "workers"),
        ({"imagePullPolicy": "Sometimes"}, "imagePullPolicy"),
        ({"namespaces": "default"}, "namespaces"),
        ({"pools": {"t4": {}}}, "pools"),
        ({"pools": [{"runtime": "GPU"}]}, "pools.0.name"),
        ({"pools": [{"name": "T4"}]}, "pools.0.name"),
        ({"pools": [{"name": "t4", "runtime": "TPU"}]}, "pools.0.runtime"),
        ({"pools": [{"name": "t4", "nodeSelektor": {}}]}, "pools.0.nodeSelektor"),
        ({"pools": [{"name": "t4", "nodeSelector": {"gpu": 4}}]}, "pools.0.nodeSelector.gpu"),
        ({"pools": [{"name": "t4", "acceleratorMemory": "16 GB"}]}, "pools.0.acceleratorMemory"),
        ({"pools": [{"name": "t4", "tolerations": [{"efect": "NoSchedule"}]}]}, "pools.0.tolerations.0.efect"),
        ({"pools": [{"name": "t4"}, {"name": "t4"}]}, "t4"),
        ({"inspection": {"timeout": 3}}, "inspection.timeout"),
        ({"start": {"deadlineSeconds": 0}}, "start.deadlineSeconds"),
        ({"start": {"pullAllowanceSeconds": 10**9}}, "start.pullAllowanceSeconds"),
        ({"start": {"deadline": 3}}, "start.deadline"),
        ({"sources": {"s3": {"endpont": "http://s3"}}}, "sources.s3.endpont"),
        ({"sources": {"https": {"caBundel": "x"}}}, "sources.https.caBundel"),
        ({"sources": {"ftp": {}}}, "sources.ftp"),
        ({"sources": {"gs": {"endpont": "http://gs"}}}, "sources.gs.endpont"),
        ({"sources": {"gs": {"endpoint": "gs:9000"}}}, "sources.gs.endpoint"),
        ({"sources": {"s3": {"endpoint": "s3.example"}}}, "sources.s3.endpoint"),
        ({"sources": {"s3": {"endpoint": "https://me:pw@s3.example"}}}, "sources.s3.endpoint"),
        ({"sources": {"s3": {"endpoint": "https://s3.example:70000"}}}, "sources.s3.endpoint"),
        ({"sources": {"s3": {"caBundle": "-----BEGIN CERTIFICATE-----\nx\n"}}}, "sources.s3.caBundle"),
        ({"sources": {"https": {"caBundle": "/etc/ssl/ca.pem"}}}, "sources.https.caBundle"),
        ({"sources": {"az": {"account": "My_Account"}}}, "sources.az.account"),
        ({"sources": {"az": {"endpoint": "ftp://az.example"}}}, "sources.az.endpoint"),
        ({"sources": {"oci": {"plainHttpRegistries": ["http://registry:5000"]}}}, "sources.oci.plainHttpRegistries"),
        ({"sources": {"oci": {"plainHttpRegistries": "registry:5000"}}}, "sources.oci.plainHttpRegistries"),
        ({"sources": {"hf": {"endpoint": ""}}}, "sources.hf.endpoint"),
        ({"sources": {"hf": {"token": "hf_x"}}}, "sources.hf.token"),
        ({"sources": {"mlflow": {"trackingUri": "mlflow.example"}}}, "sources.mlflow.trackingUri"),
        ({"sources": {"mlflow": {"trackingUri": "https://mlflow.example?token=1"}}}, "sources.mlflow.trackingUri"),
        ({"sources": {"useOperatorIdentity": "sometimes"}}, "sources.useOperatorIdentity"),
        ({"signatures": {"required": True}}, "signatures"),
        ({"signatures": {"publicKey": "x"}}, "signatures.publicKey"),
        ({"signatures": {"publicKeys": "ssh-ed25519 AAAA"}}, "signatures.publicKeys"),
        (
            {"signatures": {"publicKeys": "-----BEGIN PUBLIC KEY-----\nA\n-----END PUBLIC KEY-----"}},
            "signatures.publicKeys",
        ),
        ({"signatures": {"certificateAuthorities": "x"}}, "signatures.certificateAuthorities"),
        ({"inspectorImage": 7}, "inspectorImage"),
        ({"egress": {"configMapName": "Not a name"}}, "egress.configMapName"),
        ({"egress": {"httpsProxy": "http://proxy:3128"}}, "egress.httpsProxy"),
        ({"runAsUser": 0}, "runAsUser"),
        ({"sources": {"allowedNetworks": ["10.0.0.0/40"]}}, "sources.allowedNetworks"),
        ({"sources": {"readTimeoutSeconds": "soon"}}, "sources.readTimeoutSeconds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_field_is_named(fields, named):
    document = {k: v for k, v in (SMALLEST | fields).items() if v is not None}
    with pytest.raises(SettingsError) as caught:
        parse_settings(document)
    assert named in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b", "just text", "42"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError):
        load_settings(path)


@pytest.mark.parametrize("content", [None, b"a: [", b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"settings\.yaml"):
        load_settings(path)


def test_an_empty_file_says_what_is_missing(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("")
    with pytest.raises(SettingsError, match="serverImage"):
        load_settings(path)


def test_the_same_network_settings_reach_inspection_and_fetch():
    loaded = settings(sources={"allowedNetworks": ["10.0.0.0/8"], "s3": {"endpoint": "http://s3:7070"}})
    assert loaded.sources.allowed_networks == ["10.0.0.0/8"]
    assert loaded.sources.s3.endpoint == "http://s3:7070"


def test_every_store_has_its_settings():
    sources = {
        "useOperatorIdentity": True,
        "https": {"caBundle": certificate()},
        "s3": {"endpoint": "http://s3:7070", "caBundle": certificate() + certificate()},
        "gs": {"endpoint": "http://gs.storage:4443", "caBundle": certificate()},
        "az": {"account": "models1", "endpoint": "http://az.storage:10000", "caBundle": certificate()},
        "oci": {
            "plainHttpRegistries": ["registry:5000", "registry.example", "[fd00::7]:5000"],
            "caBundle": certificate(),
        },
        "hf": {"endpoint": "https://mirror.example/hf", "caBundle": certificate()},
        "mlflow": {"trackingUri": "https://mlflow.example/", "caBundle": certificate()},
    }
    loaded = settings(sources=sources, inspectorImage="registry.example/onnx-operator:1.0").sources
    found = loaded.model_dump(by_alias=True)
    assert all(found[name] == value or value.items() <= found[name].items() for name, value in sources.items())


def test_signers_are_given_as_keys_or_as_the_authorities_that_certify_them():
    keys = settings(signatures={"required": True, "publicKeys": f"{public_key()}\n{public_key()}"})
    assert keys.signatures.required
    authority = settings(signatures={"required": True, "certificateAuthorities": certificate()})
    assert authority.signatures.certificate_authorities == certificate()
    assert not settings().signatures.required


def test_what_was_expected_instead_of_a_wrong_text_is_said():
    with pytest.raises(SettingsError, match=r"https://store\.example\.com:9000"):
        settings(sources={"s3": {"endpoint": "s3.example"}})
    with pytest.raises(SettingsError, match="BEGIN CERTIFICATE"):
        settings(sources={"s3": {"caBundle": "MIIB"}})
    with pytest.raises(SettingsError, match="HOST:PORT"):
        settings(sources={"oci": {"plainHttpRegistries": ["http://r"]}})
