"""The chart's files are in step with the code: settings, CRD, version."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

import onnx_operator
from onnx_operator.api import crd
from onnx_operator.controller.settings.settings import Settings, SettingsError, SettingsModel, parse_settings

CHART = Path(__file__).parents[3] / "charts" / "onnx-operator"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def _settings() -> dict[str, Any]:
    # The one value that the chart fills in.
    return {**VALUES["settings"], "serverImage": "localhost/onnx-server:1"}


def test_the_settings_of_the_values_are_the_operators_defaults() -> None:
    assert parse_settings(_settings()) == Settings(server_image="localhost/onnx-server:1")


def test_the_values_name_every_setting_and_none_is_misspelt_in_silence() -> None:
    def compare(model: type[BaseModel], values: dict[str, Any], path: str) -> None:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        assert set(values) == set(fields), f"values.yaml and Settings differ in {path}"
        for name, field in fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                assert issubclass(field.annotation, SettingsModel), f"{path}.{name} would ignore a misspelt name"
                compare(field.annotation, values[name], f"{path}.{name}")

    compare(Settings, VALUES["settings"], "settings")


def test_a_misspelt_setting_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="wrokers"):
        parse_settings({**_settings(), "wrokers": 3})


def test_the_charts_crd_is_the_generated_one() -> None:
    assert (CHART / "files" / "onnxmodels.onnx-operator.dev.yaml").read_text() == crd.to_yaml()


def test_the_chart_installs_the_version_that_it_lies_beside() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == onnx_operator.__version__
