"""The house rules: who may import whom, which words may stand where, and that every room is shipped.

Each rule is a function from a file's path and text (or from a root folder) to complaints ``path:line: what``; it runs
over the repository, and once over a planted violation that it has to find.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A room imports only from lower floors, so rooms of one floor do not know each other. "" is src/lamella.
FLOORS = {
    "backend": 1,
    "kernels": 2,
    "autograd": 3,
    "layers": 4,
    "models": 5,
    "training": 5,
    "interop": 6,
    "benchmarks": 7,
    "": 8,
}
TESTING = "testing"  # beside the house: it sees the backend, and nobody sees it
TESTING_MAY_IMPORT = {"backend"}
ANY_DEVICE = {"layers", "models", "training", "interop", ""}  # code that must not know which array library it runs on
CUPY = {"cupy", "cupyx", "cupy_backends"}
CUPY_FILE = "backend/cupy_backend.py"
NOT_SHIPPED = {"tests", "examples", "docs", "build", "dist", "src"}

RUNS_UNKNOWN_CODE = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
NETWORK = {
    "aiohttp", "ftplib", "http", "httpx", "huggingface_hub", "imaplib", "nntplib", "poplib", "requests", "smtplib",
    "socket", "socketserver", "ssl", "telnetlib", "urllib", "urllib3", "xmlrpc",
}  # fmt: skip


# -- reading the house ---------------------------------------------------------------------------------------------
def room_of(path: str) -> str:
    """``layers/conv.py`` -> ``layers``; ``src/lamella/cli.py`` -> ``""``."""
    return "" if path.startswith("src/lamella/") else path.split("/")[0]


def package_of(path: str) -> list[str]:
    """The package in which a file's relative imports start: ``layers/conv.py`` -> ``["lamella", "layers"]``."""
    folders = path.split("/")[:-1]
    return ["lamella", *(folders[2:] if path.startswith("src/lamella/") else folders)]


def imports(path: str, text: str) -> Iterator[tuple[int, str, bool, bool]]:
    """Every import as (line, absolute dotted name, written relatively, inside a function).

    ``from a import b`` gives ``a.b``: b may be a module. Strings given to import_module and __import__ count too.
    """
    package = package_of(path)

    def visit(node: ast.AST, in_function: bool) -> Iterator[tuple[int, str, bool, bool]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, False, in_function
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name]), bool(node.level), in_function
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            name = node.args[0].value
            if called in {"import_module", "__import__"} and isinstance(name, str):
                level = len(name) - len(name.lstrip("."))
                above = package[: len(package) - level + 1] if level else []
                yield node.lineno, ".".join([*above, name[level:]]), bool(level), in_function
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(ast.parse(text), False)


def library_files(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Every Python file of the package as (path, text)."""
    for folder in ["src/lamella", *filter(None, FLOORS), TESTING]:
        for file in sorted((root / folder).rglob("*.py")):
            yield file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")


def kernel_files(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    for file in sorted((root / "kernels").rglob("*.cu*")):
        if file.suffix in {".cu", ".cuh"}:
            yield file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")


# -- rules about one Python file -----------------------------------------------------------------------------------
def imports_upwards(path: str, text: str) -> list[str]:
    """A room imports only from lower floors, relatively; ``testing`` sees the backend and nobody sees ``testing``."""
    here = room_of(path)
    found = []
    for line, name, relative, _ in imports(path, text):
        package, _, rest = name.partition(".")
        if package != "lamella":
            if relative:
                found.append(f"{path}:{line}: the relative import leaves the package")
            elif package in FLOORS or package == TESTING:
                found.append(f"{path}:{line}: imports {name}, a room, as a package of its own")
            continue
        if not relative and here != "benchmarks":
            found.append(f"{path}:{line}: imports {name} absolutely; inside the house imports are relative")
        room = rest.split(".")[0]
        target = room if room in FLOORS or room == TESTING else ""
        if target == here:
            continue
        if target == TESTING:
            found.append(f"{path}:{line}: imports testing, which only tests may")
        elif here == TESTING:
            if target not in TESTING_MAY_IMPORT:
                what = target or "the root package"
                found.append(f"{path}:{line}: testing imports {what}; of the rooms it sees the backend only")
        elif here == "benchmarks" and not target:
            continue  # a benchmark is a user's program: import lamella
        elif FLOORS[target] >= FLOORS[here]:
            found.append(
                f"{path}:{line}: {here} (floor {FLOORS[here]}) imports {target or 'the root package'} "
                f"(floor {FLOORS[target]}); imports go downwards"
            )
    return found


def names_an_array_library(path: str, text: str) -> list[str]:
    """Layers and everything above them take arrays as they come; CuPy is imported in one file, inside functions."""
    found = []
    for line, name, _, in_function in imports(path, text):
        library = name.split(".")[0]
        if room_of(path) in ANY_DEVICE and library in {"numpy", *CUPY}:
            found.append(f"{path}:{line}: imports {library}; from layers upwards the array is asked, not the library")
        elif library in CUPY and path != CUPY_FILE:
            found.append(f"{path}:{line}: imports {library}; only {CUPY_FILE} may")
        elif library in CUPY and not in_function:
            found.append(f"{path}:{line}: imports {library} at the top; import it inside the function that needs it")
    return found


def runs_unknown_code(path: str, text: str) -> list[str]:
    """No pickle, no eval, no exec, no network: a file or a name from outside never becomes code."""
    found = []
    for line, name, relative, _ in imports(path, text):
        module = name.split(".")[0]
        if not relative and module in RUNS_UNKNOWN_CODE:
            found.append(f"{path}:{line}: imports {module}, which runs what it reads")
        elif not relative and module in NETWORK:
            found.append(f"{path}:{line}: imports {module}; the library opens no connection")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
            found.append(f"{path}:{node.lineno}: calls {node.func.id}")
        for keyword in node.keywords:
            if keyword.arg == "allow_pickle" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                found.append(f"{path}:{node.lineno}: allows pickle")
    return found


def asserts(path: str, text: str) -> list[str]:
    """A caller's mistake gets an error that ``python -O`` keeps; benchmarks may assert their answers."""
    if room_of(path) == "benchmarks":
        return []
    return [
        f"{path}:{node.lineno}: assert in library code; raise TypeError or ValueError with the argument and its value"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assert)
    ]


# -- rules about one kernel file -----------------------------------------------------------------------------------
_COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
_CONDITION = re.compile(r"^\s*#\s*(?:if|ifdef|ifndef|elif|elifdef|elifndef)\b(.*)")
_PLATFORM = re.compile(r"\b(?:_[_A-Z]\w*|\w*SIMULATOR\w*|CUDA_\w+|NVCC\w*)\b")  # reserved names belong to compilers


def leaves_the_common_language(path: str, text: str) -> list[str]:
    """No asm, system header or platform ``#if`` in a kernel: NVRTC and the simulator read the same text."""
    if path.endswith("_compat.cuh"):
        return []

    def blank(match: re.Match[str]) -> str:  # comments go, strings shrink, lines stay where they are
        return '""' if match[0].startswith('"') else "\n" * match[0].count("\n")

    found = []
    for number, line in enumerate(_COMMENT_OR_STRING.sub(blank, text).split("\n"), start=1):
        if re.search(r"\b(?:asm|__asm|__asm__)\b", line):
            found.append(f"{path}:{number}: asm outside kernels/*_compat.cuh")
        if re.match(r"\s*#\s*include\s*<", line):
            found.append(f"{path}:{number}: includes a system header outside kernels/*_compat.cuh")
        condition = _CONDITION.match(line)
        if condition and (platform := _PLATFORM.search(condition[1])):
            found.append(f"{path}:{number}: asks for the platform ({platform[0]}) outside kernels/*_compat.cuh")
    return found


# -- rules about the folders ---------------------------------------------------------------------------------------
def kernels_without_partner(root: Path) -> list[str]:
    """``softmax.cu`` has its definition ``softmax.py`` and its ``tests/test_softmax.py``."""
    found = []
    for kernel in sorted((root / "kernels").glob("*.cu")):
        for partner in (f"kernels/{kernel.stem}.py", f"tests/test_{kernel.stem}.py"):
            if not (root / partner).is_file():
                found.append(f"kernels/{kernel.name}:1: {partner} is missing")
    return found


def rooms_not_shipped(root: Path) -> list[str]:
    """The package list and package-dir of pyproject.toml are the folders that hold Python files, no more, no less."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    listed, folders = set(settings["packages"]), settings["package-dir"]
    line = {name: number for number, name in _quoted_lines(root / "pyproject.toml")}
    standing = {"lamella": "src/lamella"}
    tops = [
        top
        for top in sorted(root.iterdir())
        if top.is_dir() and top.name not in NOT_SHIPPED and top.name[0] != "." and not (top / "pyvenv.cfg").exists()
    ]
    for folder in [root / "src/lamella", *tops]:
        for file in sorted(folder.rglob("*.py")):
            path = file.parent.relative_to(root).as_posix()
            standing[".".join(package_of(f"{path}/_"))] = path
    found = []
    for name, path in sorted(standing.items()):
        if not (root / path / "__init__.py").is_file():
            found.append(f"{path}:1: holds Python files and no __init__.py")
        elif name not in listed:
            found.append(f"pyproject.toml:{line.get('packages', 1)}: {name} ({path}) is missing in packages")
        else:
            parent, _, last = name.rpartition(".")
            inherited = f"{folders[parent]}/{last}" if parent in folders else None
            if folders.get(name, inherited) != path:
                found.append(f"pyproject.toml:{line.get(name, 1)}: package-dir of {name} should be {path}")
    for name in sorted(listed - set(standing)):
        found.append(f"pyproject.toml:{line.get(name, 1)}: {name} is listed and has no folder")
    for room in sorted(name.split(".")[1] for name in standing if name.count(".") == 1):
        if standing[f"lamella.{room}"] == room and room not in FLOORS and room != TESTING:
            found.append(f"{room}:1: a room without a floor; give it one in tests/test_architecture.py")
    return found


def _quoted_lines(file: Path) -> Iterator[tuple[int, str]]:
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if match := re.match(r'\s*"?([\w.]+)"?\s*[=,]', text):
            yield number, match[1]


_IMPORT_EACH = """
import importlib, json, sys
said = {}
for room in sys.argv[1:]:
    try:
        importlib.import_module(room)
        said[room] = "imported"
    except ImportError as error:
        said[room] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


def rooms_that_import_alone(root: Path, rooms: list[str]) -> list[str]:
    """``import layers`` from the repository's root must say ``lamella.layers``, or everything exists twice."""
    answer = subprocess.run(
        [sys.executable, "-B", "-c", _IMPORT_EACH, *rooms], cwd=root, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        return [f"{root}: importing the rooms failed: {answer.stderr}"]
    return [
        f"{room}/__init__.py:1: a bare 'import {room}' gave {said!r}; it must raise ImportError naming lamella.{room}"
        for room, said in json.loads(answer.stdout).items()
        if not (said.startswith("ImportError: ") and "lamella" in said and room in said)
    ]


# -- the house keeps its rules -------------------------------------------------------------------------------------
def rooms() -> list[str]:
    return [room for room in [*filter(None, FLOORS), TESTING] if (ROOT / room / "__init__.py").is_file()]


PYTHON_RULES = [imports_upwards, names_an_array_library, runs_unknown_code, asserts]
Rule = Callable[[str, str], list[str]]


@pytest.mark.parametrize("rule", PYTHON_RULES, ids=lambda rule: rule.__name__)
def test_library_keeps_the_rule(rule: Rule) -> None:
    files = list(library_files())
    assert len(files) > 10, "the rule looked at no files"
    complaints = [complaint for path, text in files for complaint in rule(path, text)]
    assert not complaints, "\n".join(["", *complaints])


def test_kernels_are_written_in_the_common_language() -> None:
    complaints = [complaint for path, text in kernel_files() for complaint in leaves_the_common_language(path, text)]
    assert not complaints, "\n".join(["", *complaints])


def test_every_kernel_has_its_definition_and_its_test() -> None:
    complaints = kernels_without_partner(ROOT)
    assert not complaints, "\n".join(["", *complaints])


def test_every_room_is_in_the_package_list() -> None:
    complaints = rooms_not_shipped(ROOT)
    assert not complaints, "\n".join(["", *complaints])


def test_a_room_refuses_to_be_imported_alone() -> None:
    complaints = rooms_that_import_alone(ROOT, rooms())
    assert not complaints, "\n".join(["", *complaints])


def test_importing_lamella_brings_in_nothing_heavy() -> None:
    heavy = {"cupy", "sklearn", "scipy", "matplotlib", "tqdm", "pytest", "torch", "lamella.testing"}
    code = f"import sys, numpy\nold = set(sys.modules)\nimport lamella\nprint(*(set(sys.modules) - old) & {heavy})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []


# -- each rule finds a planted violation ---------------------------------------------------------------------------
PLANTED = [
    (imports_upwards, "backend/x.py", "\nfrom ..kernels import f", 2, "backend (floor 1) imports kernels (floor 2)"),
    (imports_upwards, "kernels/x.py", "from .. import autograd", 1, "kernels (floor 2) imports autograd"),
    (imports_upwards, "models/x.py", "from ..training import Adam", 1, "models (floor 5) imports training (floor 5)"),
    (imports_upwards, "training/x.py", "def f():\n    from ..models import mlp", 2, "(floor 5) imports models"),
    (imports_upwards, "layers/deep/x.py", "from ...models.mlp import MLP", 1, "layers (floor 4) imports models"),
    (imports_upwards, "layers/x.py", "from .. import Tensor", 1, "imports the root package"),
    (imports_upwards, "layers/x.py", "from ..cli import main", 1, "imports the root package"),
    (imports_upwards, "layers/x.py", "import lamella.backend", 1, "imports are relative"),
    (imports_upwards, "layers/x.py", "from lamella.backend import device", 1, "imports are relative"),
    (imports_upwards, "layers/x.py", "import backend", 1, "as a package of its own"),
    (imports_upwards, "layers/x.py", "from ...other import y", 1, "leaves the package"),
    (imports_upwards, "kernels/x.py", "from ..testing import simulator", 1, "imports testing"),
    (imports_upwards, "src/lamella/cli.py", "from . import testing", 1, "imports testing"),
    (imports_upwards, "benchmarks/bench_x.py", "import lamella.testing", 1, "imports testing"),
    (imports_upwards, "testing/x.py", "from ..layers import Linear", 1, "testing imports layers"),
    (imports_upwards, "interop/x.py", "\nimport_module('..benchmarks.run', __package__)", 2, "imports benchmarks"),
    (names_an_array_library, "layers/x.py", "import numpy as np", 1, "imports numpy"),
    (names_an_array_library, "training/x.py", "def f():\n    from numpy.linalg import norm", 2, "imports numpy"),
    (names_an_array_library, "models/x.py", "np = __import__('numpy')", 1, "imports numpy"),
    (names_an_array_library, "interop/x.py", "import cupy", 1, "imports cupy"),
    (names_an_array_library, "kernels/x.py", "def f():\n    import cupyx.scipy", 2, f"only {CUPY_FILE}"),
    (names_an_array_library, CUPY_FILE, "import cupy", 1, "imports cupy at the top"),
    (runs_unknown_code, "training/x.py", "import pickle", 1, "imports pickle"),
    (runs_unknown_code, "training/x.py", "from urllib.request import urlopen", 1, "imports urllib"),
    (runs_unknown_code, "training/x.py", "\n\nexec('x = 1')", 3, "calls exec"),
    (runs_unknown_code, "training/x.py", "y = eval('1')", 1, "calls eval"),
    (runs_unknown_code, "training/x.py", "xp.load(path, allow_pickle=True)", 1, "allows pickle"),
    (asserts, "layers/x.py", "def f(x):\n    assert x.ndim == 2", 2, "assert in library code"),
    (leaves_the_common_language, "kernels/x.cu", '/* a\nb */\nasm volatile("nop;");', 3, "asm outside"),
    (leaves_the_common_language, "kernels/x.cu", "#include <cuda_fp16.h>", 1, "system header"),
    (leaves_the_common_language, "kernels/x.cuh", "\n#ifdef __CUDA_ARCH__\n#endif", 2, "__CUDA_ARCH__"),
    (leaves_the_common_language, "kernels/x.cu", "#if defined(LAMELLA_SIMULATOR)", 1, "LAMELLA_SIMULATOR"),
]


@pytest.mark.parametrize(("rule", "path", "text", "line", "message"), PLANTED)
def test_rule_finds_the_planted_violation(rule: Rule, path: str, text: str, line: int, message: str) -> None:
    (complaint,) = rule(path, text)
    assert complaint.startswith(f"{path}:{line}: ")
    assert message in complaint


ALLOWED = [
    (imports_upwards, "layers/x.py", "from . import base\nfrom ..kernels.softmax import softmax\nimport math"),
    (imports_upwards, "interop/x.py", "from ..models import mlp\nfrom .. import training"),
    (imports_upwards, "benchmarks/bench_x.py", "import lamella\nimport lamella.layers as L"),
    (imports_upwards, "testing/x.py", "from ..backend import register_backend\nfrom .compare import close"),
    (imports_upwards, "src/lamella/__init__.py", "from . import layers\nfrom .backend import device"),
    (names_an_array_library, "kernels/x_numpy.py", "import numpy as np"),
    (names_an_array_library, CUPY_FILE, "def f():\n    import cupy"),
    (runs_unknown_code, "layers/x.py", "class M:\n    def eval(self):\n        return self\nm = M().eval()"),
    (runs_unknown_code, "training/x.py", "np.load(path, allow_pickle=False)\nfrom .http import x"),
    (asserts, "benchmarks/bench_x.py", "assert close"),
    (leaves_the_common_language, "kernels/cuda_compat.cuh", "#ifdef __CUDACC_RTC__\n#include <x.h>\nasm();\n#endif"),
    (leaves_the_common_language, "kernels/x.cu", '// asm\n#ifdef HAS_BIAS\n#endif\n#include "cuda_compat.cuh"'),
]


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_rule_leaves_good_code_alone(rule: Rule, path: str, text: str) -> None:
    assert rule(path, text) == []


def test_planted_kernel_without_partner_is_found(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels/gelu.cu").touch()
    assert kernels_without_partner(tmp_path) == [
        "kernels/gelu.cu:1: kernels/gelu.py is missing",
        "kernels/gelu.cu:1: tests/test_gelu.py is missing",
    ]


GUARD = "if not __name__.startswith('lamella.'):\n    raise ImportError(f'{__name__}: import lamella.{__name__}')\n"


def plant_house(root: Path, *files: str) -> None:
    (root / "pyproject.toml").write_text(
        '[tool.setuptools]\npackages = [\n    "lamella",\n    "lamella.layers",\n]\n'
        '[tool.setuptools.package-dir]\n"lamella" = "src/lamella"\n"lamella.layers" = "layers"\n'
    )
    for file in ["src/lamella/__init__.py", "layers/__init__.py", *files]:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(GUARD)


def test_planted_rooms_that_are_not_shipped_are_found(tmp_path: Path) -> None:
    plant_house(tmp_path)
    assert rooms_not_shipped(tmp_path) == []
    plant_house(tmp_path, "layers/deep/__init__.py", "models/mlp.py", "attic/__init__.py")
    (tmp_path / "layers/__init__.py").rename(tmp_path / "layers/conv.py")
    found = "\n".join(rooms_not_shipped(tmp_path))
    assert "pyproject.toml:2: lamella.layers.deep (layers/deep) is missing in packages" in found
    assert "models:1: holds Python files and no __init__.py" in found
    assert "layers:1: holds Python files and no __init__.py" in found
    assert "attic:1: a room without a floor" in found
    (tmp_path / "layers/conv.py").unlink()
    (tmp_path / "layers/deep/__init__.py").unlink()
    assert "pyproject.toml:8: lamella.layers is listed and has no folder" in rooms_not_shipped(tmp_path)


def test_planted_room_without_guard_is_found(tmp_path: Path) -> None:
    plant_house(tmp_path, "models/__init__.py")
    (tmp_path / "models/__init__.py").write_text("")
    (complaint,) = rooms_that_import_alone(tmp_path, ["layers", "models"])
    assert complaint.startswith("models/__init__.py:1: a bare 'import models' gave 'imported'")
