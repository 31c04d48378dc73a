"""Floor 2: hot operations on plain arrays of any backend; each a ``.cu`` and a ``.py`` file of the same stem."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import kernels'")

from ._launch import explain
from .attention import attention, attention_backward
from .dropout_add_norm import (
    dropout_add_layer_norm,
    dropout_add_layer_norm_backward,
    dropout_add_rms_norm,
    dropout_add_rms_norm_backward,
)
from .embedding import embedding, embedding_backward
from .group_norm import group_norm, group_norm_backward, group_norm_backward_definition, group_norm_definition
from .layer_norm import layer_norm, layer_norm_backward, layer_norm_backward_definition, layer_norm_definition
from .rms_norm import rms_norm, rms_norm_backward, rms_norm_backward_definition, rms_norm_definition
from .softmax import softmax, softmax_backward, softmax_backward_definition, softmax_definition

__all__ = [
    "attention",
    "attention_backward",
    "dropout_add_layer_norm",
    "dropout_add_layer_norm_backward",
    "dropout_add_rms_norm",
    "dropout_add_rms_norm_backward",
    "embedding",
    "embedding_backward",
    "explain",
    "group_norm",
    "group_norm_backward",
    "group_norm_backward_definition",
    "group_norm_definition",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_backward_definition",
    "layer_norm_definition",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_backward_definition",
    "rms_norm_definition",
    "softmax",
    "softmax_backward",
    "softmax_backward_definition",
    "softmax_definition",
]
