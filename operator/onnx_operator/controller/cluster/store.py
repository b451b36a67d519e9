"""What is in the cluster, as far as it was told: by lists, by watches, and by the answers to the operator's own writes.

They arrive in any order. Of each object the newest that was told counts, by its resourceVersion. Answers to writes
bring nothing back: up to its place, a watch has told everything, and what the operator itself has seen gone is
remembered by its UID until the watch must have told it, too. What a list shows is as new as the moment at which it was
asked for: it counts against all that was known then, whatever the numbers say, since they go backwards where a backup
of etcd is restored.

Objects are kept as compressed JSON, cut to the fields in use. Anybody may make any number of them: beyond a bound those
of a kind and namespace are not kept, and :meth:`Store.knows` says so.
"""

import functools
import json
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx_operator.controller.cluster.kinds import Kind, Object
from onnx_operator.controller.cluster.naming import Labels
from onnx_operator.controller.settings.selector import ModelSelector

REMEMBERED_SECONDS = 600.0
"""How long it is remembered that something is gone: longer than a watch that is followed can be behind."""
MAX_REMEMBERED = 10_000
"""Deletions of a kind that are remembered; of more, the oldest are forgotten."""
MAX_OBJECT_BYTES = 128 * 1024
"""Most that is kept of one object; a larger one is read from the API server whenever it is looked at."""
MAX_NAMESPACE_BYTES = 32 * 1024 * 1024
"""Most that is kept of the objects of one kind in one namespace, together: those of some 10,000 models."""
MAX_BYTES = 192 * 1024 * 1024
"""Most that is kept of all kinds and namespaces together."""
ENTRY_BYTES = 512
"""About what is taken for each object beside its JSON."""
_SMALL_BYTES = 400
"""Below, compressing is not worth it."""

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Shape:
    """What is kept of a kind."""

    labels: Labels = field(default_factory=dict)
    """What its objects carry; others are not kept."""
    prune: Callable[[Object], Object | None] = lambda item: item
    """The fields in use, in an object of the same form; None where the whole object is of no use."""
    groups: Callable[[Object], tuple[str, ...]] = lambda item: ()
    """Names under which :meth:`Store.group` finds it."""
    news: Callable[[Object], Any] | None = None
    """What of it is news when it changes; None for all that is kept."""
    bounded: bool = True
    """Whether strangers can make any number of objects that ``prune`` keeps."""

    def selects(self, item: Object) -> bool:
        """Whether an object carries the labels."""
        carried = item["metadata"].get("labels") or {}
        if isinstance(self.labels, ModelSelector):
            return self.labels.matches(carried)
        return all(key in carried and value in (None, carried[key]) for key, value in self.labels.items())


@dataclass(frozen=True)
class Change:
    """An object has come, gone, or changed in what is news."""

    kind: Kind
    namespace: str
    name: str
    item: Object | None
    """As it was told, whole; None where only its absence was."""
    groups: tuple[str, ...]
    """The names under which it was found before."""


@dataclass(frozen=True)
class Large:
    """Stands for an object that is too large to be kept."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Handle:
    """An object that is kept, packed."""

    uid: str
    version: str
    load: Callable[[], Object | Large]
    """Unpacks it."""
    large: bool = False
    """Whether it is too large to be kept, so that there is nothing to unpack."""


def order_of(version: object) -> int | None:
    """A resourceVersion as a number that compares with others of its kind; None where it is none.

    So since Kubernetes 1.35, and in fact long before (https://www.kubernetes.dev/resources/keps/5504/): a whole number
    above 0 without leading zeros. Anything else is only the same or not.
    """
    if isinstance(version, str) and version.isascii() and version.isdigit() and version[0] != "0" and len(version) < 40:
        return int(version)
    return None


@dataclass(slots=True)
class _Entry:
    uid: str
    version: str
    order: int | None
    groups: tuple[str, ...]
    news: int
    body: bytes | None
    """None of what is too large to be kept."""
    told: int
    """When, by the store's own count."""
    scan: int = 0
    """The last scan that showed it."""

    @property
    def size(self) -> int:
        return ENTRY_BYTES + len(self.body or b"")


@dataclass(slots=True)
class _Deletion:
    order: int | None
    final: bool
    """Whether nothing of this UID can come any more; otherwise what is newer can."""
    told: int
    until: float


class _Deletions:
    """Deletions by UID, for a while."""

    def __init__(self) -> None:
        self._by_uid: OrderedDict[str, _Deletion] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_uid)

    def get(self, uid: str) -> _Deletion | None:
        return self._by_uid.get(uid)

    def drop(self, uid: str) -> None:
        self._by_uid.pop(uid, None)

    def add(self, uid: str, order: int | None, told: int, now: float, *, final: bool) -> None:
        old = self._by_uid.pop(uid, None)
        if old and old.order is not None and (order is None or old.order > order):
            order = old.order
        self._by_uid[uid] = _Deletion(order, final or bool(old and old.final), told, now + REMEMBERED_SECONDS)
        while len(self._by_uid) > MAX_REMEMBERED or next(iter(self._by_uid.values())).until < now:
            self._by_uid.popitem(last=False)


@dataclass
class _Kept:
    """All of one kind."""

    shape: Shape
    entries: dict[Key, _Entry] = field(default_factory=dict)
    groups: dict[Key, dict[str, None]] = field(default_factory=dict)
    gone: _Deletions = field(default_factory=_Deletions)
    """What the operator itself has seen gone; no event of strangers' adds to it."""
    places: dict[str | None, int] = field(default_factory=dict)
    """Of each scope, the version up to which everything was told."""
    sizes: dict[str, int] = field(default_factory=dict)
    full: set[str] = field(default_factory=set)
    scopes: set[str | None] = field(default_factory=set)

    def place(self, namespace: str) -> int:
        """The version up to which everything of a namespace was told."""
        return self.places.get(None, self.places.get(namespace, 0))

    def advance(self, scope: str | None, version: object) -> None:
        """All up to ``version`` was told."""
        if order := order_of(version):
            self.places[scope] = order


def packed(item: Object) -> bytes:
    """An object in few bytes."""
    text = json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
    return zlib.compress(text, 1) if len(text) > _SMALL_BYTES else text


def unpacked(body: bytes) -> Object:
    """The object that :func:`packed` was given."""
    found: Object = json.loads(body if body[:1] == b"{" else zlib.decompress(body))
    return found


class Store:
    """Objects of the kinds that it has shapes of. For one event loop, which nothing here keeps for long."""

    def __init__(self, shapes: Mapping[Kind, Shape], clock: Callable[[], float] = time.monotonic) -> None:
        """Begin knowing nothing.

        Args:
            shapes: what is kept of each kind.
            clock: seconds; for what is forgotten after a while.
        """
        self.shapes = dict(shapes)
        self.changed: Callable[[Change], None] = lambda change: None
        """Told of each change after it, and of what watches bring of objects that are not kept."""
        self._kinds = {kind: _Kept(shape) for kind, shape in shapes.items()}
        self._clock = clock
        self._count = 0
        self._size = 0

    # --- what is told -------------------------------------------------------------------------------------------------

    def heard(self, kind: Kind, item: Object) -> None:
        """An answer to a write of the operator's own shows this object."""
        if kind in self._kinds:
            self._put(kind, item, own=True)

    def missed(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """An answer of the API server's says that this object is gone for good."""
        if kind in self._kinds:
            self._kinds[kind].gone.add(uid, None, self._next(), self._clock(), final=True)
            self._absent(kind, (namespace, name), uid)

    def watched(self, kind: Kind, scope: str | None, event: str, item: Object) -> None:
        """The watch of a namespace (None: of all) brings this event, as :meth:`~.kube.Kube.watch` shows it."""
        if event == "DELETED":
            self._left(kind, item)
        elif event != "BOOKMARK":
            self._put(kind, item, readable=event != "UNREADABLE")
        self._kinds[kind].advance(scope, item["metadata"].get("resourceVersion"))

    def scanning(self, kind: Kind, scope: str | None) -> int:
        """A scan of a namespace (None: of all) is about to be asked for; the number is for what it shows.

        Nothing else but the operator's own writes may tell of the kind there until it is settled or given up.
        """
        kept = self._kinds[kind]
        if full := {namespace for namespace in kept.full if scope in (None, namespace)}:
            # It is tried again to keep all, and until then it is not known.
            kept.full -= full
            kept.scopes.discard(scope)
        return self._next()

    def scanned(self, kind: Kind, item: Object, scan: int) -> None:
        """The scan shows this object."""
        self._put(kind, item, scan=scan)

    def settled(self, kind: Kind, scope: str | None, version: str, scan: int) -> None:
        """The scan of a namespace (None: of all) is over: what it has not shown was not there at ``version``."""
        kept, order = self._kinds[kind], order_of(version)

        def stays(entry: _Entry) -> bool:
            # Told since the scan began, it may be newer than what the scan saw.
            newer = order is not None and entry.order is not None and entry.order > order
            return entry.scan == scan or (entry.told > scan and newer)

        absent = [(k, e.uid) for k, e in kept.entries.items() if scope in (None, k[0]) and not stays(e)]
        for key, uid in absent:
            self._absent(kind, key, uid)
        kept.places.pop(scope, None)
        kept.advance(scope, version)
        kept.scopes.add(scope)

    def lost(self, kind: Kind, scope: str | None) -> None:
        """What is kept of a namespace (None: of all) does not follow the cluster any more."""
        self._kinds[kind].scopes.discard(scope)

    # --- what is known ------------------------------------------------------------------------------------------------

    def knows(self, kind: Kind, namespace: str) -> bool:
        """Whether what is kept of a kind in a namespace is all there is."""
        kept = self._kinds.get(kind)
        return kept is not None and namespace not in kept.full and not kept.scopes.isdisjoint((None, namespace))

    def find(self, kind: Kind, namespace: str, name: str) -> Object | Large | None:
        """The object, as it is kept; None where none is."""
        kept = self._kinds.get(kind)
        entry = kept.entries.get((namespace, name)) if kept else None
        return _shown((namespace, name), entry) if entry else None

    def group(self, kind: Kind, namespace: str, group: str) -> Iterator[Object | Large]:
        """The objects of a group, as they are kept."""
        return (handle.load() for handle in self.handles(kind, namespace, group))

    def handles(self, kind: Kind, namespace: str, group: str) -> Iterator["Handle"]:
        """The same, each to be unpacked once it is asked for."""
        kept = self._kinds[kind]
        for name in list(kept.groups.get((namespace, group), ())):
            if entry := kept.entries.get((namespace, name)):
                load = functools.partial(_shown, (namespace, name), entry)
                yield Handle(entry.uid, entry.version, load, large=entry.body is None)

    def group_names(self, kind: Kind, namespace: str, group: str) -> list[str]:
        """Names of the objects of a group."""
        return list(self._kinds[kind].groups.get((namespace, group), ()))

    def keys(self, kind: Kind) -> list[Key]:
        """Namespaces and names of all that is kept of a kind."""
        return list(self._kinds[kind].entries)

    def has(self, kind: Kind, namespace: str, name: str) -> bool:
        """Whether such an object is kept."""
        return (namespace, name) in self._kinds[kind].entries

    @property
    def size(self) -> int:
        """About how many bytes all of it takes."""
        return self._size

    @property
    def remembered(self) -> int:
        """Deletions that are remembered."""
        return sum(len(kept.gone) for kept in self._kinds.values())

    # --- how it is kept -----------------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _put(self, kind: Kind, item: Object, *, own: bool = False, scan: int = 0, readable: bool = True) -> None:
        kept, metadata = self._kinds[kind], item["metadata"]
        key, uid, version = (metadata["namespace"], metadata["name"]), metadata["uid"], metadata.get("resourceVersion")
        order, old = order_of(version), kept.entries.get(key)
        if _is_late(kept, key[0], old, uid, order, own=own, scan=scan):
            return
        if old and (old.uid, old.version) == (uid, version):
            old.scan = scan or old.scan
            return
        if own and old is None and not kept.shape.selects(item):
            # Of a kind that is followed, such as a pod that inspects, and none of those.
            return
        kept.gone.drop(uid)
        pruned = kept.shape.prune(item) if readable and kept.shape.selects(item) else None
        if pruned is None:
            if own:
                kept.gone.add(uid, order, self._next(), self._clock(), final=False)
            self._take_out(kept, key)
            if old or not scan or key[0] in kept.full:
                self.changed(Change(kind, *key, item, old.groups if old else ()))
            return
        entry = self._entry(kept.shape, item, pruned)
        entry.scan = scan
        self._take_out(kept, key)
        if kept.shape.bounded and not self._has_room(kept, key[0], entry.size):
            kept.full.add(key[0])
            self.changed(Change(kind, *key, item, old.groups if old else ()))
            return
        if old and old.uid != uid:
            # Names are unique: the earlier one is gone for good.
            kept.gone.add(old.uid, old.order, self._next(), self._clock(), final=True)
        self._take_in(kept, key, entry)
        if old is None or (old.uid, old.news, old.groups) != (uid, entry.news, entry.groups):
            self.changed(Change(kind, *key, item, old.groups if old else ()))

    def _entry(self, shape: Shape, item: Object, pruned: Object) -> _Entry:
        metadata = item["metadata"]
        version = str(metadata.get("resourceVersion") or "")
        # Apart, so that what is kept is the same for as long as nothing in use changes.
        without = {k: v for k, v in pruned["metadata"].items() if k != "resourceVersion"}
        body = packed({**pruned, "metadata": without})
        return _Entry(
            uid=metadata["uid"],
            version=version,
            order=order_of(version),
            groups=shape.groups(item),
            news=hash(packed({"news": shape.news(item)})) if shape.news else hash(body),
            body=body if len(body) <= MAX_OBJECT_BYTES else None,
            told=self._next(),
        )

    def _left(self, kind: Kind, item: Object) -> None:
        """It is gone, or has lost its labels."""
        kept, metadata = self._kinds[kind], item["metadata"]
        key, order = (metadata["namespace"], metadata["name"]), order_of(metadata.get("resourceVersion"))
        old = kept.entries.get(key)
        if old and old.uid != metadata["uid"]:
            # Its successor stays.
            old = None
        if old and old.order is not None and order is not None and old.order > order:
            return
        if old:
            self._take_out(kept, key)
        self.changed(Change(kind, *key, item, old.groups if old else ()))

    def _absent(self, kind: Kind, key: Key, uid: str) -> None:
        kept = self._kinds[kind]
        old = kept.entries.get(key)
        if old and old.uid == uid:
            self._take_out(kept, key)
            self.changed(Change(kind, *key, None, old.groups))

    def _has_room(self, kept: _Kept, namespace: str, size: int) -> bool:
        return kept.sizes.get(namespace, 0) + size <= MAX_NAMESPACE_BYTES and self._size + size <= MAX_BYTES

    def _take_in(self, kept: _Kept, key: Key, entry: _Entry) -> None:
        kept.entries[key] = entry
        self._size += entry.size
        kept.sizes[key[0]] = kept.sizes.get(key[0], 0) + entry.size
        for group in entry.groups:
            kept.groups.setdefault((key[0], group), {})[key[1]] = None

    def _take_out(self, kept: _Kept, key: Key) -> None:
        entry = kept.entries.pop(key, None)
        if entry is None:
            return
        self._size -= entry.size
        kept.sizes[key[0]] -= entry.size
        if not kept.sizes[key[0]]:
            del kept.sizes[key[0]]
        for group in entry.groups:
            members = kept.groups[key[0], group]
            del members[key[1]]
            if not members:
                del kept.groups[key[0], group]


def _is_late(
    kept: _Kept, namespace: str, old: _Entry | None, uid: str, order: int | None, *, own: bool, scan: int
) -> bool:
    """Whether something newer has been told already.

    Where numbers do not compare, watches and scans are believed, which tell in order, and answers to own writes are
    not: what they tell is told again.
    """
    if own and (order is None or order <= kept.place(namespace)):
        return True
    deletion = kept.gone.get(uid)
    if deletion and not (scan and deletion.told < scan):
        if deletion.final:
            return True
        if order is not None and deletion.order is not None and order <= deletion.order:
            return True
    if old is None or (scan and old.told < scan) or order is None or old.order is None:
        return False
    return order < old.order or (order == old.order and uid != old.uid)


def _shown(key: Key, entry: _Entry) -> Object | Large:
    if entry.body is None:
        return Large(*key)
    item = unpacked(entry.body)
    item["metadata"]["resourceVersion"] = entry.version
    return item
