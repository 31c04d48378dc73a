if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import training'")

from .adam import Adam, AdamW
from .optimizer import Optimizer
from .sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
