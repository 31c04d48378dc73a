"""Networks that predict numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.base import RegressorMixin
from sklearn.utils import column_or_1d

from ...autograd import Tensor
from ...backend import Array
from ...layers import mse_loss
from .arrays import checked_weights
from .predictor import ARGUMENTS, Predictor


class LamellaRegressor(RegressorMixin, Predictor):
    __doc__ = "A network that predicts numbers, one or several, with scikit-learn's manners.\n" + ARGUMENTS.format(
        loss="the mean squared error (scikit-learn's is half of it, so the same alpha pulls half as much here)", more=""
    )

    def __init__(
        self,
        module: Any = None,
        *,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        dropout: float = 0.0,
        loss: Any = None,
        optimizer: Any = None,
        learning_rate_init: float = 1e-3,
        alpha: float = 1e-4,
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
        self.module = module
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.loss = loss
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
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LamellaRegressor:
        """Learn the numbers y, shape ``(N,)`` or ``(N, K)``."""
        X, y, weights = self._data(X, y, sample_weight, reset=True)
        self._set_outputs(y, self.warm_start)
        self._fit(X, y.reshape(len(y), -1), weights)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> LamellaRegressor:
        """One epoch on these examples."""
        first = not hasattr(self, "module_")
        X, y, weights = self._data(X, y, sample_weight, reset=first)
        self._set_outputs(y, not first)
        if first:
            self._begin(X, weights)
        self._learn(X, y.reshape(len(y), -1), weights, 1, early_stopping=False)
        return self

    def predict(self, X: Any) -> Array:
        """The numbers for each example, of the shape that y had."""
        X = self._checked(X, reset=False)
        outputs = self._outputs(X)
        return outputs.reshape(-1) if self._flat else outputs

    def _objective(self) -> Callable[[Tensor, Tensor], Tensor]:
        return mse_loss if self.loss is None else self.loss

    def _data(self, X: Any, y: Any, sample_weight: Any, reset: bool) -> tuple[Array, Array, Array | None]:
        X, y = self._checked(X, y=y, multi_output=True, y_numeric=True, reset=reset)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y.astype(X.dtype), checked_weights(sample_weight, X)

    def _set_outputs(self, y: Array, same: bool) -> None:
        outputs, flat = (1, True) if y.ndim == 1 else (y.shape[1], False)
        if same and hasattr(self, "module_") and outputs != self.n_outputs_:
            raise ValueError(f"{self._name}: y must have {self.n_outputs_} outputs, as before, got {outputs}")
        self.n_outputs_, self._flat = outputs, flat
