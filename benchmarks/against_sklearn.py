"""lamella's classifier beside scikit-learn's MLPClassifier on digits: ``python -m lamella.benchmarks.against_sklearn``.

Both fit the same network by Adam with the same options on the same split, in turns, with one BLAS thread. What counts
is the CPU time of ``fit``, which other work on the machine disturbs little; accuracies are those on the held-out fifth.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from typing import Any

import numpy as np


def contest(repeats: int, epochs: int, hidden: tuple[int, ...], dtype: str, batch_size: int) -> dict[str, Any]:
    """Seconds of CPU time and accuracies of each, one number for each repeat."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    from lamella.interop.sklearn import LamellaClassifier
    from lamella.training import digits

    x, y = digits()
    x = x.astype(dtype)
    train, test = np.arange(len(y)) % 5 != 0, np.arange(len(y)) % 5 == 0
    found: dict[str, Any] = {
        kind.__name__: {"seconds": [], "accuracy": []} for kind in (LamellaClassifier, MLPClassifier)
    }
    options: dict[str, Any] = {"hidden_layer_sizes": hidden, "max_iter": epochs, "batch_size": batch_size, "tol": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for repeat in range(repeats + 1):
            for kind in (LamellaClassifier, MLPClassifier):
                model = kind(random_state=repeat, n_iter_no_change=epochs, **options)
                start = time.process_time()
                model.fit(x[train], y[train])
                seconds = time.process_time() - start
                if repeat:  # the first warms up
                    found[kind.__name__]["seconds"].append(seconds)
                    found[kind.__name__]["accuracy"].append(model.score(x[test], y[test]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")):
        raise SystemExit("set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1 first: the times are those of one thread")
    print("network        batch  dtype    estimator            CPU seconds (quartiles)   accuracy")
    for hidden, batch_size in (((100,), 64), ((100,), 200), ((256, 128), 64)):
        for dtype in ("float32", "float64"):
            found = contest(arguments.repeats, arguments.epochs, hidden, dtype, batch_size)
            for name, figures in found.items():
                low, middle, high = statistics.quantiles(figures["seconds"], n=4)
                network = "-".join(map(str, (64, *hidden, 10)))
                accuracy = statistics.median(figures["accuracy"])
                print(
                    f"{network:<14} {batch_size:>5}  {dtype:<8} {name:<18} {middle:>9.3f} ({low:.3f} … {high:.3f})"
                    f"   {accuracy:.3f}"
                )


if __name__ == "__main__":
    main()
