"""Pages that are made, not written: one for each file of a room's public names, one for each lecture.

They go to ``docs/generated``, which git does not see; :func:`write` is called by ``docs/conf.py`` before Sphinx reads.
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ROOT / "docs/generated"
LECTURES = ROOT / "examples/lectures"
PICTURES = ROOT / "lectures-output"
ROOMS = {
    "lamella": "arrays, the tape, randomness and devices: what `import lamella` brings",
    "lamella.layers": "differentiable functions of neural networks and their modules",
    "lamella.models": "whole networks",
    "lamella.training": "optimizers, data, the loop, metrics, checkpoints",
    "lamella.interop": "other people's programs and files",
    "lamella.kernels": "hot operations on plain arrays",
    "lamella.backend": "array libraries, devices, memory, threads, launching kernels",
    "lamella.testing": "the kernel simulator and comparisons",
}


class Part(NamedTuple):
    """The public names of one room that stand in one file."""

    title: str
    about: str  # the rest of the file's docstring
    names: list[str]


# -- the reference -------------------------------------------------------------------------------------------------
def public_names(room: ModuleType) -> list[str]:
    """What a room offers, without its submodules, and without what is explained under ``lamella``."""
    names = [name for name in room.__all__ if not inspect.ismodule(getattr(room, name))]
    if room.__name__ == "lamella.backend":
        import lamella

        return [name for name in names if name not in lamella.__all__]
    return [name for name in names if name != "__version__"]


def submodules(room: ModuleType) -> list[ModuleType]:
    """Modules that are used under their own names, such as ``layers.init`` and ``interop.plot``."""
    if room.__name__ == "lamella":
        return []
    if hasattr(room, "__all__"):
        named = {name: getattr(room, name) for name in room.__all__}
        return [module for module in named.values() if inspect.ismodule(module)]
    files = sorted(Path(str(room.__file__)).parent.glob("*.py"))
    return [import_module(f"{room.__name__}.{file.stem}") for file in files if not file.stem.startswith("_")]


def parts(room: ModuleType) -> dict[str, Part]:
    """The public names of a room by the file that they come from, in the order of the files."""
    found: dict[str, Part] = {}
    for name in public_names(room):
        thing = getattr(room, name)
        source = inspect.unwrap(thing) if callable(thing) else thing
        home = getattr(source, "__module__", room.__name__)
        module = import_module(home if home.startswith("lamella") else room.__name__)
        if home not in found:
            title, _, about = inspect.cleandoc(module.__doc__ or "").partition("\n")
            found[home] = Part(title.rstrip("."), about.strip(), [])
        found[home].names.append(name)
    return dict(sorted(found.items()))


def directive(room: ModuleType, name: str) -> str:
    thing = getattr(room, name)
    kind = "class" if inspect.isclass(thing) else "function" if callable(thing) else "data"
    options = ["   :members:"] if kind == "class" else ["   :no-value:"] if kind == "data" else []
    return "\n".join([f".. auto{kind}:: {room.__name__}.{name}", *options, ""])


def heading(title: str, line: str = "=") -> str:
    return f"{title}\n{line * len(title)}\n"


def reference() -> dict[str, str]:
    """The pages of the reference by file name, in reStructuredText."""
    pages = {}
    overview = [heading("Reference"), ".. toctree::", "   :maxdepth: 2", ""]
    for name, about in ROOMS.items():
        room, stem = import_module(name), name.removeprefix("lamella.")
        entries, table = [], []
        for home, part in parts(room).items() if hasattr(room, "__all__") else ():
            entries.append(f"{stem}/{home.rpartition('.')[2]}")
            body = [heading(part.title), f".. currentmodule:: {name}\n", part.about, ""]
            pages[f"{entries[-1]}.rst"] = "\n".join(body + [directive(room, each) for each in part.names])
            table += [f"   {each}" for each in part.names]
        for module in submodules(room):
            short = module.__name__.removeprefix(f"{name}.")
            entries.append(f"{stem}/{short}")
            title = f"``{module.__name__}``"
            pages[f"{entries[-1]}.rst"] = f"{heading(title)}\n.. automodule:: {module.__name__}\n   :members:\n"
        body = [heading(f"``{name}``"), f"{about.replace('`', '``').capitalize()}.\n", f".. currentmodule:: {name}\n"]
        if table:
            body += [".. autosummary::", "", *table, ""]
        body += [".. toctree::", "   :hidden:" if table else "", "", *(f"   {entry}" for entry in entries), ""]
        pages[f"{stem}.rst"] = "\n".join(body)
        overview.append(f"   {stem}")
    pages["index.rst"] = "\n".join([*overview, ""])
    return {f"reference/{path}": text for path, text in pages.items()}


# -- the lectures --------------------------------------------------------------------------------------------------
def lectures() -> dict[str, str]:
    """A page for each lecture that the table in ``examples/lectures/README.md`` lists, in Markdown."""
    table = (LECTURES / "README.md").read_text(encoding="utf-8")
    pages = {}
    for number, title, stem in re.findall(r"^\| (\d+) (.*?) \| \[\w+\]\((\w+)\.py\) \|$", table, re.MULTILINE):
        claims = ast.get_docstring(ast.parse((LECTURES / f"{stem}.py").read_text(encoding="utf-8")))
        text = [f"# {number}. {title}", "", claims, ""]
        if (PICTURES / f"{stem}.png").is_file():
            text += [f"![What the script draws]({stem}.png)", ""]
        else:
            text += ["No picture here: it is drawn by `make lectures`, which did not run before these pages were made.", ""]
        text += [
            f"`python examples/lectures/{stem}.py` prints the numbers and draws the picture; the claims are tested in "
            f"`tests/lectures/test_{stem}.py`.",
            "",
            f"```{{literalinclude}} ../../../examples/lectures/{stem}.py",
            "```",
            "",
        ]
        pages[f"lectures/{int(number):02}-{stem}.md"] = "\n".join(text)
    return pages


def write() -> None:
    """Write all pages anew; what has not changed keeps its time, so that Sphinx does not read it again."""
    pages = reference() | lectures()
    for path, text in pages.items():
        file = GENERATED / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    for file in GENERATED.rglob("*.*"):
        if file.suffix in {".rst", ".md"} and file.relative_to(GENERATED).as_posix() not in pages:
            file.unlink()
    for picture in PICTURES.glob("*.png"):
        shutil.copy2(picture, GENERATED / "lectures")
