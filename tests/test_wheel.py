"""The package as a user gets it: sdist, wheel from that sdist, a fresh environment with the source out of reach."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
SHIPPED = {".py", ".typed", ".cu", ".cuh", ".h", ".cpp", ".txt", ".safetensors"}
SOURCE_ONLY = ["LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "MANIFEST.in", ".ci/run"]
LEFT_BEHIND = shutil.ignore_patterns(  # what earlier builds leave would hide a file missing from the lists
    ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache"
)


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; a PYTHONPATH or an active environment does not reach it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    answer = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, f"{command} failed:\n{answer.stdout}\n{answer.stderr}"
    return answer.stdout


def package_files() -> set[str]:
    """Every file that an installed lamella must have, as ``lamella/layers/conv.py``."""
    found = set()
    for package, folder in SETTINGS["package-dir"].items():
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in SHIPPED and "__pycache__" not in file.parts:
                found.add((Path(*package.split(".")) / file.relative_to(ROOT / folder)).as_posix())
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel that was built from it, of a clean copy of the tree."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_BEHIND)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder / "source", cwd=folder)
    shutil.rmtree(folder / "source")
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a fresh environment that holds the wheel.

    Its dependencies are borrowed: a line in a ``.pth`` file appends this environment's site-packages to the path. An
    editable lamella in there stays out of reach, since ``.pth`` files of a folder added like this are not read.
    """
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / Path(sys.executable).name
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", built[1], cwd=folder)
    own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(own, "borrowed.pth").write_text("\n".join(sorted(borrowed)), encoding="utf-8")
    return scripts


def test_wheel_holds_every_file_of_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licences = [name for name in wheel.namelist() if name.endswith("licenses/LICENSE")]
    assert names == package_files()
    assert licences
    assert "lamella/py.typed" in names


def test_sdist_holds_what_tests_and_readers_need(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {name for name in SOURCE_ONLY if (ROOT / name).exists()}
    for folder in ("tests", "examples", "benchmarks", "docs"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and not {"__pycache__", "_build", "generated"} & set(file.parts):
                wanted.add(file.relative_to(ROOT).as_posix())
    assert "tests/test_wheel.py" in wanted
    assert not wanted - names


def test_installed_package_imports_every_module(installed: Path) -> None:
    code = (
        "import importlib, pkgutil, lamella\n"
        "print(lamella.__file__)\n"
        "for module in pkgutil.walk_packages(lamella.__path__, 'lamella.'):\n"
        "    print(importlib.import_module(module.name).__file__)\n"
    )
    files = run(next(installed.glob("python*")), "-c", code, cwd=installed).split()
    assert len(files) > 10
    outside = [file for file in files if not Path(file).is_relative_to(installed.parent)]
    assert not outside, f"imported from elsewhere: {outside}"


def test_installed_package_computes(installed: Path) -> None:
    code = (
        "import lamella\n"
        "generator = lamella.Generator(0)\n"
        "print(lamella.__version__, lamella.device('cpu'), *lamella.available_devices())\n"
    )
    version, device, *available = run(next(installed.glob("python*")), "-c", code, cwd=installed).split()
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", version)
    assert device == "cpu"
    assert "cpu" in available


def test_version_of_the_metadata_is_the_version_of_the_module(installed: Path) -> None:
    code = "import importlib.metadata, lamella; print(importlib.metadata.version('lamella') == lamella.__version__)"
    assert run(next(installed.glob("python*")), "-c", code, cwd=installed).strip() == "True"


def test_console_script_says_what_the_machine_offers(installed: Path) -> None:
    assert "cpu" in run(installed / "lamella", "info", cwd=installed)
