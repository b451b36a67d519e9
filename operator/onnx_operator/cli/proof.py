"""Digests that only the whole file can prove. In the cluster the pods do this, which fetch the file anyway."""

from collections.abc import Callable

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import ModelFiles
from onnx_operator.model.inspection.streaming import SequentialFile
from onnx_operator.model.sources import Source, SourceError


async def prove(source: Source, files: ModelFiles, progress: Callable[[int, int | None], None] | None) -> None:
    """Read every file whose digest was asked for or signed, and not seen yet, from beginning to end.

    Raises :class:`SourceError`: ``DigestMismatch`` for another digest, or what reading raises.
    """
    for file in files.files:
        if not file.claimed:
            continue
        done = 0

        def count(size: int, total: int = file.size_bytes) -> None:
            nonlocal done
            done += size
            if progress is not None:
                progress(done, total)

        stream = SequentialFile(source, file.name, file.pin, count)
        try:
            found = await stream.finish(file.size_bytes)
        finally:
            await stream.aclose()
        if found != file.sha256:
            raise SourceError(
                Reason.DIGEST_MISMATCH,
                f"{source.shown}: {file.name} has the sha256 {found}, but {file.sha256} was asked for or signed."
                " Correct the digest, or restore the file.",
            )
