"""Floor 2: hot operations on plain arrays of any backend; each a ``.cu`` and a ``.py`` file of the same stem."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import kernels'")

from ._launch import explain
from .softmax import softmax, softmax_backward, softmax_backward_definition, softmax_definition

__all__ = ["explain", "softmax", "softmax_backward", "softmax_backward_definition", "softmax_definition"]
