"""Finding and pinning a model's test data, in the layout of the ONNX Model Zoo.

https://github.com/onnx/models: ``input_N.pb`` and ``output_N.pb`` beside each other, or in folders
``test_data_set_N``. Stores need not list for this: the names are known.
"""

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import InspectionRequest
from onnx_operator.api.sources import SourceFile
from onnx_operator.api.urls import shown_uri
from onnx_operator.model.inspection.feed import SourceFeed
from onnx_operator.model.lfs import MAX_POINTER_BYTES, pointer_text
from onnx_operator.model.sources import SourceError, open_source

MAX_DATA_SETS = 16
MAX_TEST_DATA_TENSORS = 64
"""Inputs of one data set, and as many outputs."""
MAX_TEST_DATA_BYTES = 256 << 20
"""Of all data sets together."""


def folder_of(uri: str) -> str:
    """The address as one of a folder: sources would take a name without a slash at its end for a file's."""
    return f"{uri.rstrip('/')}/"


async def find_test_data(request: InspectionRequest) -> list[SourceFile]:
    """The files of ``request.test_data``, with pins. Raises :class:`SourceError`; without any, ``SourceNotFound``."""
    async with open_source(
        folder_of(request.test_data),
        credentials=request.credentials,
        settings=request.sources,
        workload_identity=request.workload_identity,
    ) as source:
        async with SourceFeed(source, MAX_TEST_DATA_BYTES, None) as feed:
            files = await _data_set(feed, "")
            for number in range(0 if files else MAX_DATA_SETS):
                found = await _data_set(feed, f"test_data_set_{number}/")
                if not found:
                    break
                files += found
        if not files:
            raise SourceError(
                Reason.SOURCE_NOT_FOUND,
                f"spec.model.testData: {shown_uri(request.test_data)} holds neither input_0.pb nor "
                "test_data_set_0/input_0.pb; expected the ONNX Model Zoo's layout.",
            )
        size = sum(file.size_bytes for file in files)
        if size > MAX_TEST_DATA_BYTES:
            raise SourceError(
                Reason.TOO_LARGE,
                f"spec.model.testData: the files hold {size} bytes; expected at most {MAX_TEST_DATA_BYTES}.",
            )
        return files


async def _data_set(feed: SourceFeed, folder: str) -> list[SourceFile]:
    files: list[SourceFile] = []
    for kind in ("input", "output"):
        for number in range(MAX_TEST_DATA_TENSORS):
            name = f"{folder}{kind}_{number}.pb"
            size = await feed.size(name)
            if size is None:
                break
            if size <= MAX_POINTER_BYTES and (pointer := pointer_text(await feed.read(name, 0, size))):
                raise SourceError(Reason.SOURCE_REFUSED, f"spec.model.testData: {name} is {pointer}.")
            files.append(await feed.finish(name))
        if not files:
            break
    return files
