"""Floor 4: differentiable functions of neural networks and their modules, one concept a file."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import layers'")

from ..autograd import Parameter
from .celu import CELU, celu
from .containers import Sequential
from .cross_entropy import CrossEntropyLoss, cross_entropy
from .dropout import Dropout, dropout
from .elu import ELU, elu
from .gelu import GELU, gelu
from .glu import GLU, glu
from .hardshrink import Hardshrink, hardshrink
from .hardsigmoid import Hardsigmoid, hardsigmoid
from .hardswish import Hardswish, hardswish
from .hardtanh import Hardtanh, hardtanh
from .leaky_relu import LeakyReLU, leaky_relu
from .linear import Linear, linear
from .log_softmax import LogSoftmax, log_softmax
from .logsigmoid import LogSigmoid, logsigmoid
from .mish import Mish, mish
from .module import Buffer, Module
from .mse_loss import MSELoss, mse_loss
from .prelu import PReLU, prelu
from .relu import ReLU, relu
from .relu6 import ReLU6, relu6
from .selu import SELU, selu
from .sigmoid import Sigmoid, sigmoid
from .sign import Sign, sign
from .silu import SiLU, silu
from .softmax import Softmax, softmax
from .softplus import Softplus, softplus
from .softshrink import Softshrink, softshrink
from .softsign import Softsign, softsign
from .step import Step, step
from .swish import Swish, swish
from .tanh import Tanh, tanh
from .tanhshrink import Tanhshrink, tanhshrink
from .threshold import Threshold, threshold

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Buffer",
    "CrossEntropyLoss",
    "Dropout",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "Linear",
    "LogSigmoid",
    "LogSoftmax",
    "MSELoss",
    "Mish",
    "Module",
    "PReLU",
    "Parameter",
    "ReLU",
    "ReLU6",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Sign",
    "Softmax",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Step",
    "Swish",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "celu",
    "cross_entropy",
    "dropout",
    "elu",
    "gelu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "mish",
    "mse_loss",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "softmax",
    "softplus",
    "softshrink",
    "softsign",
    "step",
    "swish",
    "tanh",
    "tanhshrink",
    "threshold",
]
