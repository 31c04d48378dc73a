"""The pages that ``docs/pages.py`` makes: every public name, every lecture, docstrings as Sphinx wants them.

Whether Sphinx reads them without a warning is what ``make docs`` says.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lamella

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs/pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_explained_once(pages: ModuleType) -> None:
    text = "\n".join(pages.reference().values())
    explained = re.findall(r"^\.\. (?:autoclass|autofunction|py:data):: (\S+)$", text, re.MULTILINE)
    modules = set(re.findall(r"^\.\. automodule:: (\S+)$", text, re.MULTILINE))
    assert len(explained) == len(set(explained))
    for room_name in pages.ROOMS:
        room = import_module(room_name)
        for name in getattr(room, "__all__", ()):
            thing = getattr(room, name)
            if inspect.ismodule(thing):
                assert room is lamella or thing.__name__ in modules
            elif name != "__version__":
                elsewhere = getattr(lamella, name, None) is thing
                assert (f"lamella.{name}" if elsewhere else f"{room_name}.{name}") in explained
    for file in (ROOT / "interop").glob("[a-z]*"):  # files and folders
        assert f"lamella.interop.{file.stem}" in modules


def test_every_page_of_the_reference_is_in_a_table_of_contents(pages: ModuleType) -> None:
    found = pages.reference()
    entries = re.findall(r"^   (\S+)$", "\n".join(found.values()), re.MULTILINE)
    assert set(found) - {"reference/index.rst"} <= {f"reference/{entry}.rst" for entry in entries}


def test_every_document_stands_in_the_index() -> None:
    index = (ROOT / "docs/index.rst").read_text(encoding="utf-8")
    entries = re.findall(r"^   (?:.* <)?([\w/*-]+)>?$", index, re.MULTILINE)
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= set(entries)
    assert {"/README", "/CONTRIBUTING", "/CHANGELOG", "/examples/*/README", "generated/lectures/*"} <= set(entries)


def test_every_lecture_has_a_page_with_its_claims_and_its_code(pages: ModuleType) -> None:
    found = pages.lectures()
    scripts = {path.stem for path in (ROOT / "examples/lectures").glob("*.py")}
    assert {re.sub(r"^lectures/\d\d-|\.md$", "", path) for path in found} == scripts
    text = found["lectures/14-attention.md"]
    assert text.startswith("# 14. Attention\n")
    assert "softmax(Q Kᵀ / √d) V" in text
    code = re.search(r"literalinclude\} (\S+)\n:lines: (\d+)-", text)
    assert code is not None
    script = (ROOT / "docs/generated/lectures" / code[1]).resolve().read_text(encoding="utf-8").splitlines()
    assert script[int(code[2]) - 1] == "import sys"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["Args:", "    a: one. b, c: two.", "    d: three."],
         ["Args:", "    a: one.", "    b, c: two.", "    d: three."]),
        (["Args:", "    a: one of these:", "        x: this. y: that."],
         ["Args:", "    a: one of these:", "        x: this. y: that."]),
        (["Raises:", "    TypeError: one. ValueError: two, such as 3: no."],
         ["Raises:", "    TypeError: one.", "    ValueError: two, such as 3: no."]),
        (["Attributes:", "    a, b: both."], ["Attributes:", "    a: both.", "    b: both."]),
        (["Args:", "    a: one. See: there.", "Text. b: no argument."],
         ["Args:", "    a: one. See: there.", "Text. b: no argument."]),
        (["Args:", "    a: one.", "Source: A 2000,", "    part 2.", "", "After."],
         ["Args:", "    a: one.", "", "Source: A 2000,", "part 2.", "", "After."]),
    ],
)  # fmt: skip
def test_docstrings_get_one_entry_a_line(pages: ModuleType, written: list[str], read: list[str]) -> None:
    assert pages.one_a_line(written) == read
    indented: Any = [f"    {line}" if line else line for line in written]
    assert pages.one_a_line(indented) == [f"    {line}" if line else line for line in read]
