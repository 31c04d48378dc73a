"""Floor 5: whole networks."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import models'")

from . import sampling
from .beam_search import Hypothesis, beam_search
from .convnet import convnet
from .densenet import DenseNet, densenet121, small_densenet
from .generation import generate, stream
from .gpt import GPT, gpt2, gpt2_large, gpt2_medium, gpt2_xl, llama
from .mlp import mlp
from .resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    small_resnet,
)

__all__ = [
    "GPT",
    "BasicBlock",
    "Bottleneck",
    "DenseNet",
    "Hypothesis",
    "ResNet",
    "beam_search",
    "convnet",
    "densenet121",
    "generate",
    "gpt2",
    "gpt2_large",
    "gpt2_medium",
    "gpt2_xl",
    "llama",
    "mlp",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "sampling",
    "small_densenet",
    "small_resnet",
    "stream",
]
