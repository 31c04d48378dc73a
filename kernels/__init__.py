"""Floor 2: hot operations on plain arrays of any backend; each a ``.cu`` and a ``.py`` file of the same stem."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import kernels'")

from ._launch import explain
from .activation import Activation, Dropout, activation_backward, activation_forward
from .attention import attention, attention_backward, attention_weights, attention_weights_backward
from .batch_norm import batch_norm, batch_norm_backward, batch_norm_backward_definition, batch_norm_definition
from .conv import conv, conv_backward_bias, conv_backward_data, conv_backward_weight
from .cross_entropy import cross_entropy, cross_entropy_backward, cross_entropy_definition, label_total, scale_gradient
from .dropout_add_norm import (
    dropout_add_layer_norm,
    dropout_add_layer_norm_backward,
    dropout_add_rms_norm,
    dropout_add_rms_norm_backward,
)
from .embedding import embedding, embedding_backward
from .glu import glu, glu_backward
from .gradient_norm import clip_record, gradient_norm, scale_by
from .group_norm import group_norm, group_norm_backward, group_norm_backward_definition, group_norm_definition
from .im2col import col2im, im2col
from .layer_norm import layer_norm, layer_norm_backward, layer_norm_backward_definition, layer_norm_definition
from .linear_cross_entropy import linear_cross_entropy
from .masked_softmax import masked_softmax, masked_softmax_backward
from .max_pool import max_pool, max_pool_backward, max_pool_indices
from .optimizer_step import adam_step, sgd_step, step_pieces
from .random_bits import random_bits_kernel
from .reduce import reduce, reduce_definition, sum_rows
from .resample import resample, resample_backward
from .rms_norm import rms_norm, rms_norm_backward, rms_norm_backward_definition, rms_norm_definition
from .rotary import rotary, rotary_definition, rotary_table
from .softmax import (
    log_softmax,
    log_softmax_backward,
    log_softmax_backward_definition,
    log_softmax_definition,
    softmax,
    softmax_backward,
    softmax_backward_definition,
    softmax_definition,
)

__all__ = [
    "Activation",
    "Dropout",
    "activation_backward",
    "activation_forward",
    "adam_step",
    "attention",
    "attention_backward",
    "attention_weights",
    "attention_weights_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_backward_definition",
    "batch_norm_definition",
    "clip_record",
    "col2im",
    "conv",
    "conv_backward_bias",
    "conv_backward_data",
    "conv_backward_weight",
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_definition",
    "dropout_add_layer_norm",
    "dropout_add_layer_norm_backward",
    "dropout_add_rms_norm",
    "dropout_add_rms_norm_backward",
    "embedding",
    "embedding_backward",
    "explain",
    "glu",
    "glu_backward",
    "gradient_norm",
    "group_norm",
    "group_norm_backward",
    "group_norm_backward_definition",
    "group_norm_definition",
    "im2col",
    "label_total",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_backward_definition",
    "layer_norm_definition",
    "linear_cross_entropy",
    "log_softmax",
    "log_softmax_backward",
    "log_softmax_backward_definition",
    "log_softmax_definition",
    "masked_softmax",
    "masked_softmax_backward",
    "max_pool",
    "max_pool_backward",
    "max_pool_indices",
    "random_bits_kernel",
    "reduce",
    "reduce_definition",
    "resample",
    "resample_backward",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_backward_definition",
    "rms_norm_definition",
    "rotary",
    "rotary_definition",
    "rotary_table",
    "scale_by",
    "scale_gradient",
    "sgd_step",
    "softmax",
    "softmax_backward",
    "softmax_backward_definition",
    "softmax_definition",
    "step_pieces",
    "sum_rows",
]
