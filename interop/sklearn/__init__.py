"""Estimators with scikit-learn's manners: networks in pipelines, grid searches and cross validation.

::

    from lamella.interop.sklearn import LamellaClassifier

    search = GridSearchCV(LamellaClassifier(random_state=0), {"hidden_layer_sizes": [(32,), (64, 64)]})

Arguments that scikit-learn's ``MLPClassifier`` has too mean the same here; inputs are dense, and float32 stays float32.
``pip install 'lamella[sklearn]'`` brings what this needs.
"""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella.interop import sklearn'")

try:
    import sklearn as _sklearn  # noqa: F401 - the library itself, not this room
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "lamella.interop.sklearn needs scikit-learn, which is not installed: pip install 'lamella[sklearn]'"
    ) from error

from .autoencoder import Autoencoder
from .classifier import LamellaClassifier
from .rbm import BernoulliRBM
from .regressor import LamellaRegressor

__all__ = ["Autoencoder", "BernoulliRBM", "LamellaClassifier", "LamellaRegressor"]
