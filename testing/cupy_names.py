"""What CuPy offers: names and parameters, read from ``cupy_names.txt``; run as a program, this module writes that file.

The list is made where CuPy itself can be imported (no GPU is needed)::

    pip install cupy-cuda12x==14.2.0
    python -m lamella.testing.cupy_names cupy > cupy_names.txt

One line a name: ``sum(a, axis, dtype, out, keepdims)``, with ``*`` before parameters that are keywords only;
``ndarray.`` marks methods and attributes of arrays; a name without brackets is no function or has unknown parameters.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SUBMODULES = ("fft", "linalg", "random")


@dataclass(frozen=True)
class Signature:
    """The parameters of one CuPy function.

    Attributes:
        positional: names of the parameters that may be given by position.
        keywords: names that may be given by keyword.
        any_positional: whether it takes ``*args``.
        any_keyword: whether it takes ``**kwargs``.
    """

    positional: tuple[str, ...]
    keywords: frozenset[str]
    any_positional: bool
    any_keyword: bool

    def check(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise TypeError where CuPy's ``name`` does not take what NumPy's might."""
        if len(args) > len(self.positional) and not self.any_positional:
            taken = ", ".join(self.positional) or "none"
            raise TypeError(
                f"cupy.{name} takes at most {len(self.positional)} positional arguments ({taken}), got {len(args)}"
            )
        for keyword in kwargs:
            if keyword not in self.keywords and not self.any_keyword:
                known = ", ".join(sorted(self.keywords)) or "none"
                raise TypeError(f"cupy.{name} has no keyword {keyword!r} (CuPy 14.2); it has: {known}")


@cache
def cupy_names() -> dict[str, Signature | None]:
    """Every public name of CuPy 14.2 with its signature; None for what is no function or has unknown parameters."""
    lines = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    return dict(_parse(line) for line in lines if line and not line.startswith("#"))


def _parse(line: str) -> tuple[str, Signature | None]:
    name, bracket, rest = line.partition("(")
    if not bracket:
        return name, None
    positional: list[str] = []
    keywords: list[str] = []
    any_positional = any_keyword = only_keywords = False
    for parameter in filter(None, rest.removesuffix(")").split(", ")):
        if parameter.startswith("**"):
            any_keyword = True
        elif parameter.startswith("*"):
            any_positional = any_positional or len(parameter) > 1
            only_keywords = True
        elif parameter == "/":
            keywords.clear()
        else:
            keywords.append(parameter)
            if not only_keywords:
                positional.append(parameter)
    return name, Signature(tuple(positional), frozenset(keywords), any_positional, any_keyword)


def _list_names(cupy: Any) -> list[str]:
    lines = [f"# The public names of CuPy {cupy.__version__}; made by lamella.testing.cupy_names"]
    for prefix, owner in [
        ("", cupy),
        *((f"{name}.", getattr(cupy, name)) for name in SUBMODULES),
        ("ndarray.", cupy.ndarray),
    ]:
        for name in sorted(dir(owner)):
            if not name.startswith("_"):
                lines.append(prefix + name + _parameters(getattr(owner, name)))
    return lines


def _parameters(value: Any) -> str:
    if type(value).__name__ == "ufunc":
        inputs = [f"x{i + 1}" for i in range(value.nin)] if value.nin > 1 else ["x"]
        outputs = [f"out{i + 1}" for i in range(value.nout)] if value.nout > 1 else ["out"]
        return f"({', '.join(inputs)}, /, {', '.join(outputs)}, *, {'out, ' * (value.nout > 1)}dtype, casting)"
    if not callable(value) or isinstance(value, type):
        return ""
    try:
        return _render(list(inspect.signature(value).parameters.values()))
    except ValueError:  # compiled: the first line of the documentation reads "name(self, axis=None) -> result"
        inside = (value.__doc__ or "").partition("\n")[0].partition("(")[2].rpartition(")")[0]
        try:
            declared = ast.parse(f"def declared({inside}): pass").body[0]
        except SyntaxError:
            return ""
        return _render(_parameters_of(declared)) if inside and isinstance(declared, ast.FunctionDef) else ""


def _parameters_of(function: ast.FunctionDef) -> list[inspect.Parameter]:
    kinds, given = inspect.Parameter, function.args
    groups = [
        (kinds.POSITIONAL_ONLY, given.posonlyargs),
        (kinds.POSITIONAL_OR_KEYWORD, given.args),
        (kinds.VAR_POSITIONAL, [given.vararg] if given.vararg else []),
        (kinds.KEYWORD_ONLY, given.kwonlyargs),
        (kinds.VAR_KEYWORD, [given.kwarg] if given.kwarg else []),
    ]
    return [inspect.Parameter(argument.arg, kind) for kind, arguments in groups for argument in arguments]


def _render(parameters: list[inspect.Parameter]) -> str:
    words: list[str] = []
    starred = False
    for i, parameter in enumerate(parameters):
        if i == 0 and parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            words.append("*")
            starred = True
        if parameter.kind is parameter.VAR_POSITIONAL:
            starred = True
        stars = (parameter.kind is parameter.VAR_POSITIONAL) + 2 * (parameter.kind is parameter.VAR_KEYWORD)
        words.append("*" * stars + parameter.name)
        last_positional_only = i + 1 == len(parameters) or parameters[i + 1].kind is not parameter.POSITIONAL_ONLY
        if parameter.kind is parameter.POSITIONAL_ONLY and last_positional_only:
            words.append("/")
    return f"({', '.join(words)})"


if __name__ == "__main__":
    print("\n".join(_list_names(importlib.import_module(sys.argv[1]))))
