"""Networks that classify."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from ...autograd import Tensor
from ...backend import Array
from ...layers import cross_entropy, log_softmax, softmax
from .arrays import checked_weights, host_library
from .predictor import ARGUMENTS, Predictor


class LamellaClassifier(ClassifierMixin, Predictor):
    __doc__ = "A network that classifies, with scikit-learn's manners.\n" + ARGUMENTS.format(
        loss="cross entropy of one logit for each class",
        more='\n        class_weight: a dict of weights by class, or "balanced": they multiply the sample weights.',
    )

    classes_: Array
    _of_classes = True

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
        class_weight: Any = None,
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
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LamellaClassifier:
        """Learn to tell the classes of y, labels of any kind, shape ``(N,)``."""
        X, y = self._checked(X, y=y)
        y = self._labels(y)
        classes = host_library().unique(y)
        if self.warm_start and hasattr(self, "module_") and not _same(classes, self.classes_):
            raise ValueError(
                f"{self._name}: with warm_start the classes must be those of the first fit, {self.classes_.tolist()}, "
                f"got {classes.tolist()}"
            )
        weights = self._weights(X, y, sample_weight)
        self.classes_, self.n_outputs_ = classes, len(classes)
        self._fit(X, self._encoded(y), weights)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> LamellaClassifier:
        """One epoch on these examples.

        Args:
            classes: all classes there will be; needed in the first call.
        """
        first = not hasattr(self, "module_")
        if first and classes is None:
            raise ValueError(f"{self._name}: classes must be given in the first call of partial_fit, got None")
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"{self._name}: class_weight must be a dict for partial_fit, which does not see all examples, got "
                f"{self.class_weight!r}"
            )
        X, y = self._checked(X, y=y, reset=first)
        y = self._labels(y)
        if classes is not None:
            classes = host_library().unique(host_library().asarray(classes))
            if not first and not _same(classes, self.classes_):
                raise ValueError(
                    f"{self._name}: classes must be those of the first call, {self.classes_.tolist()}, got "
                    f"{classes.tolist()}"
                )
            self.classes_, self.n_outputs_ = classes, len(classes)
        weights, labels = self._weights(X, y, sample_weight), self._encoded(y)
        if first:
            self._begin(X, weights)
        self._learn(X, labels, weights, 1, early_stopping=False)
        return self

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, in the order of ``classes_``, shape ``(N, K)``."""
        X = self._checked(X, reset=False)
        return self._outputs(X, lambda x: softmax(self.module_(x), axis=-1))

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithms of :meth:`predict_proba`, finite where a probability is too small for its dtype."""
        X = self._checked(X, reset=False)
        return self._outputs(X, lambda x: log_softmax(self.module_(x), axis=-1))

    def predict(self, X: Any) -> Array:
        """The most probable class of each example, shape ``(N,)``."""
        X = self._checked(X, reset=False)
        return self.classes_[self._outputs(X).argmax(axis=1)]

    def _begin(self, x: Array, weights: Array | None) -> None:
        super()._begin(x, weights)
        if self.module is not None:
            shape, wanted = self._outputs(x[:1]).shape, (1, self.n_outputs_)
            if shape != wanted:
                raise ValueError(
                    f"{self._name}: module must give one logit for each of {wanted[1]} classes, so of one example "
                    f"{wanted}, got {shape}"
                )

    def _objective(self) -> Callable[[Tensor, Tensor], Tensor]:
        return cross_entropy if self.loss is None else self.loss

    def _labels(self, y: Any) -> Array:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        return y

    def _encoded(self, y: Array) -> Array:
        """Labels as 0 … K - 1."""
        xp = host_library()
        unknown = [label for label in xp.unique(y).tolist() if label not in self.classes_.tolist()]
        if unknown:
            raise ValueError(f"{self._name}: y must hold classes of {self.classes_.tolist()}, got {unknown}")
        return xp.searchsorted(self.classes_, y).astype("int64")

    def _weights(self, x: Array, y: Array, sample_weight: Any) -> Array | None:
        by_class = None if self.class_weight is None else compute_sample_weight(self.class_weight, y)
        return checked_weights(sample_weight, x, by_class)


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool((a == b).all())
