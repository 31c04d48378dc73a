"""The restricted Boltzmann machine: stochastic units, contrastive divergence, and the exact likelihood of a small one.

There is no output and no target: the model is a distribution over what is seen, and learning raises the probability of
the data. The gradient of the log-likelihood is that of a difference of free energies, so the tape and every optimizer
serve as they are::

    for (v,) in training.batches(images, batch_size=64, rng=rng):
        loss, _ = rbm.contrastive_divergence(v)  # CD-1
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ..autograd import Parameter, Tensor, checkpoint, concat, logsumexp, matmul, no_grad, zeros
from ..backend import Array, Generator, as_generator, backend_for
from ..layers import Module, init, linear, logsigmoid, sigmoid, softplus
from ..layers.lengths import length

_VISIBLE = ("bernoulli", "gaussian")
_MOST_UNITS = 24  # whose 2**24 states are summed over
_CHUNK = 1 << 14  # states at a time


class RBM(Module):
    """``p(v, h) = exp(-E(v, h)) / Z`` with no connections inside a layer, so each layer is sampled at once.

    Hidden units are 0 or 1. With ``W`` the weight, ``b`` the visible and ``c`` the hidden bias::

        bernoulli:  E(v, h) = -b·v - c·h - h·W v               v in {0, 1}
        gaussian:   E(v, h) = |v - b|² / 2 - c·h - h·W v       v real; standardise the data: the variance is 1

    and p(h = 1 | v) = σ(c + W v), p(v = 1 | h) = σ(b + Wᵀ h) or v | h ~ N(b + Wᵀ h, 1). Values between 0 and 1 may be
    given in place of binary v: they count as probabilities.

    Args:
        visible_features: number of visible units, D.
        hidden_features: number of hidden units, H.
        visible: ``"bernoulli"`` or ``"gaussian"``.
        rng: draws the initial weight, then the states of the units; a fresh generator by default.
    Attributes:
        weight: shape ``(H, D)``, at first from N(0, 0.01²); visible_bias: ``(D,)``, hidden_bias: ``(H,)``, at first 0.
    Source: Smolensky 1986; Hinton 2002, "Training products of experts by minimizing contrastive divergence"; Hinton
    2010, "A practical guide to training restricted Boltzmann machines" (the initial values).
    """

    def __init__(
        self,
        visible_features: int,
        hidden_features: int,
        *,
        visible: str = "bernoulli",
        rng: Generator | None = None,
    ) -> None:
        rng = as_generator("RBM", rng)
        self.visible_features = length("RBM", "visible_features", visible_features, 1)
        self.hidden_features = length("RBM", "hidden_features", hidden_features, 1)
        if visible not in _VISIBLE:
            raise ValueError(f"RBM: visible must be 'bernoulli' or 'gaussian', got {visible!r}")
        self.visible = visible
        shape = (self.hidden_features, self.visible_features)
        self.weight = Parameter(init.normal(shape, 0.0, 0.01, rng=rng))
        self.visible_bias = Parameter(init.zeros(shape[1:]))
        self.hidden_bias = Parameter(init.zeros(shape[:1]))
        self.rng = rng.spawn()

    # -- one layer given the other ----------------------------------------------------------------------------------
    def forward(self, v: Any) -> Tensor:
        """``p(h = 1 | v) = σ(c + W v)``, shape ``(N, H)``: the features that the machine has learned."""
        return sigmoid(self._hidden_field(v))

    def visible_mean(self, h: Any) -> Tensor:
        """The mean of v given h, shape ``(N, D)``: ``σ(b + Wᵀ h)``, or ``b + Wᵀ h`` of Gaussian units."""
        field = linear(h, self.weight.mT, self.visible_bias)
        return sigmoid(field) if self.visible == "bernoulli" else field

    def sample_hidden(self, v: Any) -> Tensor:
        """Stochastic units: h from ``p(h | v)``, 0 or 1, shape ``(N, H)``; no gradient flows through the draw."""
        with no_grad():
            return self._bernoulli(self(v))

    def sample_visible(self, h: Any) -> Tensor:
        """v from ``p(v | h)``, shape ``(N, D)``."""
        with no_grad():
            mean = self.visible_mean(h)
            if self.visible == "bernoulli":
                return self._bernoulli(mean)
            noise = self.rng.normal(mean.shape, device=mean.device)
            return Tensor(mean.data + noise.astype(mean.dtype, copy=False))

    def gibbs(self, v: Any, steps: int = 1) -> Tensor:
        """The visible states after ``steps`` times h from p(h | v), then v from p(v | h)."""
        for _ in range(length("RBM.gibbs", "steps", steps)):
            v = self.sample_visible(self.sample_hidden(v))
        return v if isinstance(v, Tensor) else Tensor(v)

    def sample(self, count: int, steps: int = 1000) -> Tensor:
        """``count`` visible states, each from a chain of its own, begun at p(v | h = 0) and ``steps`` long."""
        shape = (length("RBM.sample", "count", count), self.hidden_features)
        with no_grad():
            none = zeros(shape, dtype=self.weight.dtype, device=self.weight.device)
            return self.gibbs(self.sample_visible(none), steps)

    # -- energies ---------------------------------------------------------------------------------------------------
    def energy(self, v: Any, h: Any) -> Tensor:
        """``E(v, h)``, shape ``(N,)``."""
        field = self._hidden_field(v)
        return self._visible_energy(v) - (h * field).sum(axis=-1)

    def free_energy(self, v: Any) -> Tensor:
        """``F(v) = -log Σ_h exp(-E(v, h))``, shape ``(N,)``: ``-b·v - Σ_j log(1 + exp(c_j + W_j v))``.

        With Gaussian units ``|v - b|² / 2`` stands in place of ``-b·v``.
        """
        hidden = softplus(self._hidden_field(v)).sum(axis=-1)
        return self._visible_energy(v) - hidden

    def pseudo_log_likelihood(self, v: Any) -> Tensor:
        """``Σ_i log p(v_i | all other v)``, shape ``(N,)``, of binary v: what is cheap where Z is not.

        Raises:
            ValueError: the visible units are Gaussian.
        """
        if self.visible != "bernoulli":
            raise ValueError(f"RBM.pseudo_log_likelihood: visible must be 'bernoulli', got {self.visible!r}")
        v = v if isinstance(v, Tensor) else Tensor(v)
        field = self._hidden_field(v)  # (N, H)
        hidden = softplus(field).sum(axis=-1)
        flip = 1.0 - 2.0 * v  # (N, D): what is added to a unit that is turned over
        total = 0.0 * hidden
        for i in range(self.visible_features):
            change = flip[:, i : i + 1]
            turned = softplus(field + change * self.weight[:, i]).sum(axis=-1)
            total = total + logsigmoid(hidden - turned - change[:, 0] * self.visible_bias[i])  # log σ(F(v') - F(v))
        return total

    # -- learning ---------------------------------------------------------------------------------------------------
    def contrastive_divergence(self, v: Any, chain: Any = None, *, steps: int = 1) -> tuple[Tensor, Tensor]:
        """``mean F(v) - mean F(v')`` with v' from a Gibbs chain: its gradient stands in for that of -log p(v).

        The exact gradient has v' from the model itself. CD-k begins the chain at the data and takes k steps. Persistent
        contrastive divergence goes on where the chain was::

            loss, chain = rbm.contrastive_divergence(v, chain)  # chain is None in the first step

        The loss itself is no measure of progress, because Z cancels only in its gradient.

        Args:
            v: data, shape ``(N, D)``.
            chain: visible states to begin at, ``(M, D)``; by default the data.
            steps: k, at least 1.
        Returns:
            the loss, 0-d, and the chain's visible states, which are constants.
        Source: Hinton 2002; Tieleman 2008, "Training restricted Boltzmann machines using approximations to the
        likelihood gradient".
        """
        steps = length("RBM.contrastive_divergence", "steps", steps, 1)
        end = self.gibbs(v if chain is None else chain, steps)
        return self.free_energy(v).mean() - self.free_energy(end).mean(), end

    def log_partition(self) -> Tensor:
        """``log Z``, exactly, by summing over all states of the smaller layer (of the hidden one, if v is Gaussian).

        Differentiable: ``(free_energy(v).mean() + log_partition()).backward()`` gives the exact gradient of
        -log p(v). States are computed in chunks, and again in the backward pass.

        Raises:
            ValueError: that layer has more than 24 units.
        """
        by_visible = self.visible == "bernoulli" and self.visible_features <= self.hidden_features
        count = self.visible_features if by_visible else self.hidden_features
        if count > _MOST_UNITS:
            raise ValueError(f"RBM.log_partition: a layer must have at most {_MOST_UNITS} units, got {count}")

        def chunk(states: Tensor) -> Tensor:
            weights = -self.free_energy(states) if by_visible else self._log_weight(states)
            return logsumexp(weights, axis=0, keepdims=True)

        parts = [checkpoint(chunk, states) for states in self._states(count)]
        return logsumexp(concat(parts, axis=0))

    def log_likelihood(self, v: Any) -> Tensor:
        """``log p(v) = -F(v) - log Z``, exactly, shape ``(N,)``; of Gaussian units a density. For small machines."""
        return -self.free_energy(v) - self.log_partition()

    # -- parts ------------------------------------------------------------------------------------------------------
    def _hidden_field(self, v: Any) -> Tensor:
        """``c + W v``, shape ``(N, H)``."""
        if len(v.shape) != 2 or v.shape[1] != self.visible_features:
            raise ValueError(f"RBM: v must have shape (N, {self.visible_features}), got {tuple(v.shape)}")
        return linear(v, self.weight, self.hidden_bias)

    def _visible_energy(self, v: Any) -> Tensor:
        if self.visible == "bernoulli":
            return -matmul(v, self.visible_bias)
        distance = v - self.visible_bias
        return 0.5 * (distance * distance).sum(axis=-1)

    def _log_weight(self, h: Tensor) -> Tensor:
        """``log Σ_v exp(-E(v, h))``, an integral where v is real; shape ``(N,)``."""
        hidden = matmul(h, self.hidden_bias)
        if self.visible == "bernoulli":
            return hidden + softplus(linear(h, self.weight.mT, self.visible_bias)).sum(axis=-1)
        u = matmul(h, self.weight)  # (N, D): the field of v around b
        moment = matmul(u, self.visible_bias) + 0.5 * (u * u).sum(axis=-1)
        return hidden + moment + 0.5 * self.visible_features * math.log(2.0 * math.pi)

    def _bernoulli(self, p: Tensor) -> Tensor:
        u = self.rng.uniform(p.shape, device=p.device)
        return Tensor((u < p.data).astype(p.dtype))

    def _states(self, count: int) -> Iterator[Tensor]:
        """All 2**count rows of zeros and ones, some at a time."""
        xp, place = backend_for("cpu").xp, self.weight.device
        bits = xp.arange(count)
        for first in range(0, 1 << count, _CHUNK):
            numbers: Array = xp.arange(first, min(first + _CHUNK, 1 << count))
            states = (numbers[:, None] >> bits & 1).astype(self.weight.dtype)
            yield Tensor(backend_for(place).from_numpy(states, place))

    def extra_repr(self) -> str:
        return f"{self.visible_features}, {self.hidden_features}, visible={self.visible!r}"
