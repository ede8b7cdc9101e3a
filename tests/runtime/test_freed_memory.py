"""Memory that is freed stays with the process, for trainings that ask for it."""

from __future__ import annotations

import platform
import subprocess
import sys

PROGRAM = """
import ctypes, sys
from cgnrt._support.machine import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
C = ctypes.CDLL(None)
C.malloc.restype, C.malloc.argtypes, C.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

before = resident()
block = C.malloc(1 << 28)
ctypes.memset(block, 1, 1 << 28)
C.free(block)
print(resident() - before)
"""


def left_after_a_free(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_kept_where_the_c_library_can() -> None:
    assert left_after_a_free("leave") < 1 << 26
    if platform.libc_ver()[0] == "glibc":
        assert left_after_a_free("keep") > 1 << 27
    else:
        assert left_after_a_free("keep") < 1 << 28
