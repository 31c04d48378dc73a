"""From CUDA source text to a shared library for the CPU, kept on disk under a hash of everything it was made from."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .errors import KernelError

_HERE = Path(__file__).parent
_HEADERS = ("cuda_language.h", "tensor_language.h", "runtime.h")
_RUNTIME = ("runtime.cpp", "runtime.h", "fiber.h", "race.h")
_RECIPE = Path(__file__).read_bytes()  # how things are compiled is part of what they are made from
# DWARF 4: binutils' addr2line names the wrong file for g++'s DWARF 5. Frame pointers: a report walks over the frames.
_COMMON = ("-std=c++17", "-gdwarf-4", "-fPIC", "-fno-omit-frame-pointer", "-Wno-attributes", "-Wno-unknown-pragmas")
_RUNTIME_FLAGS = (*_COMMON, "-O2", "-fno-optimize-sibling-calls", "-shared", "-lrt")
_KERNEL_FLAGS = (
    *_COMMON,
    "-O1",
    "-DLAMELLA_SIMULATOR",
    "-fno-strict-aliasing",
    "-fno-gnu-unique",  # else __shared__ variables of templates would be one for the whole process
    "-fno-finite-loops",  # a loop without an effect must stay: it is a bug to report
    "-fsanitize=thread,bounds,alignment,signed-integer-overflow,shift,integer-divide-by-zero",
    "--param=tsan-instrument-func-entry-exit=0",
    "-fsanitize-coverage=trace-pc",
)
_GENERATED = "simulator_calls"  # the name under which generated code appears in debug information

_KERNEL = re.compile(r'extern\s+"C"\s+__attribute__\(\(simulator_kernel\)\)([^{;]*)\{')
_NESTED = r"(?:[^()]|\((?:[^()]|\([^()]*\))*\))*"
_BOUNDS = re.compile(rf"__attribute__\s*\(\(simulator_launch_bounds\(({_NESTED})\)\)\)")
_ATTRIBUTE = re.compile(rf"__attribute__\s*\(\({_NESTED}\)\)|^#.*$", re.M)
_DECLARATION = re.compile(r"\s*void\s+(\w+)\s*\(([^()]*)\)\s*")
_CUDA_HEADER = re.compile(
    r"^([ \t]*)#[ \t]*include[ \t]*<(?:cuda_\w+|cuda|device_\w+|vector_types|math_constants)\.h>", re.M
)
_ALIGN = r"(?:(?:__align__|alignas)\s*\(\s*\w+\s*\)\s*)?"
_EXTERN_SHARED = re.compile(rf"extern\s+__shared__\s+{_ALIGN}([\w ]+?)\s+{_ALIGN}(\w+)\s*\[\s*\]\s*;")


@dataclass(frozen=True)
class KernelInfo:
    """What a compiled kernel takes: its parameters' names and types, and the block size it was declared for."""

    index: int
    parameters: tuple[str, ...]
    types: tuple[str, ...]
    max_threads: int


class Library:
    """A compiled source: a loaded shared library and the kernels in it."""

    def __init__(self, path: Path, runtime: ctypes.CDLL) -> None:
        self.path, self.runtime = path, runtime
        self.handle = ctypes.CDLL(str(path))
        self.kernels: dict[str, KernelInfo] = {}
        for index, line in enumerate(self._text("simulator_kernels").splitlines()):
            name, parameters = line.split("|")
            bounds = getattr(self.handle, f"simulator_bounds_{index}")()
            types = tuple(self._text(f"simulator_signature_{index}").split(";")[:-1])
            names = tuple(parameters.split(",")) if parameters else ()
            self.kernels[name] = KernelInfo(index, names, types, bounds)

    def address(self, function: str) -> int:
        return ctypes.cast(getattr(self.handle, function), ctypes.c_void_p).value or 0

    def _text(self, function: str) -> str:
        call = getattr(self.handle, function)
        call.restype = ctypes.c_char_p
        text: bytes = call()
        return text.decode()

    def source_lines(self, addresses: list[int]) -> list[tuple[str, int]]:
        """The kernel's source lines at these addresses in the library, innermost first; empty without addr2line."""
        tool = shutil.which("addr2line")
        if not addresses or tool is None:
            return []
        command = [tool, "-i", "-e", str(self.path), *map(hex, addresses)]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
        lines = []
        for entry in listed:
            file, _, number = entry.split(" (")[0].rpartition(":")
            name = os.path.basename(file)
            if number.isdecimal() and int(number) and name not in (_GENERATED, *_HEADERS):
                lines.append((name, int(number)))
        return lines


def compile_cuda(code: str, options: tuple[str, ...] = ()) -> Library:
    """Compile CUDA source text for the CPU, or load it from the cache.

    Args:
        code: the text; its headers may be pasted in with ``#line`` directives, which reports then follow.
        options: as for NVRTC; ``-D``, ``-U`` and ``-I`` count, others have no meaning here.
    Raises:
        KernelError: the text does not compile, or there is no compiler; the message has what g++ said.
    """
    options = tuple(option for option in options if option.startswith(("-D", "-U", "-I")))
    return _compile(code, options, _contents_of_includes(options))


def _contents_of_includes(options: tuple[str, ...]) -> bytes:
    folders = [Path(option[2:]) for option in options if option.startswith("-I")]
    headers = [file for folder in folders for file in sorted(folder.iterdir()) if file.suffix in (".h", ".cuh", ".hpp")]
    return b"\0".join(file.read_bytes() for file in headers)


@cache
def _compile(code: str, options: tuple[str, ...], includes: bytes) -> Library:
    runtime = _runtime()
    headers = b"\0".join((_HERE / name).read_bytes() for name in _HEADERS)
    flags = [*_KERNEL_FLAGS, f"-I{_HERE}"]
    path = _cache_folder() / f"kernel-{_digest(_RECIPE, runtime.name, headers, code, options, includes)}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            unit, compiled, result = Path(folder, "unit.ii"), Path(folder, "unit.o"), Path(folder, "kernel.so")
            preprocess = [find_compiler(), *flags, *options, "-x", "c++", "-include", "cuda_language.h", "-E", "-"]
            text = _run(preprocess, '#line 1 "kernel.cu"\n' + _adapted(code))
            unit.write_text(text + _calls(text), encoding="utf-8")
            _run([find_compiler(), *flags, "-c", str(unit), "-o", str(compiled)])
            # Linked without the flags above, which would bring in GCC's own sanitizer libraries.
            _run([find_compiler(), "-shared", str(compiled), str(runtime), "-Wl,-rpath,$ORIGIN", "-o", str(result)])
            result.replace(path)  # at once, so that a process beside this one finds all of it or nothing
    return Library(path, _load_runtime(runtime))


def _adapted(code: str) -> str:
    """The text with what an ordinary ``.cu`` says and g++ cannot read; the lines keep their numbers."""
    code = _CUDA_HEADER.sub(r"\1", code)
    return _EXTERN_SHARED.sub(r"\1* const \2 = reinterpret_cast<\1*>(simulator_dynamic_shared());", code)


def _calls(text: str) -> str:
    """Generated code after the source: each kernel's entry and the text that describes it."""
    lines = [f'# 1 "{_GENERATED}"']
    table: list[str] = []
    for match in _KERNEL.finditer(text):
        declaration = _DECLARATION.fullmatch(_ATTRIBUTE.sub("", match[1]))
        if declaration is None:
            continue
        index, name = len(table), declaration[1]
        names = [parameter.split()[-1].lstrip("*&") for parameter in declaration[2].split(",") if parameter.strip()]
        bounds = _BOUNDS.search(match[1])
        most_threads = bounds[1].split(",")[0] if bounds else "1024"
        table.append(f"{name}|{','.join(names)}\\n")
        lines.append(
            f'extern "C" SIMULATOR void simulator_call_{index}(void** arguments)'
            f" {{ simulator::call(&{name}, arguments); }}\n"
            f'extern "C" const char* simulator_signature_{index}() {{ return simulator::signature(&{name}); }}\n'
            f'extern "C" int simulator_bounds_{index}() {{ return {most_threads}; }}'
        )
    lines.append(
        f'extern "C" const char* simulator_kernels() {{ return "{"".join(table)}"; }}\n'
        "static thread_local char simulator_anchor;\n"
        'extern "C" void* simulator_touch_shared() { return &simulator_anchor; }\n'
    )
    unseen = '__attribute__((no_sanitize("thread", "undefined"), no_sanitize_coverage))'
    return "\n" + "\n".join(lines).replace("SIMULATOR", unseen)


@cache
def _runtime() -> Path:
    """The simulator's own library, built once for each version of its sources."""
    sources = b"\0".join((_HERE / name).read_bytes() for name in _RUNTIME)
    path = _cache_folder() / f"runtime-{_digest(_RECIPE, sources)}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            result = Path(folder, "runtime.so")
            soname = f"-Wl,-soname,{path.name}"
            _run([find_compiler(), *_RUNTIME_FLAGS, soname, str(_HERE / "runtime.cpp"), "-o", str(result)])
            result.replace(path)
    return path


@cache
def _load_runtime(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


def _digest(*parts: object) -> str:
    hasher = hashlib.sha256()
    for part in (*parts, find_compiler(), platform.machine()):
        hasher.update(part if isinstance(part, bytes) else repr(part).encode())
        hasher.update(b"\0")
    return hasher.hexdigest()[:32]


@cache
def _cache_folder() -> Path:
    """The folder of compiled kernels: ``$LAMELLA_SIMULATOR_CACHE``, or one of this user's in the temporary folder."""
    chosen = os.environ.get("LAMELLA_SIMULATOR_CACHE")
    folder = Path(chosen) if chosen else Path(tempfile.gettempdir(), f"lamella-simulator-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():  # code is loaded from here
        raise PermissionError(
            f"the cache of compiled kernels belongs to another user: {folder}; set LAMELLA_SIMULATOR_CACHE"
        )
    return folder.resolve()


def find_compiler() -> str:
    """The C++ compiler's path: ``$CXX``, else ``g++``."""
    if sys.platform != "linux":
        raise KernelError(f"the kernel simulator runs on Linux only, this is {sys.platform}", kind="compile")
    wanted = os.environ.get("CXX", "g++")
    found = shutil.which(wanted)
    if found is None:
        raise KernelError(
            f"the kernel simulator needs GCC's C++ compiler, {wanted!r} was not found: install it "
            "(apt install g++, dnf install gcc-c++ or conda install gxx), or name it in the environment variable CXX",
            kind="compile",
        )
    return found


def _run(command: list[str], text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KernelError(f"the source does not compile for the CPU:\n{done.stderr.strip()}", kind="compile")
    return done.stdout
