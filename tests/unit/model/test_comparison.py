"""``diff`` promises: what it calls compatible, no caller of the old model notices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.api.report import MemoryEstimate, ModelReport, TensorSpec
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.comparison import compare


def report(inputs: dict[str, object], outputs: dict[str, object] | None = None, **more) -> ModelReport:
    def side(specs: dict[str, object]) -> list[TensorSpec]:
        return [
            TensorSpec(name=name, datatype=kind, shape=list(shape))
            for name, (kind, *shape) in specs.items()  # type: ignore[misc]
        ]

    return ModelReport(
        source=SourcePin(kind="None", value=""),
        size_bytes=1,
        ir_version=8,
        opsets={},
        inputs=side(inputs),
        outputs=side(outputs or {"y": ("FP32", "N")}),
        memory=MemoryEstimate(weights_bytes=0, activations_bytes=0, resident_bytes=0),
        **more,
    )


X = {"x": ("FP32", "N", 4)}


def breaks(old: ModelReport, new: ModelReport) -> bool:
    return any(change.breaking for change in compare(old, new))


def test_the_same_interface_in_another_order_and_with_other_symbols_is_no_change() -> None:
    both = {"a": ("FP32", "N"), "b": ("INT64", "N")}
    turned = {"b": ("INT64", "batch"), "a": ("FP32", "batch")}
    assert compare(report(both), report(turned)) == []


@pytest.mark.parametrize(
    "new",
    [
        {},
        {"z": ("FP32", "N", 4)},
        {"x": ("FP64", "N", 4)},
        {"x": ("FP32", "N", 5)},
        {"x": ("FP32", 1, 4)},
        {"x": ("FP32", "N", 4, 1)},
        X | {"more": ("FP32", 1)},
    ],
    ids=["gone", "renamed", "type", "size", "batch fixed", "rank", "one more"],
)
def test_inputs_that_old_calls_do_not_fit(new) -> None:
    assert breaks(report(X), report(new))


@pytest.mark.parametrize("new", [{"x": ("FP32", "N", "M")}, {"x": ("FP32", -1)}], ids=["free size", "free rank"])
def test_an_input_may_accept_more(new) -> None:
    old = report({"x": ("FP32", "N", 4)})
    found = compare(old, report(new))
    assert [change.breaking for change in found] == [len(new["x"]) == 2 and new["x"][1] != -1]


@pytest.mark.parametrize(
    ("old", "new", "breaking"),
    [
        ({"y": ("FP32", "N", 3)}, {"y": ("FP32", "N", 3), "p": ("FP32", "N")}, False),
        ({"y": ("FP32", "N", 3), "p": ("FP32", "N")}, {"y": ("FP32", "N", 3)}, True),
        ({"y": ("FP32", "N", 3)}, {"y": ("FP32", 1, 3)}, False),
        ({"y": ("FP32", 1, 3)}, {"y": ("FP32", "N", 3)}, True),
        ({"y": ("FP32", "N", 3)}, {"y": ("FP32", "N", 10)}, True),
        ({"y": ("FP32", "N", 3)}, {"y": ("FP16", "N", 3)}, True),
    ],
)
def test_outputs_may_promise_more_but_not_less(old, new, breaking) -> None:
    assert breaks(report(X, old), report(X, new)) is breaking


def test_a_report_that_was_cut_proves_nothing() -> None:
    assert breaks(report(X), report(X, truncated=True))


_SHAPES = st.lists(st.one_of(st.integers(1, 3), st.just("N")), min_size=1, max_size=3)


@given(old=_SHAPES, new=_SHAPES, call=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_an_input_called_compatible_takes_every_call_that_the_old_one_took(old, new, call) -> None:
    def takes(shape: list[int | str]) -> bool:
        return len(shape) == len(call) and all(s in ("N", c) for s, c in zip(shape, call, strict=True))

    if not breaks(report({"x": ("FP32", *old)}), report({"x": ("FP32", *new)})) and takes(old):
        assert takes(new)
