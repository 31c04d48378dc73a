"""Floor 4: differentiable functions of neural networks and their modules, one concept a file."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import layers'")

from ..autograd import Parameter, tanh
from . import init, links
from .binary_cross_entropy import BCELoss, BCEWithLogitsLoss, binary_cross_entropy, binary_cross_entropy_with_logits
from .containers import Sequential
from .cosine_similarity import CosineEmbeddingLoss, CosineSimilarity, cosine_embedding_loss, cosine_similarity
from .cross_entropy import CrossEntropyLoss, cross_entropy
from .dropout import Dropout, dropout
from .gaussian_nll_loss import GaussianNLLLoss, gaussian_nll_loss
from .hinge_loss import (
    HingeEmbeddingLoss,
    HingeLoss,
    SoftMarginLoss,
    hinge_embedding_loss,
    hinge_loss,
    soft_margin_loss,
)
from .huber_loss import HuberLoss, SmoothL1Loss, huber_loss, smooth_l1_loss
from .kl_div import KLDivLoss, kl_div
from .l1_loss import L1Loss, l1_loss
from .linear import Linear, linear
from .margin_loss import MarginRankingLoss, MultiMarginLoss, margin_ranking_loss, multi_margin_loss
from .module import Buffer, Module
from .mse_loss import MSELoss, mse_loss
from .nll_loss import NLLLoss, nll_loss
from .poisson_nll_loss import PoissonNLLLoss, poisson_nll_loss
from .relu import ReLU, relu
from .sigmoid import Sigmoid, sigmoid
from .softmax import Softmax, softmax
from .tanh import Tanh
from .triplet_margin_loss import TripletMarginLoss, triplet_margin_loss

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "Buffer",
    "CosineEmbeddingLoss",
    "CosineSimilarity",
    "CrossEntropyLoss",
    "Dropout",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HingeLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "Linear",
    "MSELoss",
    "MarginRankingLoss",
    "Module",
    "MultiMarginLoss",
    "NLLLoss",
    "Parameter",
    "PoissonNLLLoss",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "Softmax",
    "Tanh",
    "TripletMarginLoss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "hinge_loss",
    "huber_loss",
    "init",
    "kl_div",
    "l1_loss",
    "linear",
    "links",
    "margin_ranking_loss",
    "mse_loss",
    "multi_margin_loss",
    "nll_loss",
    "poisson_nll_loss",
    "relu",
    "sigmoid",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "tanh",
    "triplet_margin_loss",
]
