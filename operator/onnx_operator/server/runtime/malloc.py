"""What loading frees goes back to the system, where the C library is glibc.

While a model is loaded, large pieces are copied again and again, and each original is freed. glibc gives back at once
what it mapped on its own, which by default is what is larger than a threshold that grows, up to 32 MiB, with each
such piece that is freed: the originals of a large model's weights then stay as holes in the heap. With the threshold
held at 1 MiB while loading they are given back; requests afterwards get glibc's largest, so that their buffers are
reused rather than mapped and cleared anew each time.

Source: mallopt(3), malloc_trim(3).
"""

import contextlib
import ctypes
import platform
from collections.abc import Iterator
from functools import cache
from typing import Any

_M_MMAP_THRESHOLD = -3
_LOADING_BYTES = 1 << 20
_SERVING_BYTES = 32 << 20


@contextlib.contextmanager
def loading_memory() -> Iterator[None]:
    """While this is entered, free pieces from 1 MiB go back at once; at its end, all that is free."""
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_M_MMAP_THRESHOLD, _LOADING_BYTES)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_THRESHOLD, _SERVING_BYTES)
        library.malloc_trim(0)


def release_memory() -> None:
    """Give what is free back to the system, in the heaps of all threads."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    if platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None
