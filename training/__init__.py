"""Floor 5: optimizers, schedules, batches, the training loop, metrics and checkpoints."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import training'")

from .adam import Adam, AdamW
from .checkpoint import load, load_metadata, save
from .data import batches, split
from .datasets import digits
from .early_stopping import EarlyStopping
from .loop import History, evaluate, fit
from .metrics import accuracy, confusion_matrix, format_confusion_matrix
from .optimizer import Optimizer
from .schedules import cosine, decay_by_step
from .sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "EarlyStopping",
    "History",
    "Optimizer",
    "accuracy",
    "batches",
    "confusion_matrix",
    "cosine",
    "decay_by_step",
    "digits",
    "evaluate",
    "fit",
    "format_confusion_matrix",
    "load",
    "load_metadata",
    "save",
    "split",
]
