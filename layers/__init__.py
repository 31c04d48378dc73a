"""Floor 4: differentiable functions of neural networks and their modules, one concept a file."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import layers'")

from ..autograd import Parameter, tanh
from .containers import Sequential
from .cross_entropy import CrossEntropyLoss, cross_entropy
from .dropout import Dropout, dropout
from .linear import Linear, linear
from .module import Buffer, Module
from .mse_loss import MSELoss, mse_loss
from .relu import ReLU, relu
from .sigmoid import Sigmoid, sigmoid
from .softmax import Softmax, softmax
from .tanh import Tanh

__all__ = [
    "Buffer",
    "CrossEntropyLoss",
    "Dropout",
    "Linear",
    "MSELoss",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "cross_entropy",
    "dropout",
    "linear",
    "mse_loss",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]
