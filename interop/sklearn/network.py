"""What the estimators share that learn by the training loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ...autograd import Tensor, no_grad
from ...autograd import tensor as as_tensor
from ...backend import Array, Generator
from ...layers import ELU, GELU, SELU, Identity, Module, ReLU, Sigmoid, SiLU, Tanh
from ...layers.lengths import length
from ...layers.real import real
from ...training import Adam, Callback, History, Optimizer, TrainingState, split
from ...training import fit as train
from ...training.random_state import generators_of
from .arrays import FLOATS, host_library, on_host, plain_arrays

ACTIVATIONS: dict[str, Callable[[], Any]] = {
    "identity": Identity,
    "logistic": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "gelu": GELU,
    "silu": SiLU,
    "elu": ELU,
    "selu": SELU,
}
_ROWS = 4096  # examples predicted at a time


class Network(BaseEstimator):
    """What the estimators share that learn by :func:`lamella.training.fit`.

    A subclass makes the module for the sizes of its data (``_make``), and says what its loss is (``_objective``).
    """

    module_: Any  # as scikit-learn writes it, what ends in _ is there after fit
    optimizer_: Optimizer
    history_: History
    n_features_in_: int
    _of_classes = False  # whether targets are labels

    def _make(self, rng: Generator) -> Module:
        raise NotImplementedError

    def _objective(self) -> Callable[[Tensor, Tensor], Tensor]:
        raise NotImplementedError

    # -- learning ---------------------------------------------------------------------------------------------------
    def _begin(self, x: Array, weights: Array | None) -> None:
        """A new module, optimizer and history for data like these."""
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self._rng, self._dtype = Generator(int(seed)), x.dtype.name
        total = len(x) if weights is None else float(weights.sum())
        self._decay = self._number("alpha") / (self._batch(len(x)) * total / len(x))
        unneeded = "callbacks", "random_state"
        self._made_with = {name: value for name, value in self.get_params(deep=False).items() if name not in unneeded}
        self.module_ = self._place(self._make(self._rng.spawn()))
        self.optimizer_ = self._make_optimizer()
        self.history_ = History()

    def _place(self, module: Module) -> Module:
        return module.to(self.device, self._dtype)

    def _make_optimizer(self) -> Optimizer:
        """The optimizer; what alpha shrinks are weights, not biases and the gains of norms."""
        make = Adam if self.optimizer is None else self.optimizer
        if not callable(make):
            raise TypeError(f"{self._name}: optimizer must make one, such as training.SGD, got {make!r}")
        parameters = list(self.module_.parameters())
        weights = [parameter for parameter in parameters if parameter.ndim > 1]
        groups: list[Any] = parameters
        if self._decay and weights:
            others = [parameter for parameter in parameters if parameter.ndim <= 1]
            groups = [{"params": weights, "weight_decay": self._decay}]
            groups += [{"params": others}] if others else []
        return make(groups, lr=self._number("learning_rate_init"))

    def _learn(self, x: Array, y: Array, weights: Array | None, epochs: int, early_stopping: bool) -> bool:
        """Some epochs of training; whether it ended before the last."""
        labels = y if self._of_classes else None
        if weights is not None:  # fit gives a loss two things: targets and weights travel as one array
            weights = (weights / weights.mean()).astype(x.dtype)
            y = host_library().concatenate([y.reshape(len(y), -1).astype(x.dtype), weights[:, None]], axis=1)
        data = (x, y)
        judges = None
        if early_stopping:
            share = self._number("validation_fraction")
            if not 0.0 < share < 1.0:
                raise ValueError(f"{self._name}: validation_fraction must be between 0 and 1, got {share}")
            held_out = len(x) - round((1.0 - share) * len(x))  # as split rounds
            if not 0 < held_out < len(x):
                raise ValueError(
                    f"{self._name}: validation_fraction must leave examples to learn from and to judge by, got {share} "
                    f"for {len(x)} example{'s' * (len(x) != 1)}"
                )
            data, judges = split(x, y, fractions=(1.0 - share, share), rng=self._rng, stratify=labels)
        patience = _Patience(
            "validation_loss" if early_stopping else "loss",
            self._number("tol"),
            length(self._name, "n_iter_no_change", self.n_iter_no_change, 1),
        )
        train(
            self.module_,
            self._moved(data),
            loss=self._objective() if weights is None else _weighted(self._objective(), self._of_classes),
            optimizer=self.optimizer_,
            epochs=epochs,
            batch_size=self._batch(len(data[0])),
            validation=None if judges is None else self._moved(judges),
            metrics={},
            rng=self._rng,
            callbacks=[patience, *self.callbacks],
            history=self.history_,
            progress=bool(self.verbose),
            explain=False,
        )
        self.n_iter_ = len(self.history_)
        self.loss_ = self.history_["loss"][-1]
        return patience.stopped

    def _fit(self, x: Array, y: Array, weights: Array | None) -> None:
        """All epochs of ``fit``."""
        epochs = length(self._name, "max_iter", self.max_iter, 1)
        if not (self.warm_start and hasattr(self, "module_")):
            self._begin(x, weights)
        if not self._learn(x, y, weights, epochs, self.early_stopping):
            warnings.warn(
                f"{self._name}: max_iter={epochs} epochs were over before the loss had settled",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _batch(self, count: int) -> int:
        if isinstance(self.batch_size, str) and self.batch_size == "auto":
            return min(200, count)
        return min(length(self._name, "batch_size", self.batch_size, 1), count)

    def _moved(self, arrays: Sequence[Array]) -> tuple[Tensor, Tensor]:
        x, y = (as_tensor(array, device=self.device) for array in arrays)
        return x, y

    # -- using ------------------------------------------------------------------------------------------------------
    def _outputs(self, x: Array, function: Callable[[Tensor], Tensor] | None = None) -> Array:
        """What the module, or a part of it, gives for rows of x, on the host."""
        function = self.module_ if function is None else function
        self.module_.eval()
        with no_grad():
            parts = [
                function(as_tensor(x[first : first + _ROWS], device=self.device)).to_numpy()
                for first in range(0, len(x), _ROWS)
            ]
        return parts[0] if len(parts) == 1 else host_library().concatenate(parts)

    def _checked(self, x: Any, **options: Any) -> Any:
        """Data as scikit-learn checks them; x as the floats in which the module computes."""
        if not options.get("reset", True):
            check_is_fitted(self)
        images = self.module is not None  # a module of one's own may take more than rows of features
        found = validate_data(self, x, dtype=FLOATS, allow_nd=images, **options)
        if options.get("reset", True):
            return found
        if isinstance(found, tuple):
            return found[0].astype(self._dtype, copy=False), found[1]
        return found.astype(self._dtype, copy=False)

    # -- parameters -------------------------------------------------------------------------------------------------
    @property
    def _name(self) -> str:
        return type(self).__name__

    def _number(self, name: str) -> float:
        value = real(self._name, name, getattr(self, name))
        if not value >= 0.0:
            raise ValueError(f"{self._name}: {name} must be at least 0, got {value}")
        return value

    def _hidden(self) -> tuple[int, ...]:
        sizes = self.hidden_layer_sizes
        if not isinstance(sizes, (tuple, list)) and not hasattr(sizes, "tolist"):
            sizes = (sizes,)
        return tuple(length(self._name, "hidden_layer_sizes", n, 1) for n in sizes)

    def _activation(self) -> Callable[[], Any]:
        if isinstance(self.activation, str) and self.activation in ACTIVATIONS:
            return ACTIVATIONS[self.activation]
        if callable(self.activation) and not isinstance(self.activation, Module):
            return self.activation
        raise ValueError(
            f"{self._name}: activation must be one of {', '.join(ACTIVATIONS)} or make a module, such as layers.Mish, "
            f"got {self.activation!r}"
        )

    # -- copies -----------------------------------------------------------------------------------------------------
    def __getstate__(self) -> dict[str, Any]:
        """Plain arrays and numbers: modules and optimizers are not pickled but made again."""
        state = super().__getstate__()
        if isinstance(self.module, Module) or isinstance(state.get("_made_with", {}).get("module"), Module):
            raise TypeError(
                f"{self._name}: with a Module for module it cannot be copied to another process or file; give a "
                "function that makes it, module(in_features, out_features, rng=rng)"
            )
        if "module_" in state:
            module = {name: on_host(value) for name, value in self.module_.state_dict().items()}
            optimizer = {name: on_host(value) for name, value in self.optimizer_.state_dict().items()}
            masks = {path: generator.state for path, generator in generators_of(self.module_).items()}
            state = {**state, "module_": module, "optimizer_": optimizer, "_rng": self._rng.state, "_masks": masks}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        made = "module_", "optimizer_", "_masks"
        super().__setstate__({name: value for name, value in state.items() if name not in made})
        if "module_" in state:
            self._rng = Generator()
            self._rng.state = state["_rng"]
            maker: Any = type(self)(**{**self._made_with, "device": self.device})  # set_params may have come after fit
            fitted = {name: value for name, value in vars(self).items() if name not in self.get_params(deep=False)}
            maker.__dict__.update(fitted)
            maker.module_ = self.module_ = maker._place(maker._make(Generator(0)))
            self.module_.load_state_dict(plain_arrays(state["module_"]))
            self.module_.eval()
            for path, generator in generators_of(self.module_).items():
                generator.state = state["_masks"][path]
            self.optimizer_ = maker._make_optimizer()
            self.optimizer_.load_state_dict(plain_arrays(state["optimizer_"]))


class _Patience(Callback):
    """Stops as scikit-learn's networks do: ``patience`` epochs in a row without a loss lower by ``tol`` than the best.

    Args:
        monitor: which figure must fall; of a validation figure the best state is put back at the end.
    """

    def __init__(self, monitor: str, tol: float, patience: int) -> None:
        self.monitor, self.tol, self.patience = monitor, tol, patience
        self.best, self.waited, self.stopped = float("inf"), 0, False
        self._state: dict[str, Array] = {}

    def on_epoch_end(self, state: TrainingState) -> bool:
        value = state.figure("early_stopping", self.monitor)
        self.waited = self.waited + 1 if value > self.best - self.tol else 0
        if value < self.best:
            self.best = value
            if self.monitor.startswith("validation"):
                self._state = state.model.state_dict()
        self.stopped = self.waited > self.patience
        return self.stopped

    def on_end(self, state: TrainingState) -> None:
        if self._state:
            state.model.load_state_dict(self._state)


def _weighted(loss: Callable[..., Tensor], of_classes: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean of ``weight · loss`` for targets whose last column are the weights, which have the mean 1."""

    def objective(outputs: Tensor, y: Tensor) -> Tensor:
        targets, weights = y[:, :-1], y[:, -1]
        each = loss(outputs, targets[:, 0].astype("int64") if of_classes else targets, reduction="none")
        if each.ndim > 1:
            each = each.reshape(len(each), -1).mean(axis=1)
        return (each * weights).mean()

    return objective
