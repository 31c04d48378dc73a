"""NVRTC without a GPU: compile a kernel's text for any architecture and read the compiler's own account of it.

Needs only wheels, no driver: ``pip install nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-runtime-cu12==12.9.79``, and for
CUDA 13, whose compiler refuses some of what that of CUDA 12 takes, ``pip install nvidia-cuda-nvrtc==13.0.88``.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

INSTALL = {
    12: "pip install nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-runtime-cu12==12.9.79",
    13: "pip install nvidia-cuda-nvrtc==13.0.88",
}
_PACKAGES = {12: "nvidia.cuda_nvrtc", 13: "nvidia.cu13"}
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


def why_missing(cuda: int = 12) -> str | None:
    """What to install so that :func:`compile_cuda` works with a CUDA release, or None where it does."""
    try:
        _library(cuda)
    except (OSError, ImportError) as error:
        return f"NVRTC is not installed ({error}); {INSTALL[cuda]}"
    return None


@cache
def _library(cuda: int) -> Any:
    name = _PACKAGES[cuda]
    package = find_spec(name) if find_spec("nvidia") else None
    for folder in package.submodule_search_locations or () if package else ():
        for path in sorted(Path(folder, "lib").glob(f"libnvrtc.so.{cuda}")):
            for builtins in path.parent.glob(f"libnvrtc-builtins.so.{cuda}.*"):  # 13.0 does not look beside itself
                ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(str(path))
    raise ImportError(f"no package {name} with a lib/libnvrtc.so.{cuda}")


def compile_cuda(code: str, defines: tuple[str, ...], architecture: str, cuda: int = 12) -> Compiled:
    """Compile CUDA source text down to machine code, with the options CuPy always adds.

    Args:
        code: the text, its headers pasted in.
        defines: macro definitions.
        architecture: what stands after ``sm_``.
        cuda: the release whose compiler it is, 12 or 13.
    """
    nvrtc = _library(cuda)
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernel.cu", 0, None, None)
    options = [f"--gpu-architecture=sm_{architecture}", "--std=c++17", "-ftz=true", "--ptxas-options=-v"]
    options.append("--device-as-default-execution-space")
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
