import pytest
from modelkit import CAPABILITIES
from webkit import Authority, make_authority

from onnx_operator.api.report import Capabilities


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def capabilities() -> Capabilities:
    return CAPABILITIES
