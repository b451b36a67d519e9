"""Mutants of ONNX files: random damage to the bytes, and to the fields of a message at any depth."""

from collections.abc import Callable
from random import Random

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from onnx import ModelProto

Field = tuple[int, int, bytes]
"""Number, wire type, and the value's bytes, without the length."""
NASTY = (0, 1, 127, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 3)


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def delimited(number: int, content: bytes) -> bytes:
    """A field that holds bytes, a text or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def split(data: bytes) -> list[Field]:
    """The fields of a well-formed message."""
    found: list[Field] = []
    at = 0

    def number() -> int:
        nonlocal at
        result = shift = 0
        while True:
            byte = data[at]
            at += 1
            result |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return result

    while at < len(data):
        tag = number()
        begin = at
        match tag & 7:
            case 0:
                number()
            case 1:
                at += 8
            case 2:
                length = number()
                begin, at = at, at + length
            case _:
                at += 4
        found.append((tag >> 3, tag & 7, data[begin:at]))
    return found


def join(fields: list[Field]) -> bytes:
    """The message of these fields."""
    return b"".join(
        delimited(number, value) if kind == 2 else varint(number << 3 | kind) + value for number, kind, value in fields
    )


def mutant(random: Random, data: bytes) -> bytes:
    """One mutant of a well-formed model."""
    if random.random() < 0.35:
        return random.choice(_BYTES)(random, data)
    return _inside(random, data, ModelProto.DESCRIPTOR, random.choice(_FIELDS))


def _flip(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 3, 10))):
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data))]


def _splice(random: Random, data: bytes) -> bytes:
    begin, end = sorted(random.randrange(len(data)) for _ in range(2))
    at = random.randrange(len(data))
    return data[:at] + data[begin : min(end, begin + 256)] + data[at + random.choice((0, end - begin)) :]


def _noise(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data))
    noise = random.randbytes(random.randrange(1, 16))
    return data[:at] + noise + data[at + len(noise) :]


_BYTES: tuple[Callable[[Random, bytes], bytes], ...] = (_flip, _flip, _truncate, _splice, _noise)


def _inside(random: Random, data: bytes, message: Descriptor, edit: Callable[[Random, list[Field]], bytes]) -> bytes:
    """Edit the message, or one somewhere inside it; the lengths of all around it stay true."""
    fields = split(data)
    inner = [
        index
        for index, (number, kind, _) in enumerate(fields)
        if kind == 2 and (field := message.fields_by_number.get(number)) and field.type == FieldDescriptor.TYPE_MESSAGE
    ]
    if not fields or not inner or random.random() < 0.12:
        return edit(random, fields)
    index = random.choice(inner)
    number, kind, value = fields[index]
    inner_type = message.fields_by_number[number].message_type
    fields[index] = (number, kind, _inside(random, value, inner_type, edit))
    return join(fields)


def _drop(random: Random, fields: list[Field]) -> bytes:
    if fields:
        del fields[random.randrange(len(fields))]
    return join(fields)


def _repeat(random: Random, fields: list[Field]) -> bytes:
    if fields:
        index = random.randrange(len(fields))
        fields[index:index] = [fields[index]] * random.choice((1, 2, 50))
    return join(fields)


def _swap(random: Random, fields: list[Field]) -> bytes:
    random.shuffle(fields)
    return join(fields)


def _renumber(random: Random, fields: list[Field]) -> bytes:
    if fields:
        index = random.randrange(len(fields))
        _, kind, value = fields[index]
        fields[index] = (random.choice((*range(1, 30), 1000, (1 << 29) - 1)), kind, value)
    return join(fields)


def _nasty_number(random: Random, fields: list[Field]) -> bytes:
    numbers = [index for index, field in enumerate(fields) if field[1] == 0]
    if numbers:
        index = random.choice(numbers)
        fields[index] = (fields[index][0], 0, varint(random.choice((*NASTY, random.randrange(32)))))
    else:
        fields.append((random.randrange(1, 26), 0, varint(random.choice(NASTY))))
    return join(fields)


def _nasty_text(random: Random, fields: list[Field]) -> bytes:
    texts = [index for index, field in enumerate(fields) if field[1] == 2]
    if texts:
        index = random.choice(texts)
        text = random.choice((b"", b"\xff\xfe", b"a\0b", b"x", b"y", b"\xed\xa0\x80", b"n" * 5000, b"../w", b"%s%n"))
        fields[index] = (fields[index][0], 2, text)
    return join(fields)


def _length_bomb(random: Random, fields: list[Field]) -> bytes:
    at = random.randint(0, len(fields))
    bomb = varint(random.randrange(1, 30) << 3 | 2) + random.choice((varint(random.choice(NASTY)), b"\xff" * 11))
    return join(fields[:at]) + bomb + join(fields[at:])


def _unknown(random: Random, fields: list[Field]) -> bytes:
    fields.insert(random.randint(0, len(fields)), (random.choice((99, 5000, (1 << 29) - 1)), 2, random.randbytes(40)))
    return join(fields)


def _group(random: Random, fields: list[Field]) -> bytes:
    number = random.choice((1, 7, 99))
    opened = varint(number << 3 | 3) * random.choice((1, 1, 200))
    return join(fields) + opened + random.choice((b"", varint(number << 3 | 4), varint(5 << 3 | 4)))


def _packed(random: Random, fields: list[Field]) -> bytes:
    """Numbers packed where one was, or a list where numbers were."""
    fields.append((random.randrange(1, 12), 2, b"".join(varint(random.choice(NASTY)) for _ in range(5))))
    return join(fields)


_FIELDS = (
    _drop,
    _repeat,
    _swap,
    _renumber,
    _nasty_number,
    _nasty_number,
    _nasty_text,
    _nasty_text,
    _length_bomb,
    _unknown,
    _group,
    _packed,
)


class MemoryBytes:
    """A file in memory that is read piece by piece, as one that is far away."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)

    def read_at(self, begin: int, end: int) -> bytes:
        return bytes(self._data[begin:end])
