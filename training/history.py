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
        for i, epoch in enumerate(self.epochs):
            if name not in epoch:
                raise KeyError(f"History: epoch {i + 1} has the figures {', '.join(epoch)}, got {name!r}")
        return [epoch[name] for epoch in self.epochs]

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def last(self) -> dict[str, float]:
        """The newest epoch's figures."""
        if not self.epochs:
            raise IndexError("History: there must be at least one epoch, got none")
        return self.epochs[-1]
