"""What a user may pack a model into, and what nobody can do to us with it."""

import gzip
import io
import os
import random
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest
from archivekit import LIMITS, Bytes, header, link, opened, targz, tarred, zipped
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.api.conditions import Reason
from onnx_operator.model.archive import Archive, ArchiveError, ArchiveLimits, is_archive, kind_of

WEIGHTS = random.Random(1).randbytes(300_000)
ZOO = {
    "resnet50/model.onnx": b"\x08\x08" + WEIGHTS,
    "resnet50/test_data_set_0/input_0.pb": b"input" * 1000,
    "resnet50/test_data_set_0/output_0.pb": b"output" * 1000,
}
PACKERS = {"zip": zipped, "stored zip": lambda f: zipped(f, zipfile.ZIP_STORED), "tar": tarred, "tar.gz": targz}


@pytest.fixture(params=PACKERS)
def pack(request):
    return PACKERS[request.param]


def refusal(data: bytes, limits: ArchiveLimits = LIMITS, name: str = "") -> ArchiveError:
    """Why an archive, or one file in it, is refused."""

    def read() -> None:
        archive = opened(data, limits)
        member = archive.open(name or archive.model_member())
        member.read_at(0, member.size)

    with pytest.raises(ArchiveError) as caught:
        read()
    return caught.value


def test_the_model_of_a_zoo_archive_is_found_beside_its_test_data(pack):
    archive = opened(pack(ZOO))
    assert archive.model_member() == "resnet50/model.onnx"
    assert {member.name: member.size for member in archive.members()} == {n: len(d) for n, d in ZOO.items()}
    assert archive.unpacked_bytes == sum(map(len, ZOO.values()))
    assert archive.open("resnet50/model.onnx").read_at(0, 1 << 30) == ZOO["resnet50/model.onnx"]


def test_a_custom_vision_export_packed_on_a_mac_holds_one_model(pack):
    files = {
        "__MACOSX/._model.onnx": b"junk",
        "._model.onnx": b"junk",
        ".DS_Store": b"junk",
        "model.onnx": b"model",
        "labels.txt": b"cat\ndog",
        "cvexport.manifest": b"{}",
        "LICENSE": b"MIT",
    }
    archive = opened(pack(files))
    assert archive.model_member() == "model.onnx"
    assert {member.name for member in archive.members()} == {"model.onnx", "labels.txt", "cvexport.manifest", "LICENSE"}


def test_any_range_of_a_member_reads_as_it_was_packed(pack):
    data = ZOO["resnet50/model.onnx"]
    reader = opened(pack(ZOO)).open("resnet50/model.onnx")
    rng = random.Random(2)
    for _ in range(60):
        begin = rng.randrange(len(data) + 10)
        end = begin + rng.choice([0, 1, 50, 100_000])
        assert reader.read_at(begin, end) == data[begin:end]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_a_leading_dot_are_read_in_every_tar_format(form):
    long = "/".join(["folder" * 6] * 4) + "/model.onnx"
    assert opened(tarred({"./" + long: b"x"}, form)).model_member() == long


def test_a_stored_member_of_a_zip_is_read_by_its_range_alone():
    source = Bytes(zipped({"big.bin": bytes(8 << 20), "model.onnx": WEIGHTS}, zipfile.ZIP_STORED))
    archive = Archive(source, len(source.data), LIMITS)
    assert archive.open("model.onnx").read_at(1000, 2000) == WEIGHTS[1000:2000]
    assert source.read < 300_000


def test_a_zip_directory_in_64_bit_fields_is_read():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("model.onnx", "w", force_zip64=True) as member:
        member.write(b"model")
    data = bytearray(out.getvalue())
    end = data.rfind(b"PK\x05\x06")
    count, size, begin = struct.unpack_from("<HLL", data, end + 10)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, begin)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    data[end + 8 : end + 20] = b"\xff" * 12
    data[end:end] = record + locator
    assert zipfile.ZipFile(io.BytesIO(data)).namelist() == ["model.onnx"]
    assert opened(bytes(data)).open("model.onnx").read_at(0, 5) == b"model"


def test_a_gzip_file_made_of_several_parts_is_read_like_one():
    data = tarred(ZOO)
    parts = b"".join(gzip.compress(data[at : at + 20_000]) for at in range(0, len(data), 20_000))
    archive = opened(parts + bytes(512))
    assert archive.open("resnet50/model.onnx").read_at(0, 1 << 30) == ZOO["resnet50/model.onnx"]
    archive.drain()


def test_going_back_in_a_large_archive_does_not_begin_from_the_start():
    noise = random.Random(3).randbytes(1 << 20)
    files = {f"{number}.bin": noise for number in range(40)} | {"model.onnx": noise}
    source = Bytes(targz(files))
    archive = Archive(source, len(source.data), LIMITS)
    archive.members()
    passed = source.read
    for number in (39, 20, 30, 5):
        assert archive.open(f"{number}.bin").read_at(100, 200) == noise[100:200]
    assert source.read - passed < passed / 2
    assert archive.restarts == 3


def test_memory_does_not_grow_with_the_archive():
    data = targz({"model.onnx": b"m", "big.bin": random.Random(4).randbytes(20 << 20), "zeros.bin": bytes(40 << 20)})
    source = Bytes(data)
    tracemalloc.start()
    archive = Archive(source, len(data), LIMITS)
    archive.model_member()
    reader = archive.open("zeros.bin")
    for at in range(0, reader.size, 1 << 20):
        reader.read_at(at, at + 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20
    assert source.most <= 1 << 20


def test_archives_are_told_by_their_first_bytes_whatever_their_name():
    assert [kind_of(pack({"model.onnx": b"m"})[:512]) for pack in PACKERS.values()] == ["zip", "zip", "tar", "gzip"]
    old = bytearray(header())
    old[257:265] = bytes(8)
    old[148:156] = b"%06o\0 " % (sum(old) - sum(old[148:156]) + 256)
    assert is_archive(bytes(old)), "tar archives of before 1988 have no magic"
    assert not is_archive(b"\x08\x08\x12\x07pytorch" + bytes(501))
    assert not is_archive(b"")


# ---- what is no model


def test_an_archive_with_several_models_asks_for_one(pack):
    error = refusal(pack({"a.onnx": b"", "b/B.ONNX": b""}))
    assert error.reason is Reason.SOURCE_REFUSED
    assert "a.onnx, b/B.ONNX" in error.message


def test_an_archive_without_a_model_is_called_what_it_is(pack):
    error = refusal(pack({"m/data.pkl": b"", "m/version": b"3"}))
    assert error.reason is Reason.NOT_ONNX
    assert "PyTorch" in error.message


def test_a_gzip_file_of_a_bare_model_is_named_as_that():
    error = refusal(gzip.compress(b"\x08\x08\x12\x07pytorch" + WEIGHTS))
    assert error.reason is Reason.NOT_ONNX
    assert "gzip" in error.message
    assert "NumPy" in refusal(gzip.compress(b"\x93NUMPY" + bytes(600))).message


def test_a_missing_file_is_named(pack):
    error = refusal(pack({"model.onnx": b"m"}), name="weights.bin")
    assert error.reason is Reason.EXTERNAL_DATA_MISSING
    assert "weights.bin" in error.message


# ---- what leads out


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/model.onnx", "a/../../model.onnx", "a//model.onnx", "a\nb.onnx"]
)
def test_a_name_that_leads_out_is_never_read(pack, name):
    archive = opened(pack({name: b"evil", "model.onnx": b"good"}))
    assert [member.name for member in archive.members()] == ["model.onnx"]
    assert refusal(pack({name: b"evil"})).reason is Reason.SOURCE_REFUSED
    assert refusal(pack({name: b"evil", "model.onnx": b""}), name=name).reason is Reason.SOURCE_REFUSED


@pytest.mark.parametrize(
    ("kind", "said"),
    [(tarfile.SYMTYPE, "symbolic"), (tarfile.LNKTYPE, "hard"), (tarfile.CHRTYPE, "device"), (b"6", "pipe")],
)
def test_a_model_that_is_a_link_or_device_in_a_tar_archive_is_refused_by_name(kind, said):
    error = refusal(tarred({}, extra=(link("model.onnx", kind, "/etc/passwd"),)))
    assert error.reason is Reason.SOURCE_REFUSED
    assert "model.onnx" in error.message
    assert said in error.message


def test_a_model_that_is_a_link_in_a_zip_archive_is_refused_by_name():
    error = refusal(zipped({"model.onnx": b"/etc/passwd"}, mode=0o120777))
    assert error.reason is Reason.SOURCE_REFUSED
    assert "symbolic link" in error.message


def test_windows_separators_in_a_zip_are_read_as_folders():
    data = zipped({"folder/model.onnx": b"m"}).replace(b"folder/", b"folder\\")
    assert opened(data).model_member() == "folder/model.onnx"


def test_two_files_of_one_name_are_refused():
    assert "twice" in refusal(tarred({"model.onnx": b"1", "./model.onnx": b"2"})).message


def test_a_file_that_is_the_folder_of_another_is_refused(pack):
    assert refusal(pack({"a": b"1", "a/b/model.onnx": b"2"})).reason is Reason.SOURCE_REFUSED


# ---- bombs


def test_more_bytes_than_allowed_are_refused_before_they_are_unpacked(pack):
    data = pack({"a.bin": bytes(3 << 20), "model.onnx": bytes(3 << 20)})
    error = refusal(data, ArchiveLimits(unpacked_bytes=5 << 20))
    assert error.reason is Reason.TOO_LARGE
    assert str(5 << 20) in error.message


def test_more_files_than_allowed_are_refused(pack):
    data = pack({f"{number}.txt": b"" for number in range(50)} | {"model.onnx": b"m"})
    assert refusal(data, ArchiveLimits(members=50)).reason is Reason.TOO_LARGE


def test_a_gzip_bomb_stops_at_the_limit():
    bomb = gzip.compress(header(size=b"00000000000\0", name=b"model.onnx") + header(kind=b"5") + bytes(100 << 20))
    archive = opened(bomb, ArchiveLimits(unpacked_bytes=1 << 20, members=10))
    assert archive.model_member() == "model.onnx"
    with pytest.raises(ArchiveError) as caught:
        archive.drain()
    assert caught.value.reason is Reason.TOO_LARGE
    huge = gzip.compress(header(size=b"77777777777\0") + bytes(10 << 20))
    assert refusal(huge, ArchiveLimits(unpacked_bytes=1 << 20)).reason is Reason.TOO_LARGE
    # Its name is passed over, its bytes are not.
    outside = gzip.compress(header(name=b"../x", size=b"77777777777\0") + bytes(100 << 20))
    assert refusal(outside, ArchiveLimits(unpacked_bytes=1 << 20, members=10)).reason is Reason.TOO_LARGE


def test_a_zip_member_that_unpacks_to_more_than_it_claims_is_refused():
    data = bytearray(zipped({"model.onnx": bytes(10 << 20)}))
    entry = data.rfind(b"PK\x01\x02")
    struct.pack_into("<L", data, entry + 24, 1000)
    error = refusal(bytes(data))
    assert error.reason is Reason.CORRUPT
    assert "claims" in error.message


def test_a_zip_member_that_claims_what_it_cannot_hold_is_refused():
    data = bytearray(zipped({"model.onnx": b"small"}))
    struct.pack_into("<L", data, data.rfind(b"PK\x01\x02") + 24, 60 << 20)
    assert refusal(bytes(data)).reason is Reason.CORRUPT


def test_zip_members_that_lie_upon_each_other_are_refused():
    data = bytearray(zipped({"a.bin": bytes(1000), "model.onnx": bytes(1000)}))
    first = data.find(b"PK\x01\x02")
    second = data.find(b"PK\x01\x02", first + 4)
    struct.pack_into("<L", data, second + 42, 0)
    assert refusal(bytes(data)).reason is Reason.CORRUPT
    data = bytearray(zipped({"a.bin": WEIGHTS, "model.onnx": WEIGHTS}))
    first = data.find(b"PK\x01\x02")
    struct.pack_into("<L", data, first + 20, len(WEIGHTS) + 5000)
    assert "overlaps" in refusal(bytes(data), name="a.bin").message


def test_a_chain_of_empty_gzip_files_does_not_keep_the_reader_busy():
    chain = gzip.compress(header(size=b"00000100000\0")) + gzip.compress(b"") * 200_000
    assert refusal(chain).reason is Reason.CORRUPT


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_an_extended_header_of_a_gigabyte_is_refused_unread(kind):
    error = refusal(header(kind=kind, size=b"10000000000\0") + bytes(1024))
    assert error.reason is Reason.TOO_LARGE


def test_endless_extended_headers_are_refused():
    chain = header(kind=b"x", size=b"00000000000\0") * 5000
    assert refusal(chain, ArchiveLimits(members=100)).reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "record", [b"999999999 path=x\n", b"0 path=x\n", b"-5 path=x\n", b"11 size=-9\n", b"12 size=1e9\n", b"9 nothing\n"]
)
def test_malformed_extended_headers_are_damage(record):
    data = header(kind=b"x", size=b"%011o\0" % len(record)) + record.ljust(512, b"\0") + header() + bytes(1024)
    assert refusal(data).reason is Reason.CORRUPT


@pytest.mark.parametrize("size", [b"-0000000001\0", b"\xff" * 12, b"0000000009\0\0", b"          x\0"])
def test_sizes_that_are_negative_or_no_numbers_are_damage(size):
    assert refusal(header(size=size) + bytes(1024)).reason is Reason.CORRUPT


def test_sizes_beyond_the_archive_are_damage():
    assert refusal(header(size=b"\x80" + b"\x7f" * 11) + bytes(1024)).reason is Reason.CORRUPT


def test_sparse_files_are_refused():
    assert "sparse" in refusal(header(kind=b"S") + bytes(1024)).message
    record = b"22 GNU.sparse.major=1\n"
    data = header(kind=b"x", size=b"%011o\0" % len(record)) + record.ljust(512, b"\0") + header() + bytes(1024)
    assert "sparse" in refusal(data).message


# ---- damage


def test_an_encrypted_member_is_named():
    data = bytearray(zipped({"model.onnx": b"secret"}))
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    error = refusal(bytes(data))
    assert error.reason is Reason.NOT_ONNX
    assert "encrypted" in error.message


@pytest.mark.parametrize(("method", "said"), [(zipfile.ZIP_LZMA, "LZMA"), (zipfile.ZIP_BZIP2, "bzip2")])
def test_a_compression_that_is_not_read_is_named(method, said):
    assert said in refusal(zipped({"model.onnx": b"m" * 100}, method)).message


def test_one_part_of_a_split_zip_is_named():
    data = bytearray(zipped({"model.onnx": b"m"}))
    struct.pack_into("<H", data, data.rfind(b"PK\x05\x06") + 4, 2)
    assert "split" in refusal(bytes(data)).message


def test_a_zip_directory_larger_than_allowed_is_refused_unread():
    data = bytearray(zipped({"model.onnx": b"m"}))
    end = data.rfind(b"PK\x05\x06")
    source = Bytes(bytes(40 << 20))
    source.data = bytes(data[:end]) + bytes(40 << 20) + bytes(data[end:])
    tail = bytearray(source.data)
    struct.pack_into("<L", tail, len(tail) - 22 + 12, 40 << 20)
    source.data = bytes(tail)
    with pytest.raises(ArchiveError) as caught:
        Archive(source, len(source.data), LIMITS).members()
    assert caught.value.reason is Reason.TOO_LARGE
    assert source.read < 1 << 20


def test_every_truncation_of_an_archive_is_damage(pack):
    data = pack({"model.onnx": WEIGHTS[:3000], "w.bin": WEIGHTS[:2000]})
    for size in range(0, len(data) - 1, 37):
        try:
            archive = opened(data[:size])
            for member in archive.members():
                archive.open(member.name).read_at(0, member.size)
            archive.drain()
        except ArchiveError:
            continue
        assert not any(data[size:]), f"{size} of {len(data)} bytes passed for the whole"


def test_a_wrong_checksum_of_a_gzip_file_is_damage():
    data = bytearray(targz({"model.onnx": WEIGHTS}))
    data[-6] ^= 4
    assert refusal(bytes(data)).reason is Reason.CORRUPT


def test_a_source_that_sends_less_than_it_promised_is_damage(pack):
    data = pack(ZOO)
    with pytest.raises(ArchiveError) as caught:
        Archive(Bytes(data[: len(data) // 2]), len(data), LIMITS).members()
    assert caught.value.reason is Reason.CORRUPT


def test_what_the_source_raises_goes_through():
    class Broken:
        def read_at(self, begin: int, end: int) -> bytes:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        Archive(Broken(), 1000, LIMITS)


def survives(data: bytes) -> None:
    """Read all there is: an archive answers or refuses, and never anything else."""
    limits = ArchiveLimits(unpacked_bytes=1 << 20, members=50)
    source = Bytes(data)
    try:
        for member, reader in Archive(source, len(data), limits).walk():
            reader.read_at(0, member.size)
    except ArchiveError:
        pass
    source = Bytes(data)
    try:
        archive = Archive(source, len(data), limits)
        members = archive.members()
        assert archive.unpacked_bytes <= limits.unpacked_bytes
        for member in members:
            reader = archive.open(member.name)
            assert len(reader.read_at(0, member.size)) == member.size
        archive.model_member()
        archive.drain()
    except ArchiveError:
        pass
    assert source.read <= 40 * len(data) + (1 << 20)


SEEDS = [pack({"m/model.onnx": WEIGHTS[:700], "w.bin": bytes(1500), "a/b/c.txt": b"text"}) for pack in PACKERS.values()]
SEEDS.append(tarred({"long" * 60 + ".onnx": b"m"}, tarfile.GNU_FORMAT))


@given(st.sampled_from([b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08\x00", b""]), st.binary(max_size=3000))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_it_do_anything_but_answer_or_refuse(magic, data):
    survives(magic + data)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes, preferably to what hurts; move, cut and double others."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(out))
        action = rng.randrange(6)
        if action == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            out[at : at + rng.choice([1, 2, 4, 8])] = rng.choice([b"\xff", b"\x00", b"\x80", b"7"]) * rng.choice(
                [1, 2, 4, 8]
            )
        elif action == 2:
            del out[at : at + rng.randrange(1, 600)]
        elif action == 3:
            out[at:at] = out[max(0, at - rng.randrange(600)) : at]
        elif action == 4:
            out[at : at + 512] = data[rng.randrange(len(data)) :][:512]
        else:
            place = out.rfind(rng.choice([b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04", b"ustar"]))
            if place >= 0:
                out[min(place + rng.randrange(46), len(out) - 1)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        if not out:
            return b"PK\x03\x04"
    return bytes(out)


def rechecksummed(data: bytes) -> bytes:
    """Tar headers with right checksums again, so that changed fields are looked at."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


def hammer(count: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        survives(mutate(rng.choice(SEEDS), rng))
        tar = rechecksummed(mutate(rng.choice([SEEDS[2], SEEDS[4]]), rng))
        survives(tar)
        survives(gzip.compress(tar, 1))


def test_mutated_archives_are_read_or_refused():
    hammer(700, seed=5)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_mutated_archives_are_read_or_refused(seed):
    hammer(1000, seed=100 + seed)


def test_a_zip_that_holds_itself_is_no_model():
    """The shape of the quine r.zip: its one member is an archive, which is never opened."""
    inner = zipped({"model.onnx": b"m"})
    assert "another archive" in refusal(zipped({"r.zip": inner})).message


def test_a_real_tar_program_packs_what_is_read(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.onnx").write_bytes(WEIGHTS)
    (tmp_path / "m" / "link.onnx").symlink_to("model.onnx")
    os.link(tmp_path / "m" / "model.onnx", tmp_path / "m" / "other.bin")
    assert os.system(f"tar -C {tmp_path} -czf {tmp_path}/a.tgz ./m/model.onnx ./m/link.onnx ./m/other.bin") == 0
    archive = opened((tmp_path / "a.tgz").read_bytes())
    assert archive.open(archive.model_member()).read_at(0, 1 << 30) == WEIGHTS
    assert archive.refused == {"m/link.onnx": "it is a symbolic link", "m/other.bin": "it is a hard link"}


def test_deflate_without_an_end_is_damage():
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    cut = packer.compress(tarred(ZOO)) + packer.flush(zlib.Z_SYNC_FLUSH)
    archive = opened(cut)
    assert archive.model_member()
    with pytest.raises(ArchiveError):
        archive.drain()
