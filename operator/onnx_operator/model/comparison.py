"""What a new version of a model means for those who call the old one. Pure, from two reports."""

from collections.abc import Iterator
from dataclasses import dataclass

from onnx_operator.api.report import ModelReport, TensorSpec


@dataclass(frozen=True)
class Change:
    """One difference; ``breaking`` when a call that was right before may fail now, or its caller may."""

    text: str
    breaking: bool = False


def compare(old: ModelReport, new: ModelReport) -> list[Change]:
    """List the differences between the interfaces of two models, those that break callers first.

    Callers name tensors, so their order does not matter, and neither do the names of symbolic dimensions. An input
    may accept more than before, an output may promise more. ``[-1]`` is any rank.
    """
    changes = [*_side("input", old.inputs, new.inputs), *_side("output", old.outputs, new.outputs)]
    if old.truncated or new.truncated:
        changes.append(Change("one of the reports is cut: more may differ than is listed", breaking=True))
    return sorted(changes, key=lambda change: not change.breaking)


def _side(kind: str, old: list[TensorSpec], new: list[TensorSpec]) -> Iterator[Change]:
    before, after = ({spec.name: spec for spec in side} for side in (old, new))
    for name in before.keys() - after.keys():
        yield Change(f'{kind} "{name}" is gone', breaking=True)
    for name in after.keys() - before.keys():
        # Nobody sends an input that did not exist; an output that nobody asks for harms nobody.
        yield Change(f'{kind} "{name}" ({_text(after[name])}) is new', breaking=kind == "input")
    for name in before:
        if name in after:
            yield from _tensor(kind, before[name], after[name])


def _tensor(kind: str, old: TensorSpec, new: TensorSpec) -> Iterator[Change]:
    if old.datatype != new.datatype:
        yield Change(f'{kind} "{old.name}" was {old.datatype}, is {new.datatype}', breaking=True)
    if _sizes(old) == _sizes(new) and (old.shape == [-1]) == (new.shape == [-1]):
        return
    wider, narrower = (old, new) if kind == "output" else (new, old)
    fits = wider.shape == [-1] or _covers(_sizes(wider), _sizes(narrower))
    yield Change(f'{kind} "{old.name}" had the shape {_shape(old)}, has {_shape(new)}', breaking=not fits)


def _sizes(spec: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in spec.shape]


def _covers(wider: list[int], narrower: list[int]) -> bool:
    """Tell whether every shape of one kind is one of the other too."""
    return len(wider) == len(narrower) and all(w in (-1, n) for w, n in zip(wider, narrower, strict=True))


def _shape(spec: TensorSpec) -> str:
    return f"[{', '.join(map(str, spec.shape))}]"


def _text(spec: TensorSpec) -> str:
    return f"{spec.datatype} {_shape(spec)}"
