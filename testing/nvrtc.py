"""NVRTC without a GPU: compile a kernel's text for any architecture and read the compiler's own account of it.

Needs only two wheels, no driver: ``pip install nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-runtime-cu12==12.9.79``.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

INSTALL = "pip install nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-runtime-cu12==12.9.79"
_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the compiler said of one text for one architecture.

    Args:
        ok: whether it compiled.
        log: the compiler's messages, errors with file and line.
        registers: 32-bit registers a thread holds, by kernel name.
        spills: bytes that a thread stores and loads again for want of registers, by kernel name.
        ptx: the intermediate text, where an access to memory can be seen to be as wide as it should be.
    """

    ok: bool
    log: str
    registers: dict[str, int]
    spills: dict[str, int]
    ptx: str


def why_missing() -> str | None:
    """What to install so that :func:`compile_cuda` works, or None where it does."""
    try:
        _library()
    except (OSError, ImportError) as error:
        return f"NVRTC is not installed ({error}); {INSTALL}"
    return None


@cache
def _library() -> Any:
    package = find_spec("nvidia.cuda_nvrtc") if find_spec("nvidia") else None
    for folder in package.submodule_search_locations or () if package else ():
        for path in sorted(Path(folder, "lib").glob("libnvrtc.so.*")):
            return ctypes.CDLL(str(path))
    raise ImportError("no package nvidia.cuda_nvrtc with a lib/libnvrtc.so")


def compile_cuda(code: str, defines: tuple[str, ...], architecture: str) -> Compiled:
    """Compile CUDA source text down to machine code for ``sm_<architecture>``, with the options CuPy always adds."""
    nvrtc = _library()
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernel.cu", 0, None, None)
    options = [f"--gpu-architecture=sm_{architecture}", "--std=c++17", "-ftz=true", "--ptxas-options=-v"]
    options += [f"-D{define}" for define in defines]
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), array)
    texts = []
    for text in ("ProgramLog", "PTX"):
        getattr(nvrtc, f"nvrtcGet{text}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(max(1, size.value))
        getattr(nvrtc, f"nvrtcGet{text}")(program, buffer)
        texts.append(buffer.value.decode(errors="replace"))
    log, ptx = texts
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    registers, spills, kernel = {}, {}, ""
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            kernel = entry[1]
        elif found := _SPILLS.search(line):
            spills[kernel] = int(found[1]) + int(found[2])
        elif found := _REGISTERS.search(line):
            registers[kernel] = int(found[1])
    return Compiled(status == 0, log, registers, spills, ptx if status == 0 else "")
