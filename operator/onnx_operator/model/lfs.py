"""Git LFS pointers: small texts that lie in a repository in the place of large files.

https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md. Who copies a clone without Git LFS, or an archive of a
repository, copies pointers. What a pointer says is a stranger's word: good for a message, and for nothing else.
"""

import re

MAX_POINTER_BYTES = 1023
"""Of a pointer, by its specification: a longer file is none."""
_VERSION = re.compile(rb"version https://(?:git-lfs|hawser)\.github\.com/spec/\S{1,9}\r?\n")
_OID = re.compile(rb"^oid sha256:([0-9a-fA-F]{1,64})\r?$", re.M)
_SIZE = re.compile(rb"^size ([0-9]{1,18})\r?$", re.M)


def pointer_text(content: bytes) -> str:
    """Say what a file is that is a pointer, and what to do ("a Git LFS pointer …"); empty for any other.

    ``content`` is the whole file, or as much of it as there is.
    """
    if len(content) > MAX_POINTER_BYTES or not _VERSION.match(content):
        return ""
    size, oid = _SIZE.search(content), _OID.search(content)
    told = [f"{int(size[1])} bytes"] if size else []
    if oid:
        told.append(f"sha256 {oid[1].decode()[:12]}…")
    return (
        f"a Git LFS pointer, which stands for the real file ({', '.join(told) or 'of unknown size'}); run `git lfs"
        " pull` in the repository and upload the file that it brings, or give the address of the real file"
    )
