"""How much of its memory limit a container has used, in both layouts of control groups."""

from pathlib import Path

from onnx_operator.common.cgroups import memory_used


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_files_that_were_not_read_lately_do_not_count(tmp_path: Path) -> None:
    _write(tmp_path / "proc/self", cgroup="0::/\n")
    group = tmp_path / "sys/fs/cgroup"
    _write(group, memory__current="1000\n", memory__stat="anon 500\ninactive_file 300\n")
    assert memory_used(tmp_path) == 700


def test_the_first_layout_tells_it_in_other_files(tmp_path: Path) -> None:
    _write(tmp_path / "proc/self", cgroup="4:memory:/pod/c\n")
    group = tmp_path / "sys/fs/cgroup/memory/pod/c"
    _write(group, memory__usage_in_bytes="1000\n", memory__stat="inactive_file 1\ntotal_inactive_file 300\n")
    assert memory_used(tmp_path) == 700


def test_nothing_is_told_where_nobody_knows(tmp_path: Path) -> None:
    _write(tmp_path / "proc/self", cgroup="0::/\n")
    assert memory_used(tmp_path) is None
    _write(tmp_path / "sys/fs/cgroup", memory__current="much", memory__stat="")
    assert memory_used(tmp_path) is None
