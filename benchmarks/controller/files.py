"""The models of the benchmark: small ONNX files behind a web server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.servers import nginx
from tests.models import linear
from tests.unit.model.webkit import make_authority


@dataclass
class Files:
    """A folder that is served over TLS; every file of it has other bytes."""

    folder: Path
    url: str
    ca_bundle: str
    made: int = 0

    def more(self, count: int) -> list[str]:
        """So many new files; gives their addresses."""
        numbers = range(self.made, self.made + count)
        self.made += count
        for number in numbers:
            (self.folder / f"{number}.onnx").write_bytes(linear(number))
        return [f"{self.url}/{number}.onnx" for number in numbers]


@contextmanager
def served(folder: Path) -> Iterator[Files]:
    """Serve models from below a folder for as long as the block lasts."""
    (folder / "files").mkdir(parents=True)
    (folder / "authority").mkdir()
    authority = make_authority(folder / "authority")
    with nginx(folder, authority.chain, "") as url:
        yield Files(folder / "files", url, authority.pem)
