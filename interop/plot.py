"""Looking at training and models: thin functions on matplotlib, each of which takes an axis and returns it.

``ax=None`` makes a figure of its own, as in scikit-learn; ``ax.figure.savefig(path)`` writes it. Arrays and tensors may
lie on any device. ``pip install 'lamella[plot]'`` brings what this needs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

from ..autograd import Tensor, grad, no_grad
from ..autograd import tensor as as_tensor
from ..backend import Array, backend_for
from ..layers import Module
from ..layers.lengths import length
from ..training import Callback, History, TrainingState
from ..training import confusion_matrix as count_confusions
from ..training.metrics import as_host
from ..training.step import device_of

_GAP = 1  # pixels between two images of a grid


def loss_curves(history: History, names: Sequence[str] | None = None, *, ax: Any = None) -> Any:
    """A line for each figure over the epochs, which count from 1.

    Args:
        history: what :func:`lamella.training.fit` returned.
        names: which figures; by default ``loss`` and, where there is validation data, ``validation_loss``.
        ax: the axis to draw on.
    Raises:
        ValueError: the history holds no epoch. KeyError: it has no such figure.
    """
    if not isinstance(history, History):
        raise TypeError(f"loss_curves: history must be a History, as fit returns it, got {type(history).__name__}")
    if len(history) == 0:
        raise ValueError("loss_curves: history must hold at least one epoch, got none")
    if names is None:
        names = [name for name in ("loss", "validation_loss") if name in history.last]
    ax = _axis("loss_curves", ax)
    epochs = range(1, len(history) + 1)
    for name in names:
        ax.plot(epochs, history[name], label=name.replace("_", " "), marker="o" if len(history) == 1 else None)
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return ax


class LiveCurves(Callback):
    """A callback for :func:`lamella.training.fit` that draws :func:`loss_curves` anew after each epoch.

    In a notebook the picture is replaced where it stands. In a script call ``matplotlib.pyplot.ion()`` before, or the
    window appears only when the training is over.

    Args:
        names: which figures, as for :func:`loss_curves`.
        ax: the axis to draw on, which is cleared each time.
    """

    def __init__(self, names: Sequence[str] | None = None, *, ax: Any = None) -> None:
        self.names, self.ax = names, _axis("LiveCurves", ax)
        self._shown: Any = None

    def on_epoch_end(self, state: TrainingState) -> None:
        self.ax.clear()
        loss_curves(state.history, self.names, ax=self.ax)
        self._show(self.ax.figure)

    def on_end(self, state: TrainingState) -> None:
        if self._shown is not None:  # or the notebook would show the figure once more at the end of the cell
            from matplotlib import pyplot

            pyplot.close(self.ax.figure)

    def _show(self, figure: Any) -> None:
        import matplotlib

        if "inline" not in matplotlib.get_backend():
            figure.canvas.draw_idle()
            figure.canvas.flush_events()
        elif self._shown is not None:
            self._shown.update(figure)
        else:
            from IPython.display import display

            self._shown = display(figure, display_id=True)


def activation(
    function: Callable[[Tensor], Tensor], low: float = -4.0, high: float = 4.0, *, count: int = 401, ax: Any = None
) -> Any:
    """y = f(x) and, dashed, dy/dx from the tape.

    Args:
        function: elementwise: a function such as ``layers.gelu``, or a module such as ``layers.GELU()``.
        low, high: ends of the x axis.
        count: places at which it is computed.
        ax: the axis to draw on.
    Raises:
        ValueError: the result has another shape than x, or the range is empty.
    """
    if not low < high:
        raise ValueError(f"activation: low must be below high, got low={low}, high={high}")
    name, place = getattr(function, "__name__", type(function).__name__), None
    if isinstance(function, Module):  # a copy, so that its parameters get no gradient from here
        place = device_of(function)
        function = copy.deepcopy(function).eval()
    xp, count = _xp(), length("activation", "count", count, 2)
    places = xp.linspace(low, high, count).astype("float32")
    x = as_tensor(places, device=place)
    with no_grad():
        y = function(x)
    if y.shape != x.shape:
        raise ValueError(f"activation: function must be elementwise, {x.shape} became {y.shape}")
    slope = grad(lambda x: function(x).sum())(x)
    ax = _axis("activation", ax)
    ax.axhline(0.0, color="0.85", linewidth=0.8, zorder=0)
    ax.axvline(0.0, color="0.85", linewidth=0.8, zorder=0)
    ax.plot(places, y.to_numpy(), label=name)
    ax.plot(places, slope.to_numpy(), "--", label="derivative")
    ax.set_xlabel("x")
    ax.legend()
    return ax


def decision_boundary(model: Any, x: Any, labels: Any = None, *, count: int = 200, ax: Any = None) -> Any:
    """The class that a model gives to each point of the plane, as areas; examples as dots over them.

    Args:
        model: a module that maps ``(N, 2)`` to scores ``(N, K)``, or to one logit ``(N,)`` or ``(N, 1)`` whose sign
            decides; or a fitted estimator with ``predict``, whose classes are integers from 0 or stand in ``classes_``.
        x: examples, shape ``(N, 2)``; the picture reaches a little beyond them.
        labels: their classes, as the model gives them, shape ``(N,)``; without them there are no dots.
        count: places along each axis at which the model is asked.
        ax: the axis to draw on.
    """
    xp, points = _xp(), as_host("decision_boundary", "x", x)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"decision_boundary: x must have shape (N, 2), N >= 1, got {points.shape}")
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.05 * (high - low) + 1e-3 * (high == low)
    count = length("decision_boundary", "count", count, 2)
    first, second = (xp.linspace(low[i] - margin[i], high[i] + margin[i], count) for i in (0, 1))
    rows, columns = xp.meshgrid(first, second)
    plane = xp.stack([rows.reshape(-1), columns.reshape(-1)], axis=1).astype("float32")
    names = None if isinstance(model, Module) else getattr(model, "classes_", None)
    classes = _classes(model, plane, names).reshape(rows.shape)
    dots, names = _numbered("decision_boundary", labels, len(points), names)
    number = max(int(classes.max()) + 1, 2, len(names))
    colours = _colours(number)
    ax = _axis("decision_boundary", ax)
    ax.contourf(rows, columns, classes, levels=[k - 0.5 for k in range(number + 1)], colors=colours, alpha=0.35)
    if dots is not None:
        _dots(ax, points, dots, colours, names)
    ax.set_xlabel("$x_1$")
    ax.set_ylabel("$x_2$")
    return ax


def filters(weight: Any, *, image: Sequence[int] | None = None, columns: int | None = None, ax: Any = None) -> Any:
    """The weights of a convolution, or of a linear layer on images, as a grid of small images around 0.

    Red is positive, blue negative, white 0; all share one scale. Filters of three channels are shown in colour, grey
    being 0; of another number of channels each filter is a row, with a column for each channel.

    Args:
        weight: shape ``(F, C, K, K)``, or ``(F, H W)`` with ``image``; or a module with such a ``weight``.
        image: (H, W) or (C, H, W), the shape of the images that a linear layer takes.
        columns: filters in a row of the grid.
        ax: the axis to draw on.
    """
    if isinstance(weight, Module):
        own = getattr(weight, "weight", None)
        if not isinstance(own, Tensor):
            raise TypeError(f"filters: weight must be a tensor or a module that has one, got {type(weight).__name__}")
        weight = own
    values = as_host("filters", "weight", weight)
    if image is not None:
        shape = tuple(length("filters", "image", n, 1) for n in image)
        if values.ndim != 2 or len(shape) not in (2, 3) or math.prod(shape) != values.shape[1]:
            raise ValueError(
                f"filters: image must be (H, W) or (C, H, W) for a weight (F, C H W), got {image} for {values.shape}"
            )
        values = values.reshape(len(values), *((1,) if len(shape) == 2 else ()), *shape)
    if values.ndim != 4:
        raise ValueError(f"filters: weight must have shape (F, C, K, K), or image must be given, got {values.shape}")
    channels = values.shape[1]
    if channels == 3:
        greatest = float(abs(values).max()) or 1.0
        return image_grid(0.5 + values / (2.0 * greatest), columns=columns, ax=ax)
    if channels > 1:
        values, columns = values.reshape(-1, 1, *values.shape[2:]), channels
    return image_grid(values, columns=columns, signed=True, ax=ax)


def attention_map(
    weights: Any, queries: Sequence[str] | None = None, keys: Sequence[str] | None = None, *, ax: Any = None
) -> Any:
    """How much each query (row) attends to each key (column), from 0 to 1.

    Args:
        weights: shape ``(Tq, Tk)``, such as one example of what ``MultiheadAttention`` gives beside its output.
        queries, keys: a word for each row and each column.
        ax: the axis to draw on.
    """
    values = as_host("attention_map", "weights", weights)
    if values.ndim != 2:
        raise ValueError(f"attention_map: weights must have shape (Tq, Tk), got {values.shape}; pick example and head")
    for name, words, count in (("queries", queries, values.shape[0]), ("keys", keys, values.shape[1])):
        if words is not None and len(words) != count:
            raise ValueError(f"attention_map: {name} must be {count} words for {values.shape}, got {len(words)}")
    ax = _axis("attention_map", ax)
    drawn = ax.imshow(values, cmap="viridis", vmin=0.0, vmax=1.0)
    if keys is not None:
        ax.set_xticks(range(len(keys)), keys, rotation=90)
    if queries is not None:
        ax.set_yticks(range(len(queries)), queries)
    ax.set_xlabel("key")
    ax.set_ylabel("query")
    ax.figure.colorbar(drawn, ax=ax, label="weight")
    return ax


def confusion_matrix(predicted: Any, labels: Any, names: Sequence[str] | None = None, *, ax: Any = None) -> Any:
    """How often each true class (row) was taken for each class (column), by scikit-learn's display.

    Args:
        predicted: scores ``(N, K)`` or classes ``(N,)``, as for :func:`lamella.training.confusion_matrix`.
        labels: the true classes, shape ``(N,)``.
        names: one for each class.
        ax: the axis to draw on.
    """
    matrix = count_confusions(predicted, labels, None if names is None else len(names))
    ax = _axis("confusion_matrix", ax)
    try:
        from sklearn.metrics import ConfusionMatrixDisplay
    except ModuleNotFoundError as error:
        raise _missing("confusion_matrix", "scikit-learn") from error
    display = ConfusionMatrixDisplay(matrix, display_labels=names)
    display.plot(ax=ax, cmap="Blues", colorbar=False, xticks_rotation=90 if names is not None else 0)
    return ax


def latent_space(codes: Any, labels: Any = None, *, axes: tuple[int, int] = (0, 1), ax: Any = None) -> Any:
    """Two coordinates of the codes of examples, coloured by class.

    Args:
        codes: shape ``(N, D)``, D at least 2, such as the output of an encoder.
        labels: classes, shape ``(N,)``: integers from 0, each of which keeps its colour, or values of any kind.
        axes: which two coordinates.
        ax: the axis to draw on.
    """
    points = as_host("latent_space", "codes", codes)
    if points.ndim != 2 or points.shape[1] < 2:
        raise ValueError(f"latent_space: codes must have shape (N, D) with D >= 2, got {points.shape}")
    if len(axes) != 2:
        raise ValueError(f"latent_space: axes must be two of 0 … {points.shape[1] - 1}, got {axes}")
    first, second = axes
    for axis in (first, second):
        if not 0 <= axis < points.shape[1]:
            raise ValueError(f"latent_space: axes must be two of 0 … {points.shape[1] - 1}, got {axes}")
    classes, names = _numbered("latent_space", labels, len(points))
    ax = _axis("latent_space", ax)
    _dots(ax, points[:, [first, second]], classes, _colours(max(1, len(names))), names)
    ax.set_xlabel(f"$h_{{{first + 1}}}$")
    ax.set_ylabel(f"$h_{{{second + 1}}}$")
    return ax


def image_grid(
    images: Any,
    *,
    columns: int | None = None,
    low: float | None = None,
    high: float | None = None,
    signed: bool = False,
    ax: Any = None,
) -> Any:
    """Images side by side, row by row, as one picture.

    Args:
        images: shape ``(N, H, W)``, ``(N, 1, H, W)`` or, in colour from 0 to 1, ``(N, 3, H, W)``.
        columns: images in a row; by default the grid is about square.
        low, high: values shown black and white; by default the least and the greatest that occur.
        signed: show values around 0: red positive, blue negative, both ends at the greatest size.
        ax: the axis to draw on.
    """
    values = as_host("image_grid", "images", images)
    if values.ndim == 3:
        values = values[:, None]
    if values.ndim != 4 or values.shape[1] not in (1, 3) or not values.size:
        raise ValueError(
            f"image_grid: images must have shape (N, H, W), (N, 1, H, W) or (N, 3, H, W), got {values.shape}"
        )
    count, channels, height, width = values.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else length("image_grid", "columns", columns, 1)
    columns = min(columns, count)
    rows = -(-count // columns)
    xp = _xp()
    values = values.astype("float32")
    picture = xp.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels), xp.nan, "float32")
    for i in range(count):
        top, left = i // columns * (height + _GAP), i % columns * (width + _GAP)
        picture[top : top + height, left : left + width] = values[i].transpose(1, 2, 0)
    ax = _axis("image_grid", ax)
    if channels == 3:
        ax.imshow(xp.clip(xp.nan_to_num(picture, nan=1.0), 0.0, 1.0))
    else:
        if signed:
            high = float(xp.nanmax(abs(values))) or 1.0
            low = -high
        ax.imshow(picture[..., 0], cmap="RdBu_r" if signed else "gray", vmin=low, vmax=high)
    ax.set_facecolor("0.75" if signed else "white")
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


def _axis(caller: str, ax: Any) -> Any:
    """The axis given, or that of a new figure."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise _missing(caller, "matplotlib") from error
    return pyplot.subplots(layout="constrained")[1]


def _missing(caller: str, library: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"{caller} draws with {library}, which is not installed: pip install 'lamella[plot]'")


def _classes(model: Any, plane: Array, names: Any) -> Array:
    """The class of each point, int64 on the host; by its place in ``names``, where they are given."""
    if not isinstance(model, Module):
        predicted = _xp().asarray(model.predict(plane))
        return predicted.astype("int64") if names is None else _xp().searchsorted(names, predicted)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            scores = as_host("decision_boundary", "scores", model(as_tensor(plane, device=device_of(model))))
    finally:
        for module, mode in modes:
            module.training = mode
    if scores.ndim == 2 and scores.shape[1] > 1:
        return scores.argmax(axis=1)
    return (scores.reshape(-1) > 0).astype("int64")


def _colours(number: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["tab10" if number <= 10 else "tab20"](k % 20) for k in range(number)]


def _numbered(caller: str, labels: Any, count: int, names: Any = None) -> tuple[Any, list[str]]:
    """The class of each of ``count`` examples as a number from 0, and the classes' names; none without labels."""
    if labels is None:
        return None, []
    values, xp = as_host(caller, "labels", labels), _xp()
    if values.shape != (count,):
        raise ValueError(f"{caller}: labels must be one for each of {count} examples, got shape {values.shape}")
    if names is None and values.dtype.kind in "iu" and values.min(initial=0) >= 0:
        return values, [str(k) for k in range(int(values.max(initial=0)) + 1)]
    names = xp.unique(values) if names is None else xp.asarray(names)
    unknown = values[~xp.isin(values, names)]
    if unknown.size:
        raise ValueError(f"{caller}: labels must be classes of the model, {names.tolist()}, got {unknown[0]!r}")
    return xp.searchsorted(names, values), [str(name) for name in names.tolist()]


def _dots(ax: Any, points: Array, labels: Any, colours: list[Any], names: list[str]) -> None:
    """Dots by class with a legend; all alike where ``labels`` is None."""
    for k, colour in enumerate(colours):
        chosen = points if labels is None else points[labels == k]
        if len(chosen):
            name = names[k] if k < len(names) else None
            ax.scatter(chosen[:, 0], chosen[:, 1], s=14, color=[colour], edgecolors="white", linewidths=0.3, label=name)
    if names:
        ax.legend(title="class", markerscale=1.5)


def _xp() -> Any:
    return backend_for("cpu").xp
