"""The documents tell the truth: their Python runs, their commands exist, their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lamella.testing import assert_close

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS += sorted((ROOT / "examples").rglob("*.md"))
LANGUAGES = {"python", "console", "text", "cuda", "toml", "make"}  # python runs, console is looked up


class Block(NamedTuple):
    language: str
    line: int  # of its first line of text
    text: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text."""
    found: list[Block] = []
    opening: tuple[str, int] | None = None
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.startswith("```"):
            continue
        if opening is None:
            opening = line[3:].strip(), number + 1
        else:
            language, first = opening
            found.append(Block(language, first, "\n".join(lines[first - 1 : number - 1])))
            opening = None
    if opening is not None:
        raise ValueError(f"the block that begins at line {opening[1]} does not end")
    return found


def run_python(name: str, text: str) -> dict[str, Any]:
    """Run a document's Python blocks in order, in one namespace; an error points to the document's own line.

    A CUDA block that begins with ``// name.cu`` is written to that file in the current folder first.
    """
    namespace: dict[str, Any] = {"__name__": name}
    for block in blocks(text):
        if block.language == "cuda" and (file := re.match(r"// (\w+\.cu)\b", block.text)):
            Path(file[1]).write_text(block.text, encoding="utf-8")
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, name, "exec"), namespace)
    return namespace


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def is_subcommand(name: str) -> bool:
    """Whether ``lamella <name> --help`` has something to say."""
    code = "import sys; from lamella.cli import main; sys.argv[0] = 'lamella'; sys.exit(main())"
    answer = subprocess.run([sys.executable, "-c", code, name, "--help"], capture_output=True, check=False)
    return answer.returncode == 0


def wrong_commands(text: str) -> list[str]:
    """The ``$ …`` lines of console blocks that name a make target, subcommand or extra that does not exist."""
    found = []
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for block in blocks(text):
        if block.language != "console":
            continue
        for number, line in enumerate(block.text.splitlines(), start=block.line):
            if not line.startswith("$ "):
                continue  # what the command prints
            program, *words = line[2:].split()
            first = next((word for word in words if "=" not in word and not word.startswith("-")), "")
            if program == "make" and first not in make_targets():
                found.append(f"line {number}: no make target {first!r}")
            elif program == "lamella" and not is_subcommand(first):
                found.append(f"line {number}: no subcommand {first!r}")
            elif program.endswith("pip"):
                groups = re.findall(r"(?:\.|lamella)\[([\w,]+)\]", line)
                named = {extra for group in groups for extra in group.split(",")}
                found += [f"line {number}: no extra {extra!r}" for extra in sorted(named - set(extras))]
    return found


def broken_links(folder: Path, text: str) -> list[str]:
    """Links to files that do not stand there and to headings that the text does not have."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        if "://" in target:
            continue
        if (path and not (folder / path).exists()) or (not path and heading not in headings):
            found.append(target)
    return found


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def document(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_python_blocks_run(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # they save files
    namespace = run_python(str(document), document.read_text(encoding="utf-8"))
    if document == ROOT / "README.md":
        assert namespace["accuracy"] > 0.95, "the README says so"
        assert (tmp_path / "digits.safetensors").is_file()
    if document.name == "write-your-own-kernel.md":
        check_kernel_page(namespace, document.read_text(encoding="utf-8"))


def under(title: str, text: str) -> list[Block]:
    """The blocks below the heading ``## The <title> …``, to the next one."""
    return blocks(text.partition(f"\n## The {title}")[2].partition("\n## ")[0])


def check_kernel_page(namespace: dict[str, Any], text: str) -> None:
    """What the page says of its own results: the layer trains alike on both devices, and the race is reported so."""
    losses = namespace["losses"]
    for device in ("cpu", "simulator"):
        assert losses[device][-1] <= losses[device][0] / 10
    assert_close(losses["simulator"], losses["cpu"], rtol=1e-3, atol=1e-5)
    printed, report = (
        re.sub(r"(byte|thread) (\(?)\d+", r"\1 \2n", " ".join(words.split()))  # who meets first is the runtime's choice
        for words in (next(block.text for block in blocks(text) if block.language == "text"), namespace["report"])
    )
    assert printed == report
    code = "\n".join(
        block.text for title in ("kernel", "definition", "test", "benchmark") for block in under(title, text)
    )
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("//")]
    assert len(lines) < 60, f"{len(lines)} lines of code"


def test_commands_exist(document: Path) -> None:
    assert wrong_commands(document.read_text(encoding="utf-8")) == []


def test_every_block_says_its_language(document: Path) -> None:
    assert {block.language for block in blocks(document.read_text(encoding="utf-8"))} <= LANGUAGES


def test_links_lead_somewhere(document: Path) -> None:
    assert broken_links(document.parent, document.read_text(encoding="utf-8")) == []


def test_make_help_names_every_target_that_a_person_calls() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r'^\t@echo "make ([\w-]+)', makefile, re.MULTILINE))
    assert named == make_targets() - {"help", "interpreter", "compiler"}


# -- each check finds a planted mistake ----------------------------------------------------------------------------
def test_planted_python_error_points_to_its_line() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run_python("x.md", "# Title\n\n```python\none = 1\n```\n\n```python\nzero = 0\none / zero\n```\n")
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == ("x.md", 9)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("make nonsense", "line 2: no make target 'nonsense'"),
        ("make OUT=x nonsense", "line 2: no make target 'nonsense'"),
        ("lamella nonsense", "line 2: no subcommand 'nonsense'"),
        ("pip install '.[dev,nonsense]'", "line 2: no extra 'nonsense'"),
    ],
)
def test_planted_command_is_found(command: str, complaint: str) -> None:
    assert wrong_commands(f"```console\n$ {command}\n```\n") == [complaint]


def test_planted_links_are_found(tmp_path: Path) -> None:
    assert broken_links(tmp_path, "# One\n[a](gone.md) [b](#one) [c](#two) [d](https://x.org/y)") == ["gone.md", "#two"]


def test_planted_open_block_is_found() -> None:
    with pytest.raises(ValueError, match="begins at line 2 does not end"):
        blocks("```python\nx = 1\n")
