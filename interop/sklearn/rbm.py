"""Restricted Boltzmann machines as transformers."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ...autograd import Tensor, no_grad
from ...autograd import tensor as as_tensor
from ...backend import Array, Generator
from ...layers.lengths import length
from ...models import RBM
from ...training import SGD, batches
from .arrays import FLOATS, on_host, plain_arrays


class BernoulliRBM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A restricted Boltzmann machine with binary units as a transformer, learned by contrastive divergence.

    Arguments, attributes and methods are those of scikit-learn's ``BernoulliRBM``, and three more.

    Args:
        n_components: hidden units.
        learning_rate: of plain gradient descent.
        batch_size: examples in a step, and chains.
        n_iter: epochs.
        persistent: go on with the chains of the last step, as scikit-learn does; else begin at the data (CD-k).
        n_gibbs: k, Gibbs steps for each update.
        verbose: whether to print the pseudo-likelihood after each epoch.
        device: where it computes.
        random_state: draws the initial weights, the order of examples and the states of the units.
    Attributes:
        components_: the weight, shape ``(n_components, n_features_in_)``.
        intercept_hidden_, intercept_visible_: the biases.
        module_: the :class:`lamella.models.RBM` itself. n_features_in_, feature_names_in_: of the data.
    """

    def __init__(
        self,
        n_components: int = 256,
        *,
        learning_rate: float = 0.1,
        batch_size: int = 10,
        n_iter: int = 10,
        persistent: bool = True,
        n_gibbs: int = 1,
        verbose: bool = False,
        device: Any = "cpu",
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.persistent = persistent
        self.n_gibbs = n_gibbs
        self.verbose = verbose
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = FLOATS
        return tags

    def fit(self, X: Any, y: Any = None) -> BernoulliRBM:
        """Learn the distribution of X, values in 0 … 1; y is not looked at."""
        X = validate_data(self, X, dtype=FLOATS)
        self._begin(X)
        for epoch in range(length("BernoulliRBM", "n_iter", self.n_iter)):
            self._epoch(X)
            if self.verbose:
                print(f"epoch {epoch + 1}/{self.n_iter}  pseudo-likelihood {self.score_samples(X).mean():.3f}")
        return self

    def partial_fit(self, X: Any, y: Any = None) -> BernoulliRBM:
        """One epoch on these examples."""
        first = not hasattr(self, "module_")
        X = validate_data(self, X, dtype=FLOATS, reset=first)
        if first:
            self._begin(X)
        self._epoch(X.astype(self._dtype, copy=False))
        return self

    def transform(self, X: Any) -> Array:
        """The probability that each hidden unit is on, shape ``(N, n_components)``."""
        return self.module_(self._data(X)).to_numpy()

    def gibbs(self, v: Any) -> Array:
        """The visible states after one Gibbs step from v."""
        return self.module_.gibbs(self._data(v)).to_numpy()

    def score_samples(self, X: Any) -> Array:
        """The pseudo-log-likelihood of each example, summed over all units, where scikit-learn draws one of them."""
        with no_grad():
            return self.module_.pseudo_log_likelihood(self._data(X)).to_numpy()

    @property
    def components_(self) -> Array:
        return on_host(self.module_.weight.data)

    @property
    def intercept_hidden_(self) -> Array:
        return on_host(self.module_.hidden_bias.data)

    @property
    def intercept_visible_(self) -> Array:
        return on_host(self.module_.visible_bias.data)

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def _data(self, x: Any) -> Tensor:
        check_is_fitted(self)
        x = validate_data(self, x, dtype=FLOATS, reset=False)
        return as_tensor(x.astype(self._dtype, copy=False), device=self.device)

    def _begin(self, x: Array) -> None:
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self._rng, self._dtype, self._chain = Generator(int(seed)), x.dtype.name, None
        self.module_ = self._make(self._rng.spawn())

    def _make(self, rng: Generator) -> RBM:
        return RBM(self.n_features_in_, self.n_components, rng=rng).to(self.device, self._dtype)

    def _epoch(self, x: Array) -> None:
        optimizer = SGD(self.module_.parameters(), lr=self.learning_rate)
        data = as_tensor(x, device=self.device)
        chain = None if self._chain is None else as_tensor(self._chain, device=self.device)
        for (v,) in batches(data, batch_size=self.batch_size, rng=self._rng):
            loss, end = self.module_.contrastive_divergence(v, chain, steps=self.n_gibbs)
            chain = end if self.persistent else None
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self._chain = None if chain is None else on_host(chain.data)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if "module_" in state:
            module = {name: on_host(value) for name, value in self.module_.state_dict().items()}
            states = self._rng.state, self.module_.rng.state
            state = {**state, "module_": module, "_rng": states}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({name: value for name, value in state.items() if name != "module_"})
        if "module_" in state:
            self._rng = Generator()
            hidden, visible = state["module_"]["weight"].shape  # set_params may have come after fit
            self.module_ = RBM(visible, hidden, rng=Generator(0)).to(self.device, self._dtype)
            self._rng.state, self.module_.rng.state = state["_rng"]
            self.module_.load_state_dict(plain_arrays(state["module_"]))
