"""Link functions of generalised linear models: how the expected value depends on a linear predictor.

A model ``η = x w`` predicts the mean ``μ = inverse(η)`` of a distribution. With the distribution's canonical link the
negative log likelihood has one and the same gradient for all of them::

    identity   Gaussian (variance 1)   μ = η               (y - η)² / 2
    logit      Bernoulli               μ = 1 / (1 + e^-η)   log(1 + e^η) - y η
    log        Poisson                 μ = e^η              e^η - y η
    softmax    categorical             μ = e^η / Σ e^η      log Σ e^η - y · η

    d loss / d η = μ - y,    so for each example    d loss / d w = (μ - y) x

which is why a last layer without an activation and a loss "from logits" belong together.

Example:
    >>> eta = L.linear(x, weight)
    >>> L.links.log.loss(eta, counts).backward()      # Poisson regression
    >>> expected = L.links.log.inverse(eta)
Source: Nelder and Wedderburn 1972, "Generalized linear models".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..autograd import Tensor, op
from ..autograd import exp as _exp
from ..autograd import log as _log
from ..backend import Array, backend_of
from .binary_cross_entropy import binary_cross_entropy_with_logits
from .cross_entropy import cross_entropy
from .mse_loss import mse_loss
from .poisson_nll_loss import poisson_nll_loss
from .reduction import check_floating
from .sigmoid import sigmoid as _sigmoid
from .softmax import softmax as _softmax


@dataclass(frozen=True, slots=True)
class Link:
    """A link ``η = link(μ)``; all its functions are differentiable and take arrays or tensors.

    Args:
        name: of the link.
        distribution: whose canonical link it is.
        link: from the mean to the linear predictor.
        inverse: from the linear predictor to the mean.
        derivative: dμ/dη as a function of η, elementwise: the variance of the distribution at that mean.
        loss: ``loss(eta, y, reduction="mean")``, the negative log likelihood without what does not depend on η.
    """

    name: str
    distribution: str
    link: Callable[[Any], Tensor]
    inverse: Callable[[Any], Tensor]
    derivative: Callable[[Any], Tensor]
    loss: Callable[..., Tensor]

    def __repr__(self) -> str:
        return f"Link({self.name}, {self.distribution})"


@op
def _identity(x: Array) -> Any:
    check_floating("identity", "x", x)
    return x.copy(), lambda dy: (dy,)


@op
def _one(eta: Array) -> Any:
    return backend_of(eta).xp.ones_like(eta), lambda dy: (dy * 0,)


@op
def _logit(mu: Array) -> Any:
    """``log(μ / (1 - μ))``; ±infinity at 1 and 0."""
    check_floating("logit", "mu", mu)
    xp = backend_of(mu).xp
    return xp.log(mu) - xp.log1p(-mu), lambda dy: (dy / (mu * (1 - mu)),)


@op
def _logistic_slope(eta: Array) -> Any:
    """``μ (1 - μ) = e^-|η| / (1 + e^-|η|)²``; its derivative is ``μ (1 - μ) (1 - 2 μ)``."""
    xp = backend_of(eta).xp
    e = xp.exp(-xp.abs(eta))
    y = e / ((1 + e) * (1 + e))
    return y, lambda dy: (-dy * y * xp.tanh(eta * 0.5),)


@op
def _centred_log(mu: Array) -> Any:
    """``log μ - mean(log μ)`` along the last axis: of all η with this softmax the one that adds up to 0."""
    check_floating("softmax", "mu", mu)
    log_mu = backend_of(mu).xp.log(mu)

    def backward(dy: Array) -> Any:
        return ((dy - dy.mean(axis=-1, keepdims=True)) / mu,)

    return log_mu - log_mu.mean(axis=-1, keepdims=True), backward


def _softmax_slope(eta: Any) -> Tensor:
    mu = _softmax(eta)
    return mu * (1.0 - mu)


identity = Link(
    "identity",
    "Gaussian",
    _identity,
    _identity,
    _one,
    lambda eta, y, reduction="mean": 0.5 * mse_loss(eta, y, reduction),
)
logit = Link(
    "logit",
    "Bernoulli",
    _logit,
    _sigmoid,
    _logistic_slope,
    lambda eta, y, reduction="mean": binary_cross_entropy_with_logits(eta, y, reduction=reduction),
)
log = Link(
    "log",
    "Poisson",
    _log,
    _exp,
    _exp,
    lambda eta, y, reduction="mean": poisson_nll_loss(eta, y, reduction=reduction),
)
softmax = Link(  # derivative: the diagonal; the whole is diag(μ) - μ μ^T
    "softmax",
    "categorical",
    _centred_log,
    _softmax,
    _softmax_slope,
    lambda eta, y, reduction="mean": cross_entropy(eta, y, reduction=reduction),
)
