"""Floor 5: whole networks."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import models'")

from . import sampling
from .activation_map import class_activation_map
from .autoencoder import Autoencoder, TiedLinear, autoencoder, conv_autoencoder, kl_penalty, l1_penalty
from .beam_search import Hypothesis, beam_search
from .bert import Bert, BertLayer
from .convnet import convnet
from .densenet import DenseNet, densenet121, small_densenet
from .digits_convnet import digits_convnet
from .generation import generate, stream
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
    "Autoencoder",
    "BasicBlock",
    "Bert",
    "BertLayer",
    "Bottleneck",
    "DenseNet",
    "EncoderDecoder",
    "Hypothesis",
    "Memory",
    "ResNet",
    "TiedLinear",
    "autoencoder",
    "beam_search",
    "class_activation_map",
    "conv_autoencoder",
    "convnet",
    "densenet121",
    "digits_convnet",
    "generate",
    "gpt2",
    "gpt2_large",
    "gpt2_medium",
    "gpt2_xl",
    "kl_penalty",
    "l1_penalty",
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
