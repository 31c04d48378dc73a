"""Sphinx's settings. ``make docs`` builds the pages; the root of the repository is the source folder.

So links between README, docs and examples are the same here and where the repository is looked at.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import pages

import lamella

project, release = "lamella", lamella.__version__
author = copyright = "the authors of lamella"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**", "examples/*/README.md"]
exclude_patterns = ["docs/_build", ".venv", "build", "dist"]
html_theme, html_title = "furo", f"lamella {release}"
html_copy_source = False
html_static_path, html_css_files = ["static"], ["wide.css"]
nitpicky = True
strip_signature_backslash = True  # or napoleon loses the last underscore of an attribute such as module_

autosummary_generate = False  # docs/pages.py makes the pages
autodoc_inherit_docstrings = False  # Module.forward says nothing of a subclass's
autodoc_typehints = "none"  # the docstrings say what goes in
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False
nitpick_ignore = [("py:class", "collections.abc.Callable"), ("py:class", "lamella.layers.summary.Row")]
myst_heading_anchors = 3


def setup(app: Any) -> None:
    pages.write()
    app.connect("autodoc-process-docstring", one_a_line, priority=400)  # before napoleon's 500
    app.connect("autodoc-skip-member", is_foreign)
    app.connect("missing-reference", in_root)
    app.connect("build-finished", write_entrance)


def is_foreign(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Methods that another library wrote, such as scikit-learn's ``set_fit_request``, are explained there."""
    home = getattr(thing, "__module__", None) if inspect.isroutine(thing) else None
    return True if home and home.split(".")[0] != "lamella" else None


def in_root(app: Any, env: Any, node: Any, words: Any) -> Any:
    """A name that a room shares with ``lamella`` is explained there."""
    if node.get("refdomain") != "py":
        return None
    name = f"lamella.{node['reftarget'].rpartition('.')[2]}"
    domain = env.domains.python_domain
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], name, node, words)


def one_a_line(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = pages.one_a_line(lines)


def write_entrance(app: Any, exception: Exception | None) -> None:
    """``index.html`` at the top, where servers look for it."""
    if exception is None and app.builder.format == "html":
        page = '<!doctype html><meta http-equiv="refresh" content="0; url=docs/index.html">\n'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")
