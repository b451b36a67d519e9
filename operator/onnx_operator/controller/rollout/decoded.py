"""Revisions that were decoded, kept for as long as there is room: each look at a model needs them again. Pure.

Of a history little is asked for but names, numbers and notes. These are kept of many revisions; the rest, which may be
lists of thousands of files, of as many as there is room for, and otherwise decoded anew once it is asked for.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from onnx_operator.controller.cluster.kinds import Object
from onnx_operator.controller.cluster.owners import owner_uid
from onnx_operator.controller.revision.revisions import Revision, RevisionData, Unread

Found = Revision | Unread
Key = tuple[str, ...]

MAX_WEIGHT = 512
"""Some 25 KiB each: about what a revision of a model of few files takes."""
MAX_HEADS = 8192
"""Some 1.5 KiB each."""
_FILES_PER_WEIGHT = 16


class ChangedError(Exception):
    """What a revision was decoded from is not there any more."""


class Decoded:
    """The operator's own revisions, by the object that they were decoded from, as it was then."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Found] = OrderedDict()
        self._heads: OrderedDict[Key, tuple[Found, str]] = OrderedDict()
        """What is known without the data, and the UID of the model that controls it."""
        self._weight = 0

    def __len__(self) -> int:
        return len(self._known)

    def get(self, item: Object, model: Object, decode: Callable[[], Found | None]) -> Found | None:
        """What ``decode`` makes of a ControllerRevision, which is asked for once for as long as the object is the same.

        Only what is sealed is kept: strangers' objects are decoded whenever they are met.
        """
        metadata = item["metadata"]
        key = _key(model, metadata["uid"], metadata.get("resourceVersion") or "")
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        found = decode()
        if found and found.trust.holds and key[-1]:
            self._keep(key, found, owner_uid(metadata, model["metadata"]["name"]))
        return found

    def recall(
        self,
        model: Object,
        uid: str,
        version: str,
        load: Callable[[], Object],
        decode: Callable[[Object], Found | None],
    ) -> Found | None:
        """The same, of an object that is still packed; None where it was not decoded yet, or is not the model's.

        Args:
            model: the OnnxModel, by whose UID it must be controlled.
            uid: of the ControllerRevision.
            version: its resourceVersion.
            load: unpacks it.
            decode: reads it then.
        """
        key = _key(model, uid, version)
        head, owner = self._heads.get(key, (None, ""))
        if head is None or owner != model["metadata"]["uid"]:
            return None
        self._heads.move_to_end(key)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        if isinstance(head, Unread):
            return head

        @functools.cache
        def data() -> RevisionData:
            found = decode(load())
            if not isinstance(found, Revision):
                raise ChangedError(f"revision {head.name} is not what it was")
            self._keep(key, found, owner)
            return found.data

        return replace(head, data=data)

    def _keep(self, key: Key, found: Found, owner: str) -> None:
        if owner:
            self._heads[key] = (replace(found, data=_nothing) if isinstance(found, Revision) else found, owner)
            while len(self._heads) > MAX_HEADS:
                self._heads.popitem(last=False)
        self._weight += _weight(found) - (_weight(self._known[key]) if key in self._known else 0)
        self._known[key] = found
        while self._weight > MAX_WEIGHT:
            self._weight -= _weight(self._known.popitem(last=False)[1])


def _nothing() -> RevisionData:
    raise ChangedError("a revision's data is not at hand")


def _key(model: Object, uid: str, version: str) -> Key:
    # The API server alone gives UIDs and versions; the seal was made over namespace and model.
    return model["metadata"]["namespace"], model["metadata"]["name"], uid, version


def _weight(revision: Found) -> int:
    if isinstance(revision, Unread):
        return 1
    data = revision.data
    return 1 + (len(data.files.files if data.files else ()) + len(data.test_data)) // _FILES_PER_WEIGHT
