"""Floor 5: optimizers, schedules, batches, the training loop, metrics and checkpoints."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import training'")

from .adagrad import Adagrad
from .adam import Adam, AdamW
from .augment import cutout, normalize, random_crop, random_flip, random_shift
from .calibration import Calibration, calibration
from .callbacks import Callback, TrainingState
from .checkpoint import load, load_metadata, save
from .clipping import clip_grad_norm, clip_grad_value
from .cross_validation import CrossValidation, cross_validate
from .data import batches
from .datasets import FASHION_CLASSES, digits, fashion_mnist, mnist5k
from .early_stopping import EarlyStopping
from .groups import ParameterGroup
from .history import History
from .idx import read_idx
from .imagenet import imagenet_images
from .loop import evaluate, fit
from .metrics import accuracy, confusion_matrix, format_confusion_matrix, top_k_accuracy
from .normalized import NormalizedGradientDescent
from .optimizer import Optimizer
from .plateau import ReduceOnPlateau
from .precision_recall import f1_score, precision_score, recall_score
from .regression_metrics import mean_absolute_error, mean_squared_error, r2_score
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
from .splits import KFold, StratifiedKFold, split, train_validation_test_split

__all__ = [
    "FASHION_CLASSES",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Calibration",
    "Callback",
    "CrossValidation",
    "EarlyStopping",
    "History",
    "KFold",
    "NormalizedGradientDescent",
    "Optimizer",
    "ParameterGroup",
    "RMSprop",
    "ReduceOnPlateau",
    "StratifiedKFold",
    "TrainingState",
    "accuracy",
    "batches",
    "calibration",
    "clip_grad_norm",
    "clip_grad_value",
    "confusion_matrix",
    "constant",
    "cosine",
    "cosine_restarts",
    "cross_validate",
    "cutout",
    "decay_at_steps",
    "decay_by_step",
    "digits",
    "evaluate",
    "exponential",
    "f1_score",
    "fashion_mnist",
    "fit",
    "format_confusion_matrix",
    "imagenet_images",
    "load",
    "load_checkpoint",
    "load_metadata",
    "mean_absolute_error",
    "mean_squared_error",
    "mnist5k",
    "normalize",
    "one_cycle",
    "polynomial",
    "precision_score",
    "r2_score",
    "random_crop",
    "random_flip",
    "random_shift",
    "read_idx",
    "recall_score",
    "save",
    "save_checkpoint",
    "split",
    "top_k_accuracy",
    "train_validation_test_split",
    "warm_up",
]
