"""Costly documents for those who read the JSON of strangers."""

ENTRY = b'{"digest":"sha256:%b","size":1,"platform":{"os":"linux","architecture":"amd64"}}' % (b"0" * 64)
"""Of an index of a registry: the one that is chosen."""
WORST = {
    "objects": b'{"":0}',
    "lists": b"[]",
    "numbers": b"0",
    "floats": b"1e1",
    "texts": b'""',
    "escapes": b'"\\u0001\\ud83d\\ude00"',
}
"""Elements that cost a reader most for their bytes."""


def stuffed(element: bytes, size: int) -> bytes:
    """An index with one entry, and as many elements in a field that means nothing as fit into ``size`` bytes."""
    frame = b'{"manifests":[%b],"x":[%b]}'
    room = size - len(frame % (ENTRY, b""))
    return frame % (ENTRY, b",".join([element] * ((room + 1) // (len(element) + 1))))


def misplaced(element: bytes, size: int, field: str) -> bytes:
    """A document whose elements lie where others are expected."""
    frame = b'{"' + field.encode() + b'":[%b]}'
    return frame % b",".join([element] * ((size - len(frame) + 1) // (len(element) + 1)))
