"""Real numbers given to layers and to training: slopes, rates, factors, shares."""

from __future__ import annotations

from ..kernels.scalars import not_negative, real

__all__ = ["not_negative", "real"]
