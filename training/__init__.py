"""Floor 5: optimizers, schedules, batches, the training loop, metrics and checkpoints."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import training'")

from .adagrad import Adagrad
from .adam import Adam, AdamW
from .callbacks import Callback, TrainingState
from .checkpoint import load, load_metadata, save
from .clipping import clip_grad_norm, clip_grad_value
from .data import batches, split
from .datasets import digits
from .early_stopping import EarlyStopping
from .groups import ParameterGroup
from .history import History
from .loop import evaluate, fit
from .metrics import accuracy, confusion_matrix, format_confusion_matrix
from .normalized import NormalizedGradientDescent
from .optimizer import Optimizer
from .plateau import ReduceOnPlateau
from .resume import load_checkpoint, save_checkpoint
from .rmsprop import RMSprop
from .schedules import (
    constant,
    cosine,
    cosine_restarts,
    decay_at_steps,
    decay_by_step,
    exponential,
    one_cycle,
    polynomial,
    warm_up,
)
from .sgd import SGD

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Callback",
    "EarlyStopping",
    "History",
    "NormalizedGradientDescent",
    "Optimizer",
    "ParameterGroup",
    "RMSprop",
    "ReduceOnPlateau",
    "TrainingState",
    "accuracy",
    "batches",
    "clip_grad_norm",
    "clip_grad_value",
    "confusion_matrix",
    "constant",
    "cosine",
    "cosine_restarts",
    "decay_at_steps",
    "decay_by_step",
    "digits",
    "evaluate",
    "exponential",
    "fit",
    "format_confusion_matrix",
    "load",
    "load_checkpoint",
    "load_metadata",
    "one_cycle",
    "polynomial",
    "save",
    "save_checkpoint",
    "split",
    "warm_up",
]
