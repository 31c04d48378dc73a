"""Floor 5: whole networks."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import models'")

from .bert import Bert, BertLayer
from .convnet import convnet
from .densenet import DenseNet, densenet121, small_densenet
from .gpt import GPT, gpt2, gpt2_large, gpt2_medium, gpt2_xl, llama
from .mlp import mlp
from .rbm import RBM
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
from .transformer import EncoderDecoder, Memory

__all__ = [
    "GPT",
    "RBM",
    "BasicBlock",
    "Bert",
    "BertLayer",
    "Bottleneck",
    "DenseNet",
    "EncoderDecoder",
    "Memory",
    "ResNet",
    "convnet",
    "densenet121",
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
    "small_densenet",
    "small_resnet",
]
