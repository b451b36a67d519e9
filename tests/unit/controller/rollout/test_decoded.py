"""Revisions are decoded once, for as long as the object is the same."""

from dataclasses import replace

from onnx_operator.api import names
from onnx_operator.controller.revision.revisions import RevisionData, controller_revision, decode, new_revision
from onnx_operator.controller.revision.seal import Key, Sealer, Trust
from onnx_operator.controller.rollout import decoded as module
from onnx_operator.controller.rollout.decoded import Decoded
from tests.unit.controller.samples import files, many_files, report

SEALER = Sealer(Key(b"k" * 32))
MODEL = {"metadata": {"name": "m", "namespace": "ns", "uid": "u"}}


def stored(number=1, version="1", holding=None):
    data = RevisionData(
        spec={"model": {"uri": "s3://models/m.onnx"}},
        report=report(),
        interface=f"f{number}",
        files=holding or files(),
        pool="cpu",
        manifests=[],
    )
    item = controller_revision(new_revision("m", number, data, "key"), "m", "ns", SEALER)
    return {**item, "metadata": {**item["metadata"], "uid": f"u{number}", "resourceVersion": version}}


class Reader:
    def __init__(self):
        self.decoded, self.calls = Decoded(), 0

    def read(self, item, trust=None):
        def read():
            self.calls += 1
            found = decode(item, "m", "ns", SEALER)
            return replace(found, trust=trust) if trust else found

        return self.decoded.get(item, MODEL, read)


def test_the_same_object_is_decoded_once_and_a_changed_one_anew():
    reader = Reader()
    first = reader.read(stored())
    assert reader.read(stored()) is first
    assert reader.calls == 1
    reader.read(stored(version="2"))
    reader.read(stored(2))
    assert reader.calls == 3


class Packed:
    """A revision as the store has it, and how often it was unpacked."""

    def __init__(self, number=1, owner="u", holding=None):
        self.item, self.loads = stored(number, holding=holding), 0
        reference = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "m", "uid": owner, "controller": True}
        self.item["metadata"]["ownerReferences"] = [reference] if owner else []

    def load(self):
        self.loads += 1
        return self.item

    def recall(self, decoded, model=None):
        metadata = self.item["metadata"]
        return decoded.recall(model or MODEL, metadata["uid"], metadata["resourceVersion"], self.load, read)


def read(item):
    return decode(item, "m", "ns", SEALER)


def test_a_revision_that_was_read_before_is_not_even_unpacked():
    reader, packed = Reader(), Packed()
    assert packed.recall(reader.decoded) is None
    first = reader.read(packed.item)
    assert packed.recall(reader.decoded) is first
    assert packed.loads == 0


def test_a_long_list_of_files_is_read_only_once_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(module, "MAX_WEIGHT", 10)
    reader = Reader()
    history = [Packed(number, holding=many_files(300)) for number in range(1, 7)]
    for packed in history:
        reader.read(packed.item)
    found = [packed.recall(reader.decoded) for packed in history]
    assert [(r.name, r.number, r.notes, r.trust) for r in found] == [
        (r.name, r.number, r.notes, r.trust) for r in (read(packed.item) for packed in history)
    ]
    assert [packed.loads for packed in history] == [0] * 6
    for _ in range(3):
        assert len(found[2].data.files.files) == 301
    assert [packed.loads for packed in history] == [0, 0, 1, 0, 0, 0]
    assert found[2] == read(history[2].item)


def test_a_revision_is_recalled_for_the_model_that_controls_it_and_no_other():
    reader, packed, orphan = Reader(), Packed(), Packed(2, owner="")
    for each in (packed, orphan):
        reader.read(each.item)
    successor = {"metadata": {**MODEL["metadata"], "uid": "another"}}
    assert packed.recall(reader.decoded, successor) is None
    assert orphan.recall(reader.decoded) is None


def test_heads_of_revisions_have_a_bound(monkeypatch):
    monkeypatch.setattr(module, "MAX_HEADS", 3)
    reader = Reader()
    history = [Packed(number) for number in range(1, 7)]
    for packed in history:
        reader.read(packed.item)
    assert [packed.recall(reader.decoded) is None for packed in history] == [True, True, True, False, False, False]


def test_what_is_not_sealed_is_not_kept():
    reader = Reader()
    for _ in range(3):
        reader.read(stored(), Trust.FOREIGN)
    assert (reader.calls, len(reader.decoded)) == (3, 0)


def test_there_is_room_for_many_small_ones_or_a_few_large(monkeypatch):
    monkeypatch.setattr(module, "MAX_WEIGHT", 10)
    reader = Reader()
    for number in range(1, 30):
        reader.read(stored(number))
    assert len(reader.decoded) == 10
    for number in range(30, 40):
        reader.read(stored(number, holding=many_files(100)))
    assert len(reader.decoded) == 1
