"""Pages that are made, not written: one for each file of a room's public names, one for each lecture.

They go to ``docs/generated``, which git does not see; :func:`write` is called by ``docs/conf.py`` before Sphinx reads.
"""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import lamella

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

    about: str  # the file's docstring
    names: list[str]


# -- the reference -------------------------------------------------------------------------------------------------
def public_names(room: ModuleType) -> list[str]:
    """What a room offers, without its submodules, and without what ``lamella`` offers too and is explained there."""
    names = [name for name in room.__all__ if not inspect.ismodule(getattr(room, name)) and name != "__version__"]
    if room is lamella:
        return names
    return [name for name in names if getattr(lamella, name, None) is not getattr(room, name)]


def submodules(room: ModuleType) -> list[ModuleType]:
    """Modules that are used under their own names, such as ``layers.init`` and ``interop.plot``."""
    if room.__name__ == "lamella":
        return []
    if hasattr(room, "__all__"):
        named = {name: getattr(room, name) for name in room.__all__}
        return [module for module in named.values() if inspect.ismodule(module)]
    names = sorted(module.name for module in pkgutil.iter_modules(room.__path__) if not module.name.startswith("_"))
    return [import_module(f"{room.__name__}.{name}") for name in names]


def home_of(room: ModuleType, name: str) -> str:
    """The module in which a room's name is defined."""
    thing = getattr(room, name)
    if not is_data(thing):
        return inspect.unwrap(thing).__module__
    files = [module for path, module in sorted(sys.modules.items()) if path.startswith(f"{room.__name__}.")]
    return next(module.__name__ for module in files if vars(module).get(name) is thing)


def parts(room: ModuleType) -> dict[str, Part]:
    """The public names of a room by the file that they come from, in the order of the files."""
    found: dict[str, Part] = {}
    for name in public_names(room):
        home = home_of(room, name)
        if home not in found:
            found[home] = Part(inspect.cleandoc(import_module(home).__doc__ or ""), [])
        found[home].names.append(name)
    return dict(sorted(found.items()))


def directive(room: ModuleType, name: str) -> str:
    thing = getattr(room, name)
    if is_data(thing):  # autodata would say what a tuple is
        return f".. py:data:: {room.__name__}.{name}\n   :value: {thing!r}\n"
    if inspect.isclass(thing):
        return f".. autoclass:: {room.__name__}.{name}\n   :members:\n"
    return f".. autofunction:: {room.__name__}.{name}\n"


def is_data(thing: object) -> bool:
    return thing is Any or not (inspect.isclass(thing) or callable(thing))


def heading(title: str, line: str = "=") -> str:
    return f"{title}\n{line * len(title)}\n"


def reference() -> dict[str, str]:
    """The pages of the reference by file name, in reStructuredText."""
    pages = {}
    stems = {name: name.removeprefix("lamella.") for name in ROOMS}
    overview = [heading("Reference"), *(f"- :doc:`{stems[name]}`: {ROOMS[name].replace('`', '``')}" for name in ROOMS)]
    overview += ["", ".. toctree::", "   :hidden:", "", *(f"   {stem}" for stem in stems.values()), ""]
    for name, about in ROOMS.items():
        room, stem = import_module(name), stems[name]
        entries, table = [], []
        for home, part in parts(room).items() if hasattr(room, "__all__") else ():
            file = home.rpartition(".")[2]
            entries.append(f"{stem}/{file}")
            same = [each for each in part.names if each.lower() == file.replace("_", "")]
            title = min(same, default=file.strip("_").replace("_", " ").capitalize())  # "GPT" before "gpt"
            body = [heading(title), f".. currentmodule:: {name}\n", *one_a_line(part.about.splitlines()), ""]
            pages[f"{entries[-1]}.rst"] = "\n".join(body + [directive(room, each) for each in part.names])
            table += [f"   {each}" for each in part.names if not is_data(getattr(room, each))]
        for module in submodules(room):
            short = module.__name__.removeprefix(f"{name}.")
            entries.append(f"{stem}/{short}")
            title = f"``{module.__name__}``"
            pages[f"{entries[-1]}.rst"] = f"{heading(title)}\n.. automodule:: {module.__name__}\n   :members:\n"
        about = about[0].upper() + about[1:].replace("`", "``")
        body = [heading(f"``{name}``"), f"{about}.\n", f".. py:module:: {name}\n"]
        if table:
            body += [".. autosummary::", "", *table, ""]
        body += [".. toctree::", "   :hidden:" if table else "", "", *(f"   {entry}" for entry in entries), ""]
        pages[f"{stem}.rst"] = "\n".join(body)
    pages["index.rst"] = "\n".join(overview)
    return {f"reference/{path}": text for path, text in pages.items()}


# -- docstrings as Sphinx wants them --------------------------------------------------------------------------------
_SECTION = re.compile(r"^(\s*)(Args|Attributes|Raises):$")
_SECOND = re.compile(r"^(\s+)([\w*, ]+: \S.*?[.;]) ((?:[a-z][a-z_0-9]*(?:, [a-z][a-z_0-9]*)*|[A-Z]\w*Error): \S.*)$")
_SEVERAL = re.compile(r"^(\s+)([a-z]\w*(?:, [a-z]\w*)+): (.*)$")


def one_a_line(docstring: list[str]) -> list[str]:
    """A docstring with one argument or error on each line, and its source as a paragraph.

    We write ``a: this. b: that.`` where both are short; Sphinx takes that for one entry.
    """
    lines: list[str] = []
    section, indent, source = "", 0, False
    for line in docstring:
        depth = len(line) - len(line.lstrip())
        if found := _SECTION.match(line):
            section, indent, source = found[2], depth, False
        elif line.lstrip().startswith("Source: "):
            section, indent, source = "", depth, True
            lines.append("")
        elif source and depth > indent:
            line = " " * indent + line.lstrip()
        elif line.strip() and depth <= indent:
            section, source = "", False
        if section and (found := _SECOND.match(line)) and depth == indent + 4:
            lines += one_a_line([" " * indent + f"{section}:", *(found[1] + part for part in found.group(2, 3))])[1:]
        elif section == "Attributes" and (found := _SEVERAL.match(line)) and depth == indent + 4:
            lines += [f"{found[1]}{name}: {found[3]}" for name in found[2].split(", ")]
        else:
            lines.append(line)
    return lines


# -- the lectures --------------------------------------------------------------------------------------------------
def lectures() -> dict[str, str]:
    """A page for each lecture that the table in ``examples/lectures/README.md`` lists, in Markdown."""
    table = (LECTURES / "README.md").read_text(encoding="utf-8")
    pages = {}
    for number, title, stem in re.findall(r"^\| (\d+) (.*?) \| \[\w+\]\((\w+)\.py\) \|$", table, re.MULTILINE):
        script = ast.parse((LECTURES / f"{stem}.py").read_text(encoding="utf-8"))
        claims, first = ast.get_docstring(script), script.body[1].lineno
        text = [f"# {number}. {title}", "", claims, ""]
        if (PICTURES / f"{stem}.png").is_file():
            text += [f"![What the script draws]({stem}.png)", ""]
        else:
            text += ["The picture is missing: `make lectures` draws it, and had not run when this page was made.", ""]
        text += [
            f"`python examples/lectures/{stem}.py` prints the numbers and draws the picture; the claims are tested in "
            f"`tests/lectures/test_{stem}.py`.",
            "",
            f"```{{literalinclude}} ../../../examples/lectures/{stem}.py",
            f":lines: {first}-",
            "```",
            "",
        ]
        pages[f"lectures/{int(number):02}-{stem}.md"] = "\n".join(text)
    return pages


# -- writing -------------------------------------------------------------------------------------------------------
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
