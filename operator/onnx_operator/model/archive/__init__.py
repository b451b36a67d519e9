"""Archives as they are: ``.zip``, ``.tar`` and ``.tar.gz``, read in place or unpacked, bounded and confined.

Nothing that an archive claims is believed: bytes are counted as they are produced, names must stay inside, links and
devices are never followed or made. Needs the standard library alone.
"""

from onnx_operator.model.archive.base import ArchiveError, ArchiveLimits, Member, MemberReader, ReadAt
from onnx_operator.model.archive.extraction import extract
from onnx_operator.model.archive.opening import Archive, FileReader, is_archive, kind_of

__all__ = [
    "Archive",
    "ArchiveError",
    "ArchiveLimits",
    "FileReader",
    "Member",
    "MemberReader",
    "ReadAt",
    "extract",
    "is_archive",
    "kind_of",
]
