"""What the runtime makes of a model's structure: asked with stand-ins, and again with values before it is a refusal."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto

from onnx_operator.model.elements import bits
from onnx_operator.model.reading.folder import Folder
from onnx_operator.model.reading.skeleton import KEEP_NUMBERS_BYTES, KEPT_TYPES, Skeleton, Weight
from onnx_operator.model.reading.weights import plain
from onnx_operator.model.sources.base import is_confined
from onnx_operator.model.trial.runtime import Answer, Runtime
from onnx_operator.model.trial.standins import StandIns, may_be_folded, with_defaults, with_stand_ins

_FEW_BYTES = 64
"""Of values in another file that by their type are no sizes or the like, such as scales."""
_MAX_READS, _READ_BYTES = 256, 8 << 20
"""Of all these."""
_CONFIRM_BYTES = 48 << 20
"""Of values that are read before a refusal is believed, the smallest first."""
_FOLDED_NODES = 5_000
"""Above which what would be known from computed constants stays unknown: it takes as long as loading."""
_IN_ANOTHER_FILE = "Please load external data into raw data for tensor: "
_MAX_MAPPINGS = 30_000
"""A process may have twice as many."""
_NO_ROOM = Answer(None, "it had too little memory")
Room = Callable[[int], AbstractContextManager[bool]]
"""Makes room for so many mapped bytes; False where there is none."""


def ask(
    runtime: Runtime,
    skeleton: Skeleton,
    folder: Folder,
    name: str,
    beside: Callable[[str], str],
    room: Room = lambda size: nullcontext(True),
) -> Answer:
    """Load the structure; a refusal is confirmed with more of the values of ``name`` and the files ``beside`` it."""
    if not skeleton.lists.whole:
        return Answer(None, "its trees are too large for that")
    files = _Files(folder, name, beside)
    first = with_stand_ins(skeleton)
    answer = _load(runtime, skeleton, first, room)
    if answer.loads:
        return _with_folded_shapes(runtime, skeleton, answer, files, room)
    if answer.loads is None or not first.unread or _needs_value_inside(answer, first.unread):
        return answer
    second = with_stand_ins(skeleton, _Reader(files, first.unread))
    confirmed = _load(runtime, skeleton, second, room)
    if confirmed.loads is False and second.texts:
        return Answer(None, "its texts are too large to be read for this")
    return confirmed


def _with_folded_shapes(runtime: Runtime, skeleton: Skeleton, answer: Answer, files: "_Files", room: Room) -> Answer:
    """The answer, with shapes of outputs that only show when constants are computed, as they will be in pods."""
    graph = skeleton.model.graph
    outputs = {value.name for value in graph.output}
    # What has the name of an input's dimension is as open as that one.
    given = {size for each in answer.interface if each.name not in outputs for size in each.shape}
    open_ends = {size for each in answer.interface if each.name in outputs for size in each.shape if not _is_size(size)}
    if open_ends <= given - {None} or len(graph.node) > _FOLDED_NODES or not may_be_folded(skeleton.model):
        return answer
    made = with_stand_ins(skeleton, _Sizes(files))
    model = with_defaults(made)
    folded = _load(runtime, skeleton, replace(made, model=model), room, folded=True) if model else answer
    found = {each.name: each for each in folded.interface}
    known = tuple(found.get(each.name, each) if each.name in outputs else each for each in answer.interface)
    return replace(answer, interface=known)


def _needs_value_inside(answer: Answer, unread: list[Weight]) -> bool:
    """Whether the runtime minds that a value lies in another file, as it will in pods: no value makes that good."""
    return any(weight.file and answer.words.endswith(f"{_IN_ANOTHER_FILE}{weight.name}") for weight in unread)


def _is_size(size: int | str | None) -> bool:
    return isinstance(size, int) and size >= 0


def _load(runtime: Runtime, skeleton: Skeleton, made: StandIns, room: Room, *, folded: bool = False) -> Answer:
    if len(made.sizes) > _MAX_MAPPINGS:
        return Answer(None, f"it has {len(made.sizes)} large tensors")
    try:
        data = made.model.SerializeToString()
    except EncodeError:
        return _NO_ROOM
    if skeleton.lists:
        data = skeleton.lists.put_back(data)
    with room(sum(made.sizes)) as enough:
        return runtime.load(data, made.sizes, folded=folded) if enough else _NO_ROOM


class _Files:
    """Reads the values of tensors, where they lie within the model's folder."""

    def __init__(self, folder: Folder, name: str, beside: Callable[[str], str]) -> None:
        self._folder = folder
        self._name = name
        self._beside = beside

    def read(self, weight: Weight) -> TensorProto | None:
        """A tensor with its values; nothing where they are not there."""
        return self._outer(weight) if weight.file else self._inner(weight)

    def _inner(self, weight: Weight) -> TensorProto | None:
        begin, end = weight.message
        tensor = TensorProto()
        try:
            tensor.ParseFromString(self._folder.read_at(self._name, begin, end))
        except DecodeError:
            return None
        return tensor

    def _outer(self, weight: Weight) -> TensorProto | None:
        location = plain(weight.file)
        if not bits(weight.data_type) or not is_confined(location):
            return None
        file, begin = self._beside(location), weight.offset
        size = self._folder.size(file)
        if size is None or begin + weight.stored_bytes > size:
            return None
        data = self._folder.read_at(file, begin, begin + weight.stored_bytes)
        return TensorProto(dims=weight.dims, data_type=weight.data_type, raw_data=data)


class _Sizes:
    """Values in other files that a structure may rest on, as it does on those that the skeleton keeps."""

    def __init__(self, files: _Files) -> None:
        self._files = files
        self._reads = 0
        self._bytes = 0

    def __call__(self, weight: Weight) -> TensorProto | None:
        """A tensor with its values; nothing for what is beyond the budget, or not there."""
        most = KEEP_NUMBERS_BYTES if weight.data_type in KEPT_TYPES else _FEW_BYTES
        if not weight.file or not 0 < weight.stored_bytes <= most:
            return None
        self._reads += 1
        self._bytes += weight.stored_bytes
        if self._reads > _MAX_READS or self._bytes > _READ_BYTES:
            return None
        return self._files.read(weight)


class _Reader:
    """The values of the smallest tensors that were not read, within a budget."""

    def __init__(self, files: _Files, unread: list[Weight]) -> None:
        self._files = files
        self._wanted: set[Weight] = set()
        left = _CONFIRM_BYTES
        for weight in sorted(unread, key=lambda each: (each.data_type != TensorProto.STRING, each.stored_bytes)):
            if weight.stored_bytes > left:
                continue
            left -= weight.stored_bytes
            self._wanted.add(weight)

    def __call__(self, weight: Weight) -> TensorProto | None:
        """A tensor with its values; nothing for what is beyond the budget, or not there."""
        return self._files.read(weight) if weight in self._wanted else None
