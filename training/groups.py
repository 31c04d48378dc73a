"""Parameter groups: some parameters of an optimizer with hyper-parameters of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from ..autograd import Parameter

Settings = dict[str, Any]


class ParameterGroup(MutableMapping[str, Any]):
    """Hyper-parameters of some parameters, by name: ``optimizer.groups[1]["lr"] = 1e-4``; checked when they are set.

    Args:
        parameters: those that belong to it.
        settings: the hyper-parameters; the optimizer reads them from this very dict.
        check: gives the settings as plain numbers, or raises.
        share: this group's learning rate divided by the optimizer's.

    Attributes:
        parameters: those that belong to it, each once.
    """

    def __init__(
        self, parameters: tuple[Parameter, ...], settings: Settings, check: Callable[[Settings], Settings], share: float
    ) -> None:
        self.parameters, self._settings, self._check, self._share = parameters, settings, check, share

    def __getitem__(self, name: str) -> Any:
        return self._settings[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self._settings:
            raise KeyError(f"a parameter group has {', '.join(self._settings)}, got {name!r}")
        self._settings.update(self._check({**self._settings, name: value}))

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"hyper-parameters cannot be deleted, got {name!r}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def __repr__(self) -> str:
        return f"ParameterGroup({len(self.parameters)} parameters, {self._settings})"

    def follow(self, before: float, lr: float) -> None:
        """Take over the optimizer's new rate; one that was set here by hand since then first changes the share."""
        if before and self._settings["lr"] != before * self._share:
            self._share = self._settings["lr"] / before
        self._settings["lr"] = lr * self._share

    def settings_to_store(self) -> Settings:
        """All hyper-parameters, the share of the rate, and how many parameters there are."""
        return {**self._settings, "share": self._share, "size": len(self.parameters)}

    def checked(self, stored: Settings) -> Settings:
        """What :meth:`settings_to_store` gave, checked; ``share`` among it."""
        return {**self._check({name: stored[name] for name in self._settings}), "share": float(stored["share"])}

    def restore(self, stored: Settings) -> None:
        """Take over what :meth:`checked` gave."""
        self._settings.update({name: stored[name] for name in self._settings})
        self._share = stored["share"]


def keep_states(kind: Any, states: tuple[str, ...], settings: Settings) -> Settings:
    """Checked settings; raises where the optimizer would need other state arrays than ``states``, those that it has."""
    checked: Settings = kind._checked(settings)
    if (needed := kind._states(checked)) != states:
        raise ValueError(
            f"{kind.__name__}: what is kept between steps ({', '.join(states) or 'nothing'}) was decided when it was "
            f"made, and these hyper-parameters need {', '.join(needed) or 'nothing'}; make a new optimizer"
        )
    return checked


def given_groups(
    kind: str, parameters: Iterable[Parameter] | Iterable[Mapping[str, Any]], names: Iterable[str]
) -> list[tuple[tuple[Parameter, ...], Settings]]:
    """The parameters of each group, each once, and the hyper-parameters that were given with them.

    Args:
        kind: the optimizer's name, for messages.
        parameters: Parameters, which are one group; or dicts with ``"params"`` and hyper-parameters.
        names: the hyper-parameters that the optimizer has.
    """
    if isinstance(parameters, Parameter):
        raise TypeError(f"{kind}: parameters must be an iterable of Parameters, got one Parameter: write [it]")
    if isinstance(parameters, Mapping):
        raise TypeError(f"{kind}: parameters must be an iterable, got one dict: write [it]")
    if not hasattr(parameters, "__iter__") or isinstance(parameters, str) or hasattr(parameters, "named_parameters"):
        hint = "; pass model.parameters()" if hasattr(parameters, "named_parameters") else ""
        raise TypeError(f"{kind}: parameters must be an iterable of Parameters, got {type(parameters).__name__}{hint}")
    items: list[Any] = list(parameters)
    if not any(isinstance(item, Mapping) for item in items):
        return [(_distinct(kind, "parameters", items), {})]
    groups: list[tuple[tuple[Parameter, ...], Settings]] = []
    owner: dict[int, int] = {}
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise TypeError(f"{kind}: parameters must be all Parameters or all dicts, got {type(item).__name__} at {i}")
        own = dict(item)
        if "params" not in own:
            raise ValueError(f"{kind}: group {i} must have 'params', got {', '.join(map(repr, own)) or 'nothing'}")
        members = own.pop("params")
        members = [members] if isinstance(members, Parameter) else members
        if not hasattr(members, "__iter__") or isinstance(members, str) or hasattr(members, "named_parameters"):
            hint = "; pass model.parameters()" if hasattr(members, "named_parameters") else ""
            raise TypeError(
                f"{kind}: 'params' of group {i} must be an iterable of Parameters, got {type(members).__name__}{hint}"
            )
        if unknown := [name for name in own if name not in names]:
            raise ValueError(f"{kind}: group {i} may have 'params', {', '.join(names)}, got {unknown[0]!r}")
        found = _distinct(kind, f"groups[{i}]", members)
        for parameter in found:
            if (other := owner.setdefault(id(parameter), i)) != i:
                raise ValueError(f"{kind}: a parameter must be in one group, got one in groups {other} and {i}")
        groups.append((found, own))
    return groups


def _distinct(kind: str, name: str, parameters: Iterable[Any]) -> tuple[Parameter, ...]:
    found: dict[int, Parameter] = {}
    for i, parameter in enumerate(parameters):
        if not isinstance(parameter, Parameter):
            raise TypeError(f"{kind}: {name}[{i}] must be a Parameter, got {type(parameter).__name__}")
        found[id(parameter)] = parameter
    if not found:
        raise ValueError(f"{kind}: {name} must hold at least one Parameter, got none")
    return tuple(found.values())
