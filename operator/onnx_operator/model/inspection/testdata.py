"""Finding and pinning a model's recorded inputs and outputs, in the layout of the ONNX Model Zoo.

https://github.com/onnx/models: ``input_N.pb`` and ``output_N.pb`` beside each other, or in folders
``test_data_set_N``. Stores need not list for this: the names are known.
"""

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import InspectionRequest
from onnx_operator.api.sources import SourceFile
from onnx_operator.model.inspection.feed import SourceFeed
from onnx_operator.model.sources import SourceError, open_source

MOST_DATA_SETS = 16
MOST_TENSORS = 64
MOST_BYTES = 256 << 20


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
        async with SourceFeed(source, MOST_BYTES, None) as feed:
            files = await _data_set(feed, "")
            for number in range(0 if files else MOST_DATA_SETS):
                found = await _data_set(feed, f"test_data_set_{number}/")
                if not found:
                    break
                files += found
        if not files:
            raise SourceError(
                Reason.SOURCE_NOT_FOUND,
                f"spec.model.testData: {request.test_data.partition('?')[0]} holds neither input_0.pb nor "
                "test_data_set_0/input_0.pb; expected the ONNX Model Zoo's layout.",
            )
        size = sum(file.size_bytes for file in files)
        if size > MOST_BYTES:
            raise SourceError(
                Reason.TOO_LARGE, f"spec.model.testData: {size} bytes; at most {MOST_BYTES} are possible."
            )
        return files


async def _data_set(feed: SourceFeed, folder: str) -> list[SourceFile]:
    files: list[SourceFile] = []
    for kind in ("input", "output"):
        for number in range(MOST_TENSORS):
            name = f"{folder}{kind}_{number}.pb"
            try:
                await feed.find(name)
            except SourceError as error:
                if error.reason is not Reason.SOURCE_NOT_FOUND:
                    raise
                break
            files.append(await feed.finish(name))
        if not files:
            break
    return files
