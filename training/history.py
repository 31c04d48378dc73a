"""What each epoch of training brought."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """What each epoch brought: ``history["loss"]`` is a list with one number for each epoch.

    Attributes:
        epochs: for each epoch its figures by name: ``loss`` (mean over the training examples as the epoch went),
            ``validation_loss`` and ``validation_<metric>`` where there is validation data, and ``seconds``.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)

    def __getitem__(self, name: str) -> list[float]:
        return [epoch[name] for epoch in self.epochs]

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def last(self) -> dict[str, float]:
        """The newest epoch's figures."""
        return self.epochs[-1]
