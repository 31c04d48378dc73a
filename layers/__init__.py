"""Floor 4: differentiable functions of neural networks and their modules, one concept a file."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import layers'")

from ..autograd import Parameter, tanh
from .alpha_dropout import AlphaDropout, alpha_dropout
from .bilinear import Bilinear, bilinear
from .containers import ModuleDict, ModuleList, ParameterList, Sequential
from .cross_entropy import CrossEntropyLoss, cross_entropy
from .dropout import Dropout, dropout
from .embedding import Embedding, embedding
from .flatten import Flatten, Unflatten, flatten, unflatten
from .gaussian_noise import GaussianNoise
from .group_norm import GroupNorm, group_norm
from .identity import Identity
from .layer_norm import LayerNorm, layer_norm
from .linear import Linear, linear
from .module import Buffer, Module
from .mse_loss import MSELoss, mse_loss
from .relu import ReLU, relu
from .residual import DenseConnection, Residual
from .rms_norm import RMSNorm, rms_norm
from .sigmoid import Sigmoid, sigmoid
from .slice_dropout import Dropout1d, Dropout2d, Dropout3d, DropPath, slice_dropout
from .softmax import Softmax, softmax
from .summary import Summary
from .tanh import Tanh

__all__ = [
    "AlphaDropout",
    "Bilinear",
    "Buffer",
    "CrossEntropyLoss",
    "DenseConnection",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "Embedding",
    "Flatten",
    "GaussianNoise",
    "GroupNorm",
    "Identity",
    "LayerNorm",
    "Linear",
    "MSELoss",
    "Module",
    "ModuleDict",
    "ModuleList",
    "Parameter",
    "ParameterList",
    "RMSNorm",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Summary",
    "Tanh",
    "Unflatten",
    "alpha_dropout",
    "bilinear",
    "cross_entropy",
    "dropout",
    "embedding",
    "flatten",
    "group_norm",
    "layer_norm",
    "linear",
    "mse_loss",
    "relu",
    "rms_norm",
    "sigmoid",
    "slice_dropout",
    "softmax",
    "tanh",
    "unflatten",
]
