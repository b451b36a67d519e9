"""All files of a folder are pinned where a scoring script reads them, and refused where no pod can hold them."""

from collections.abc import AsyncIterator
from pathlib import Path

import model_signing
import pytest
import pytest_asyncio
from modelkit import CAPABILITIES, linear

from onnx_operator.api.report import InspectionRequest, InspectionResult
from onnx_operator.api.signatures import SignatureSettings
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.model.inspection import companions as module
from onnx_operator.model.inspection.companions import companions
from onnx_operator.model.inspection.feed import SourceFeed
from onnx_operator.model.inspection.inspection import inspect
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.sources.base import FileStat, Source, SourceError
from onnx_operator.model.sources.files import FileSource
from onnx_operator.model.sources.opening import may_name_folder
from tests.unit.model.signatures.test_model_signing import new_key, private_pem, trust_key

MODEL = linear(8).SerializeToString()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parser() -> AsyncIterator[Parser]:
    async with Parser(InspectionLimits()) as started:
        yield started


def fill(folder: Path, **files: bytes) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


FOLDER = {
    "model.onnx": MODEL,
    "vocab.txt": b"a\nb\n",
    "assets/labels.json": b"{}",
    "assets/deep/preprocess.pkl": b"\x80",
    "empty": b"",
    ".gitattributes": b"*",
    ".git/config": b"",
}
ASKED = ["assets/deep/preprocess.pkl", "assets/labels.json", "empty", "vocab.txt"]


async def inspected(
    parser: Parser, claim: Path, uri: str, *, whole_folder: bool = True, signatures: SignatureSettings | None = None
) -> InspectionResult:
    request = InspectionRequest(
        uri=uri,
        capabilities=CAPABILITIES,
        whole_folder=whole_folder,
        signatures=signatures or SignatureSettings(),
    )
    return await inspect(request, limits=InspectionLimits(), parser=parser, claims=claim)


def names(result: InspectionResult) -> list[str]:
    assert result.files is not None, result.refusal
    return [file.name for file in result.files.files]


@pytest.mark.asyncio(loop_scope="module")
async def test_all_files_of_a_folder_are_pinned_and_count_for_the_models_pin(tmp_path: Path, parser: Parser) -> None:
    fill(tmp_path / "iris", **FOLDER)
    first = await inspected(parser, tmp_path, "pvc://c/iris")
    assert names(first) == ["model.onnx", *ASKED]
    assert first.files is not None
    assert [file.size_bytes for file in first.files.files] == [len(FOLDER[name]) for name in names(first)]
    # A volume pins nothing: what is fetched is compared with what was hashed.
    assert all(file.pin == SourcePin(kind="None", value=f"sha256:{file.sha256}") for file in first.files.files)
    fill(tmp_path / "iris", **{"vocab.txt": b"other"})
    assert (await inspected(parser, tmp_path, "pvc://c/iris")).source != first.source
    alone = await inspected(parser, tmp_path, "pvc://c/iris", whole_folder=False)
    assert names(alone) == ["model.onnx"]
    assert alone.report is not None
    assert alone.report.digest == first.report.digest  # type: ignore[union-attr]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_address_of_a_file_means_that_file(tmp_path: Path, parser: Parser) -> None:
    fill(tmp_path / "iris", **FOLDER)
    assert names(await inspected(parser, tmp_path, "pvc://c/iris/model.onnx")) == ["model.onnx"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_model_deeper_in_the_folder_keeps_the_folders_layout(tmp_path: Path, parser: Parser) -> None:
    fill(tmp_path, **{"onnx/model.onnx": MODEL, "tokenizer.json": b"{}"})
    result = await inspected(parser, tmp_path, "pvc://c/")
    assert names(result) == ["onnx/model.onnx", "tokenizer.json"]
    assert result.files is not None
    assert result.files.model == "onnx/model.onnx"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_link_out_of_the_volume_is_refused(tmp_path: Path, parser: Parser) -> None:
    (tmp_path / "secret").write_text("x")
    fill(tmp_path / "root" / "iris", **{"model.onnx": MODEL})
    (tmp_path / "root" / "iris" / "key.txt").symlink_to(tmp_path / "secret")
    result = await inspected(parser, tmp_path / "root", "pvc://c/iris")
    assert result.refusal is not None
    assert "key.txt is a link that leads out of the volume" in result.refusal.message


@pytest.mark.asyncio(loop_scope="module")
async def test_where_signatures_are_required_all_that_a_script_gets_is_signed(tmp_path: Path) -> None:
    folder, key = tmp_path / "claim" / "iris", new_key()
    fill(folder, **FOLDER)
    (tmp_path / "key").write_bytes(private_pem(key))
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=tmp_path / "key")
    signer.sign(folder, folder / "model.sig")
    async with Parser(InspectionLimits(), signatures=True) as parser:
        result = await inspected(parser, folder.parent, "pvc://c/iris", signatures=trust_key(key))
        assert names(result) == ["model.onnx", *ASKED]
        fill(folder, **{"late.pkl": b"not signed"})
        late = await inspected(parser, folder.parent, "pvc://c/iris", signatures=trust_key(key))
    assert late.refusal is not None
    assert late.refusal.reason == "SignatureInvalid"
    assert "does not cover 'late.pkl'" in late.refusal.message


async def test_a_local_folder_is_listed_without_being_read(tmp_path: Path) -> None:
    fill(tmp_path, **FOLDER)
    source = FileSource(str(tmp_path), credentials={}, settings=SourceSettings())
    async with SourceFeed(source, 1 << 20, None) as feed:
        found = await companions(feed, ["model.onnx"])
        assert feed.bytes_read == 0
    assert [file.name for file in found] == ASKED
    assert all(file.pin.kind == "Conditional" and not file.sha256 for file in found)


class Listing(Source):
    """A store that lists what it likes."""

    shown = "s3://bucket/iris/"

    def __init__(self, *names: str, gone: str = "") -> None:
        self._names, self._gone = names, gone
        self.asked = 0

    async def listing(self) -> list[str] | None:
        return list(self._names)

    async def stat(self, name: str) -> FileStat:
        self.asked += 1
        if name == self._gone:
            raise SourceError(module.Reason.SOURCE_NOT_FOUND, "gone")
        return FileStat(1, SourcePin(kind="Immutable", value="v1"))


async def of(source: Listing) -> list[str]:
    async with SourceFeed(source, 1 << 20, None) as feed:
        return [file.name for file in await companions(feed, ["model.onnx"])]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../../etc/passwd", "leads out of the folder"),
        ("/etc/passwd", "leads out of the folder"),
        ("a/../../b", "leads out of the folder"),
        ("a//b", "leads out of the folder"),
        ("a\\b", "leads out of the folder"),
        ("a\nb", "leads out of the folder"),
        ("", "leads out of the folder"),
        ("x" * 256, "longer than a pod's volume takes"),
        ("é" * 128, "longer than a pod's volume takes"),
        ("model.onnx/inside", "as a file and as a folder"),
    ],
)
async def test_names_that_no_folder_can_hold_are_refused(name: str, words: str) -> None:
    source = Listing("model.onnx", "a.txt", name)
    with pytest.raises(SourceError, match=words) as caught:
        await of(source)
    assert caught.value.reason is module.Reason.SOURCE_REFUSED
    assert source.asked == 0
    assert len(caught.value.message) < 700


async def test_too_many_files_are_refused_with_what_to_do() -> None:
    many = [f"{number}.txt" for number in range(module.MAX_FILES)]
    assert len(await of(Listing(*many[1:]))) == module.MAX_FILES - 1
    with pytest.raises(SourceError, match=r"holds 501 files.*at most 500 are possible.*make an archive") as caught:
        await of(Listing(*many))
    assert caught.value.reason is module.Reason.TOO_LARGE


async def test_what_is_listed_twice_counts_once_and_marks_of_folders_do_not() -> None:
    assert await of(Listing("a.txt", "model.onnx", "a.txt", "marker", gone="marker")) == ["a.txt"]


async def test_bytes_are_bounded_together_with_the_models() -> None:
    with pytest.raises(SourceError, match="maxModelBytes") as caught:
        async with SourceFeed(Listing("a", "b", "c"), 2, None) as feed:
            await companions(feed, ["model.onnx"])
    assert caught.value.reason is module.Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("s3://bucket/iris/", True),
        ("s3://bucket/iris", True),
        ("s3://bucket/iris/Model.ONNX", False),
        ("gs://bucket/iris.tar.gz", False),
        ("hf://org/model", True),
        ("models:/iris/1", True),
        ("oci://registry.example.com/iris:1", True),
        ("https://example.com/iris/", False),
        ("http://store.example/iris/", False),
        ("s3://bucket/what?.onnx", False),
        ("s3://bucket/iris.onnx?old/", True),
        ("https://account.blob.core.windows.net/models/iris/", True),
        ("https://account.blob.core.windows.net/models/m.onnx?sig=x", False),
    ],
)
def test_which_addresses_may_lead_to_a_folder(uri: str, folder: bool) -> None:
    assert may_name_folder(uri) is folder
