"""How far training has come, for a person: tqdm's bar where there is one to see, else a line for each epoch."""

from __future__ import annotations

import os
import sys
import time
from importlib.util import find_spec
from typing import Any

_PAUSE = 0.5  # seconds between two lines, so that a hundred short epochs do not fill the screen


class Progress:
    """Counts steps and says what came of each epoch, on standard error; of very short epochs not of every one.

    Args:
        epochs: how many there will be.
        steps: steps in each; None if not known.
        shown: False says nothing at all.
        done: steps that a resumed run has behind it.
    """

    def __init__(self, epochs: int, steps: int | None, shown: bool = True, done: int = 0) -> None:
        self._epochs, self._shown, self._said = epochs, shown, -_PAUSE
        self._bar: Any = None
        if shown and _sees_bars() and find_spec("tqdm") is not None:
            from tqdm.auto import tqdm

            total = None if steps is None else epochs * steps
            self._bar = tqdm(total=total, initial=done, unit="step", leave=True, dynamic_ncols=True)

    def step(self, count: int) -> None:
        """``count`` more steps are done."""
        if self._bar is not None:
            self._bar.update(count)

    def epoch(self, number: int, figures: dict[str, float], seconds: float) -> None:
        """An epoch is done; ``number`` counts from 1."""
        text = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.set_description_str(f"epoch {number}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(text)
        elif self._shown and (number == self._epochs or time.monotonic() - self._said >= _PAUSE):
            self._said = time.monotonic()
            width = len(str(self._epochs))
            print(f"epoch {number:>{width}}/{self._epochs}  {text}  {seconds:.2f} s", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _sees_bars() -> bool:
    """Whether a bar that is drawn again and again can be seen: in a terminal or a notebook, not in a log file."""
    return (sys.stderr.isatty() and os.environ.get("TERM") != "dumb") or "ipykernel" in sys.modules
