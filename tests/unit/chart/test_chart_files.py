"""The chart's files are in step with the code: settings, CRD, version."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

import onnx_operator
from onnx_operator.api import crd
from onnx_operator.controller.settings.quantities import parse_quantity
from onnx_operator.controller.settings.settings import Settings, SettingsError, SettingsModel, parse_settings
from tests.tools.chart_values import values

CHART = Path(__file__).parents[3] / "charts" / "onnx-operator"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def _settings() -> dict[str, Any]:
    # The one value that the chart fills in.
    return {**VALUES["settings"], "serverImage": "localhost/onnx-server:1"}


def test_the_settings_of_the_values_are_the_operators_defaults() -> None:
    assert parse_settings(_settings()) == Settings(server_image="localhost/onnx-server:1")


def test_the_values_name_every_setting_and_none_is_misspelt_in_silence() -> None:
    def compare(model: type[BaseModel], given: dict[str, Any], path: str) -> None:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        assert set(given) == set(fields), f"values.yaml and Settings differ in {path}"
        for name, field in fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                assert issubclass(field.annotation, SettingsModel), f"{path}.{name} would ignore a misspelt name"
                compare(field.annotation, given[name], f"{path}.{name}")

    compare(Settings, VALUES["settings"], "settings")


def test_a_misspelt_setting_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="wrokers"):
        parse_settings({**_settings(), "wrokers": 3})


def test_the_charts_crd_is_the_generated_one() -> None:
    assert (CHART / "files" / "onnxmodels.onnx-operator.dev.yaml").read_text() == crd.to_yaml()


def test_the_chart_installs_the_version_that_it_lies_beside() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == onnx_operator.__version__


def test_what_the_documentation_tells_to_set_is_there_to_set() -> None:
    page = (CHART.parents[1] / "docs" / "install.md").read_text()
    found = {value.path for value in values((CHART / "values.yaml").read_text())}
    tops = {path.partition(".")[0] for path in found}
    told = {name for name in re.findall(r"`([a-z]\w+(?:\.\w+)+)(?:: [^`]*)?`", page) if name.partition(".")[0] in tops}
    assert len(told) > 10
    # A field of a security context is none of the values.
    assert not [name for name in told if name not in found and name.rpartition(".")[0] != "podSecurityContext"]


def test_the_quota_that_the_documentation_tells_is_what_the_pods_need() -> None:
    page = (CHART.parents[1] / "docs" / "install.md").read_text()
    limits = [VALUES[name]["resources"]["limits"]["memory"] for name in ("controller", "inspector")]
    (told,) = re.findall(r"needs (\w+) of `limits.memory` a replica", page)
    assert parse_quantity(told) == sum(parse_quantity(each) for each in limits)
