"""Floor 5: whole networks."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import models'")

from .mlp import mlp

__all__ = ["mlp"]
