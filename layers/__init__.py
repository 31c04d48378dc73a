"""Floor 4: differentiable functions of neural networks and their modules, one concept a file."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import layers'")

from ..autograd import Parameter
from . import init, links
from .alpha_dropout import AlphaDropout, alpha_dropout
from .avg_pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
)
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
from .instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d, instance_norm
from .kl_div import KLDivLoss, kl_div
from .kv_cache import KeyValues, KVCache, LayerCache
from .l1_loss import L1Loss, l1_loss
from .layer_norm import LayerNorm, layer_norm
from .leaky_relu import LeakyReLU, leaky_relu
from .linear import Linear, linear, linear_activation
from .linear_cross_entropy import linear_cross_entropy
from .log_softmax import LogSoftmax, log_softmax
from .logsigmoid import LogSigmoid, logsigmoid
from .lp_pool import LPPool1d, LPPool2d, LPPool3d, lp_pool1d, lp_pool2d, lp_pool3d
from .lstm import LSTM, LSTMCell
from .margin_loss import MarginRankingLoss, MultiMarginLoss, margin_ranking_loss, multi_margin_loss
from .masked_softmax import masked_softmax
from .max_pool import (
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from .max_unpool import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d, max_unpool1d, max_unpool2d, max_unpool3d
from .mish import Mish, mish
from .module import Buffer, Module
from .mse_loss import MSELoss, mse_loss
from .multihead_attention import MultiheadAttention
from .nll_loss import NLLLoss, nll_loss
from .padding import (
    CircularPad1d,
    CircularPad2d,
    CircularPad3d,
    ConstantPad1d,
    ConstantPad2d,
    ConstantPad3d,
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
    ZeroPad1d,
    ZeroPad2d,
    ZeroPad3d,
    pad,
)
from .pixel_shuffle import ChannelShuffle, PixelShuffle, PixelUnshuffle, channel_shuffle, pixel_shuffle, pixel_unshuffle
from .poisson_nll_loss import PoissonNLLLoss, poisson_nll_loss
from .positions import LearnedPositions, SinusoidalPositions, sinusoidal_positions
from .prelu import PReLU, prelu
from .relu import ReLU, relu
from .relu6 import ReLU6, relu6
from .residual import DenseConnection, Residual
from .rms_norm import RMSNorm, rms_norm
from .rnn import RNN, RNNCell
from .rotary_embedding import RotaryEmbedding, rotary_embedding
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
from .upsample import Upsample, UpsamplingBilinear2d, UpsamplingNearest2d, interpolate

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "GRU",
    "LSTM",
    "RNN",
    "SELU",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AlphaDropout",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Bilinear",
    "Buffer",
    "ChannelShuffle",
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
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
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "KLDivLoss",
    "KVCache",
    "KeyValues",
    "L1Loss",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "LSTMCell",
    "LayerCache",
    "LayerNorm",
    "LeakyReLU",
    "LearnedPositions",
    "Linear",
    "LogSigmoid",
    "LogSoftmax",
    "MSELoss",
    "MarginRankingLoss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
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
    "PixelShuffle",
    "PixelUnshuffle",
    "PoissonNLLLoss",
    "RMSNorm",
    "RNNCell",
    "ReLU",
    "ReLU6",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "Residual",
    "RotaryEmbedding",
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
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "alpha_dropout",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "channel_shuffle",
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
    "instance_norm",
    "interpolate",
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
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "margin_ranking_loss",
    "masked_softmax",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "mish",
    "mse_loss",
    "multi_margin_loss",
    "nll_loss",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "rotary_embedding",
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
