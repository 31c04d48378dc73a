"""What classifier and regressor share: their arguments, and a module from features to outputs."""

from __future__ import annotations

import copy

from ...backend import Generator
from ...layers import Module
from ...models import mlp
from .network import Network


class Predictor(Network):
    """What classifier and regressor share: their arguments, and a module from features to outputs."""

    n_outputs_: int

    def _make(self, rng: Generator) -> Module:
        if isinstance(self.module, Module):
            return copy.deepcopy(self.module)
        if self.module is None:
            sizes = (self.n_features_in_, *self._hidden(), self.n_outputs_)
            return mlp(*sizes, activation=self._activation(), dropout=self.dropout, rng=rng)
        made = self.module(self.n_features_in_, self.n_outputs_, rng=rng)
        if not isinstance(made, Module):
            raise TypeError(f"{self._name}: module must be a Module or make one, got {type(made).__name__} from it")
        return made


ARGUMENTS = """
    Args:
        module: a Module from features to outputs, of which each fit trains a copy from the weights it has; or a
            function ``module(in_features, out_features, rng=rng)`` that makes one. By default an MLP. With a module of
            one's own x may have more than two axes.
        hidden_layer_sizes, activation: of the MLP; an activation by name, or what makes a module.
        dropout: of the MLP, the probability of dropping a hidden value.
        loss: ``loss(outputs, targets, reduction=…)``; by default {loss}.
        optimizer: ``optimizer(parameters, lr=…)``, such as ``training.SGD``; by default Adam.
        learning_rate_init: the learning rate.
        alpha: strength of the L2 penalty on weights; as in scikit-learn it is divided by the examples in a batch.
        batch_size: examples in a step; "auto" is the smaller of 200 and all.
        max_iter: the most epochs.
        early_stopping: whether to hold out ``validation_fraction`` of the data, and to stop when the loss on them has
            not fallen by ``tol`` for ``n_iter_no_change`` epochs; the best state is kept. Without it the loss on the
            training data decides.
        warm_start: whether ``fit`` goes on from where the last one ended.
        callbacks: as for :func:`lamella.training.fit`, such as ``plot.LiveCurves()``.
        device: where the module computes.
        verbose: whether to show how it goes.
        random_state: draws initial weights, the order of examples, and what is held out.{more}
    Attributes:
        module_: the trained module, in evaluation mode. optimizer_: its optimizer.
        history_: the :class:`lamella.training.History` of all epochs. n_iter_: their number. loss_: the last loss.
        n_features_in_, feature_names_in_, n_outputs_: sizes and names of the data.
"""
