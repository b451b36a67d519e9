import pytest
from modelkit import CAPABILITIES
from storekit import quick_retries
from webkit import authority

from onnx_operator.api.report import Capabilities

__all__ = ["authority", "capabilities", "quick_retries"]


@pytest.fixture
def capabilities() -> Capabilities:
    return CAPABILITIES
