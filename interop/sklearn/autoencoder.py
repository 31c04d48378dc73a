"""Autoencoders as transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from ...autograd import Tensor
from ...backend import Array, Generator
from ...layers import GaussianNoise, Module, mse_loss
from ...layers.lengths import length
from ...models import Autoencoder as Model
from ...models import autoencoder, kl_penalty, l1_penalty
from .arrays import FLOATS
from .network import ACTIVATIONS, Network

_PENALTIES = {"l1": l1_penalty, "kl": kl_penalty}


class Autoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Network):
    """An autoencoder as a transformer: ``transform`` gives codes, ``inverse_transform`` what they stand for.

    Args:
        n_components: length of the code.
        hidden_layer_sizes: of the encoder; the decoder mirrors it. None: with ``activation="identity"`` the codes span
            the space of the first principal components.
        activation: after each hidden layer. code_activation: after the code, by name; "logistic" for penalty "kl".
        tied: whether the decoder's weights are the encoder's, transposed.
        noise: standard deviation of the noise that spoils inputs in training; above 0 the autoencoder is denoising.
        penalty: None, "l1" (:func:`lamella.models.l1_penalty`) or "kl" (:func:`lamella.models.kl_penalty`).
        penalty_weight: its factor in the loss.
        module: a function ``module(in_features, n_components, rng=rng)`` that makes a ``models.Autoencoder``.
        learning_rate_init, alpha, batch_size, …: as for :class:`LamellaClassifier`.
    Attributes:
        module_, optimizer_, history_, n_iter_, loss_, n_features_in_, feature_names_in_: as there.
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        hidden_layer_sizes: Any = (),
        activation: Any = "relu",
        code_activation: Any = "identity",
        tied: bool = False,
        noise: float = 0.0,
        penalty: Any = None,
        penalty_weight: float = 1e-3,
        module: Any = None,
        optimizer: Any = None,
        learning_rate_init: float = 1e-3,
        alpha: float = 0.0,
        batch_size: Any = "auto",
        max_iter: int = 200,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        callbacks: Any = (),
        device: Any = "cpu",
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.code_activation = code_activation
        self.tied = tied
        self.noise = noise
        self.penalty = penalty
        self.penalty_weight = penalty_weight
        self.module = module
        self.optimizer = optimizer
        self.learning_rate_init = learning_rate_init
        self.alpha = alpha
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = FLOATS
        return tags

    def fit(self, X: Any, y: Any = None) -> Autoencoder:
        """Learn to give X back; y is not looked at."""
        X = self._checked(X)
        self._fit(X, X, None)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Autoencoder:
        """One epoch on these examples."""
        first = not hasattr(self, "module_")
        X = self._checked(X, reset=first)
        if first:
            self._begin(X, None)
        self._learn(X, X, None, 1, early_stopping=False)
        return self

    def transform(self, X: Any) -> Array:
        """The code of each example, shape ``(N, n_components)``."""
        X = self._checked(X, reset=False)
        return self._outputs(X, self.module_.encode)

    def inverse_transform(self, X: Any) -> Array:
        """What codes stand for, shape ``(N, n_features_in_)``."""
        check_is_fitted(self)
        codes = check_array(X, dtype=FLOATS, input_name="X")
        if codes.shape[1] != self.n_components:
            raise ValueError(f"{self._name}: X must hold codes of n_components={self.n_components}, got {codes.shape}")
        return self._outputs(codes.astype(self._dtype, copy=False), self.module_.decode)

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the mean squared error of the reconstruction: greater is better."""
        X = self._checked(X, reset=False)
        return -float(((self._outputs(X) - X) ** 2).mean())

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def _make(self, rng: Generator) -> Module:
        if self.module is not None:
            if isinstance(self.module, Module) or not callable(self.module):
                raise TypeError(f"{self._name}: module must be a function that makes one, got {self.module!r}")
            made = self.module(self.n_features_in_, self.n_components, rng=rng)
            if not isinstance(made, Model):
                raise TypeError(
                    f"{self._name}: module must make a models.Autoencoder, got {type(made).__name__} from it"
                )
            return made
        noise = self._number("noise")
        if self.code_activation not in ACTIVATIONS:
            raise ValueError(
                f"{self._name}: code_activation must be one of {', '.join(ACTIVATIONS)}, got {self.code_activation!r}"
            )
        return autoencoder(
            self.n_features_in_,
            *self._hidden(),
            length(self._name, "n_components", self.n_components, 1),
            activation=self._activation(),
            code_activation=ACTIVATIONS[self.code_activation],
            tied=self.tied,
            noise=GaussianNoise(noise, rng=rng.spawn()) if noise else None,
            rng=rng,
        )

    def _objective(self) -> Callable[[Tensor, Tensor], Tensor]:
        if self.penalty is None:
            return mse_loss
        if self.penalty not in _PENALTIES:
            raise ValueError(f"{self._name}: penalty must be None, 'l1' or 'kl', got {self.penalty!r}")
        if self.penalty == "kl" and self.module is None and self.code_activation != "logistic":
            raise ValueError(
                f"{self._name}: code_activation must be 'logistic' for penalty 'kl', which needs codes in 0 … 1, got "
                f"{self.code_activation!r}"
            )
        penalty, weight, module = _PENALTIES[self.penalty], self._number("penalty_weight"), self.module_
        return lambda outputs, x: mse_loss(outputs, x) + weight * penalty(module.encode(x))
