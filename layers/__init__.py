"""Floor 4: differentiable functions of neural networks and their modules, one concept a file."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import layers'")

from ..autograd import Parameter
from . import init, links
from .alpha_dropout import AlphaDropout, alpha_dropout
from .batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, batch_norm
from .bilinear import Bilinear, bilinear
from .binary_cross_entropy import BCELoss, BCEWithLogitsLoss, binary_cross_entropy, binary_cross_entropy_with_logits
from .celu import CELU, celu
from .containers import ModuleDict, ModuleList, ParameterList, Sequential
from .conv import Conv1d, Conv2d, Conv3d, conv1d, conv2d, conv3d
from .conv_transpose import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from .cosine_similarity import CosineEmbeddingLoss, CosineSimilarity, cosine_embedding_loss, cosine_similarity
from .cross_entropy import CrossEntropyLoss, cross_entropy
from .dropout import Dropout, dropout
from .dropout_add_norm import dropout_add_layer_norm, dropout_add_rms_norm
from .elu import ELU, elu
from .embedding import Embedding, embedding
from .flatten import Flatten, Unflatten, flatten, unflatten
from .fold import Fold, Unfold, fold, unfold
from .gaussian_nll_loss import GaussianNLLLoss, gaussian_nll_loss
from .gaussian_noise import GaussianNoise
from .gelu import GELU, gelu
from .glu import GLU, glu
from .group_norm import GroupNorm, group_norm
from .gru import GRU, GRUCell
from .hardshrink import Hardshrink, hardshrink
from .hardsigmoid import Hardsigmoid, hardsigmoid
from .hardswish import Hardswish, hardswish
from .hardtanh import Hardtanh, hardtanh
from .hinge_loss import (
    HingeEmbeddingLoss,
    HingeLoss,
    SoftMarginLoss,
    hinge_embedding_loss,
    hinge_loss,
    soft_margin_loss,
)
from .huber_loss import HuberLoss, SmoothL1Loss, huber_loss, smooth_l1_loss
from .identity import Identity
from .kl_div import KLDivLoss, kl_div
from .l1_loss import L1Loss, l1_loss
from .layer_norm import LayerNorm, layer_norm
from .leaky_relu import LeakyReLU, leaky_relu
from .linear import Linear, linear, linear_activation
from .linear_cross_entropy import linear_cross_entropy
from .log_softmax import LogSoftmax, log_softmax
from .logsigmoid import LogSigmoid, logsigmoid
from .lstm import LSTM, LSTMCell
from .margin_loss import MarginRankingLoss, MultiMarginLoss, margin_ranking_loss, multi_margin_loss
from .mish import Mish, mish
from .module import Buffer, Module
from .mse_loss import MSELoss, mse_loss
from .multihead_attention import MultiheadAttention
from .nll_loss import NLLLoss, nll_loss
from .poisson_nll_loss import PoissonNLLLoss, poisson_nll_loss
from .positions import LearnedPositions, SinusoidalPositions, sinusoidal_positions
from .prelu import PReLU, prelu
from .relu import ReLU, relu
from .relu6 import ReLU6, relu6
from .residual import DenseConnection, Residual
from .rms_norm import RMSNorm, rms_norm
from .rnn import RNN, RNNCell
from .scaled_dot_product_attention import scaled_dot_product_attention
from .selu import SELU, selu
from .sigmoid import Sigmoid, sigmoid
from .sign import Sign, sign
from .silu import SiLU, silu
from .slice_dropout import Dropout1d, Dropout2d, Dropout3d, DropPath
from .softmax import Softmax, softmax
from .softplus import Softplus, softplus
from .softshrink import Softshrink, softshrink
from .softsign import Softsign, softsign
from .step import Step, step
from .summary import Summary
from .swish import Swish, swish
from .tanh import Tanh, tanh
from .tanhshrink import Tanhshrink, tanhshrink
from .threshold import Threshold, threshold
from .transformer import Transformer
from .transformer_decoder import TransformerDecoder, TransformerDecoderLayer
from .transformer_encoder import TransformerEncoder, TransformerEncoderLayer
from .triplet_margin_loss import TripletMarginLoss, triplet_margin_loss

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "GRU",
    "LSTM",
    "RNN",
    "SELU",
    "AlphaDropout",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Bilinear",
    "Buffer",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CosineEmbeddingLoss",
    "CosineSimilarity",
    "CrossEntropyLoss",
    "DenseConnection",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "Embedding",
    "Flatten",
    "Fold",
    "GRUCell",
    "GaussianNLLLoss",
    "GaussianNoise",
    "GroupNorm",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "HingeEmbeddingLoss",
    "HingeLoss",
    "HuberLoss",
    "Identity",
    "KLDivLoss",
    "L1Loss",
    "LSTMCell",
    "LayerNorm",
    "LeakyReLU",
    "LearnedPositions",
    "Linear",
    "LogSigmoid",
    "LogSoftmax",
    "MSELoss",
    "MarginRankingLoss",
    "Mish",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiMarginLoss",
    "MultiheadAttention",
    "NLLLoss",
    "PReLU",
    "Parameter",
    "ParameterList",
    "PoissonNLLLoss",
    "RMSNorm",
    "RNNCell",
    "ReLU",
    "ReLU6",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Sign",
    "SinusoidalPositions",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "Softmax",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Step",
    "Summary",
    "Swish",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "TripletMarginLoss",
    "Unflatten",
    "Unfold",
    "alpha_dropout",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "dropout_add_layer_norm",
    "dropout_add_rms_norm",
    "elu",
    "embedding",
    "flatten",
    "fold",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "group_norm",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hinge_embedding_loss",
    "hinge_loss",
    "huber_loss",
    "init",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_activation",
    "linear_cross_entropy",
    "links",
    "log_softmax",
    "logsigmoid",
    "margin_ranking_loss",
    "mish",
    "mse_loss",
    "multi_margin_loss",
    "nll_loss",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "sinusoidal_positions",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softplus",
    "softshrink",
    "softsign",
    "step",
    "swish",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
    "unflatten",
    "unfold",
]
