"""A machine that claims to have many cores, for programs that ask how many there are."""

import shutil
import subprocess
from pathlib import Path

CORES = 96
_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set) {
  memset(set, 0, size);
  for (size_t i = 0; i < CORES && i / 8 < size; i++) ((unsigned char *)set)[i / 8] |= 1 << (i % 8);
  return 0;
}
int pthread_getaffinity_np(unsigned long thread, size_t size, cpu_set_t *set) {
  return sched_getaffinity(0, size, set);
}
int get_nprocs(void) { return CORES; }
int get_nprocs_conf(void) { return CORES; }
long sysconf(int name) {
  static long (*original)(int);
  if (name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF) return CORES;
  if (!original) original = dlsym(RTLD_NEXT, "sysconf");
  return original(name);
}
"""


def compiler() -> str | None:
    """The C compiler of this machine."""
    return shutil.which("cc")


def many_cores(folder: Path) -> Path:
    """Make the library that ``LD_PRELOAD`` names for such a program, in ``folder``."""
    source, library = folder / "cores.c", folder / "cores.so"
    source.write_text(_SOURCE)
    options = ["-shared", "-fPIC", f"-DCORES={CORES}", "-o", str(library), str(source), "-ldl"]
    subprocess.run([compiler() or "cc", *options], check=True)
    return library


def threads_of(process: int) -> int:
    """How many threads a process of this machine has."""
    return len(list(Path(f"/proc/{process}/task").iterdir()))
