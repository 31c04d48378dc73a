"""Pictures hold the numbers that they claim to show: lines, areas, images and words, not pixels."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import models, training
from lamella.backend import Device
from lamella.interop import plot

matplotlib.use("Agg")
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Figures do not stay open from one test to the next."""
    yield
    pyplot.close("all")


def history(**figures: list[float]) -> training.History:
    names = list(figures)
    return training.History([dict(zip(names, values, strict=True)) for values in zip(*figures.values(), strict=True)])


def lines(ax: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {line.get_label(): line.get_data() for line in ax.get_lines()}


def test_loss_curves_have_a_line_for_training_and_one_for_validation_over_epochs_from_1() -> None:
    ax = plot.loss_curves(history(loss=[3.0, 2.0, 1.5], validation_loss=[3.5, 2.5, 2.25], seconds=[9.0, 9.0, 9.0]))
    drawn = lines(ax)
    assert set(drawn) == {"loss", "validation loss"}
    np.testing.assert_array_equal(drawn["loss"], [[1, 2, 3], [3.0, 2.0, 1.5]])
    np.testing.assert_array_equal(drawn["validation loss"], [[1, 2, 3], [3.5, 2.5, 2.25]])
    assert ax.get_xlabel() == "epoch"


def test_a_function_draws_on_the_axis_that_it_is_given_and_returns_it() -> None:
    _, axes = pyplot.subplots(1, 2)
    numbers = len(pyplot.get_fignums())
    assert plot.loss_curves(history(seconds=[1.0, 2.0]), ["seconds"], ax=axes[1]) is axes[1]
    assert not axes[0].get_lines()
    assert len(axes[1].get_lines()) == 1
    assert len(pyplot.get_fignums()) == numbers


def test_loss_curves_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="loss_curves: history must hold at least one epoch, got none"):
        plot.loss_curves(training.History())
    with pytest.raises(TypeError, match="history must be a History, as fit returns it, got list"):
        plot.loss_curves([1.0])  # type: ignore[arg-type]


def train(callback: training.Callback, epochs: int = 3) -> training.History:
    model = models.mlp(2, 1, rng=lamella.Generator(0))
    x, y = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
    return training.fit(
        model,
        (x, y),
        loss=L.mse_loss,
        optimizer=training.SGD(model.parameters(), lr=0.1),
        epochs=epochs,
        callbacks=[callback],
        progress=False,
    )


def test_live_curves_show_each_epoch_when_it_is_over() -> None:
    _, ax = pyplot.subplots()
    seen = []
    ax.figure.canvas.mpl_connect("draw_event", lambda event: seen.append(len(lines(ax)["loss"][0])))
    run = train(plot.LiveCurves(["loss"], ax=ax))
    assert seen == [1, 2, 3]
    np.testing.assert_array_equal(lines(ax)["loss"][1], run["loss"])


def test_live_curves_replace_one_picture_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    handle = types.SimpleNamespace(update=lambda figure: shown.append("updated"))

    def display(figure: Any, display_id: bool) -> Any:
        shown.append("new")
        return handle

    module = types.ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    live = plot.LiveCurves()
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    train(live)
    assert shown == ["new", "updated", "updated"]
    assert not pyplot.get_fignums()


def test_activation_and_its_derivative_are_those_of_the_formula() -> None:
    drawn = lines(plot.activation(L.sigmoid, -3, 3, count=31))
    x = np.linspace(-3, 3, 31)
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(drawn["sigmoid"], [x, s], atol=1e-6)
    np.testing.assert_allclose(drawn["derivative"], [x, s * (1 - s)], atol=1e-6)


def test_activation_of_a_module_leaves_its_parameters_without_a_gradient(device: Device) -> None:
    module = L.PReLU().to(device)
    drawn = lines(plot.activation(module, -1, 1, count=4))
    assert module.weight.grad is None
    np.testing.assert_allclose(drawn["derivative"][1], [0.25, 0.25, 1, 1])


def test_activation_refuses_what_is_not_elementwise() -> None:
    with pytest.raises(ValueError, match=r"function must be elementwise, \(401,\) became \(\)"):
        plot.activation(lambda x: x.sum())
    with pytest.raises(ValueError, match="low must be below high, got low=1, high=1"):
        plot.activation(L.relu, 1, 1)


def colour_at(ax: Any, x: float, y: float) -> tuple[float, ...]:
    """The colour of the area that holds a point."""
    (areas,) = ax.collections[:1]
    for path, colour in zip(areas.get_paths(), areas.get_facecolor(), strict=False):
        if path.contains_point((x, y)):
            return tuple(colour[:3])
    raise AssertionError(f"({x}, {y}) lies in no area")


@pytest.mark.parametrize("outputs", [1, 3])
def test_decision_boundary_shows_the_model_s_class(outputs: int, device: Device) -> None:
    """Class 0 left of x1 = 0.5 and class 1 right of it, by a linear model; class 2 never."""
    model = L.Sequential(L.Dropout(0.9, rng=lamella.Generator(1)), L.Linear(2, outputs, rng=lamella.Generator(0)))
    weight = np.float32([[1, 0]] if outputs == 1 else [[-1, 0], [1, 0], [0, 0]])
    bias = np.float32([-0.5] if outputs == 1 else [0.5, -0.5, -9])
    model.load_state_dict({"1.weight": weight, "1.bias": bias})
    model.to(device)
    x = lamella.tensor(np.float32([[0, 0], [1, 1], [0.2, 1], [0.9, 0]]), device=device)
    ax = plot.decision_boundary(model, x, np.array([0, 1, 0, 1]), count=21)
    assert model.training
    left, right = colour_at(ax, 0.1, 0.6), colour_at(ax, 0.9, 0.4)
    assert left != right
    assert colour_at(ax, 0.4, 0.9) == left
    assert colour_at(ax, 0.6, 0.1) == right
    dots = {dot.get_label(): dot for dot in ax.collections[1:]}
    assert set(dots) == {"0", "1"}
    np.testing.assert_allclose(dots["1"].get_offsets(), [[1, 1], [0.9, 0]])
    assert tuple(dots["1"].get_facecolor()[0, :3]) == right


def test_decision_boundary_takes_a_fitted_estimator() -> None:
    class Halves:
        def predict(self, x: np.ndarray) -> np.ndarray:
            return (x[:, 1] > 0.5).astype(int)

    ax = plot.decision_boundary(Halves(), np.float32([[0, 0], [1, 1]]), count=21)
    assert len(ax.collections) == 1
    assert colour_at(ax, 0.5, 0.1) != colour_at(ax, 0.5, 0.9)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 2\), N >= 1, got \(2, 3\)"):
        plot.decision_boundary(Halves(), np.zeros((2, 3)))


@pytest.mark.parametrize("classes", [np.array(["no", "yes"]), np.array([-1, 1]), np.array([3, 8])])
def test_decision_boundary_takes_the_classes_of_an_estimator_as_they_are(classes: np.ndarray) -> None:
    class Halves:
        classes_ = classes

        def predict(self, x: np.ndarray) -> np.ndarray:
            return classes[(x[:, 1] > 0.5).astype(int)]

    points = np.float32([[0, 0], [1, 1], [1, 0.9]])
    ax = plot.decision_boundary(Halves(), points, classes[[0, 1, 1]], count=21)
    dots = {dot.get_label(): dot for dot in ax.collections[1:]}
    assert list(dots) == [str(name) for name in classes]
    np.testing.assert_allclose(dots[str(classes[1])].get_offsets(), points[1:])
    assert colour_at(ax, 0.5, 0.9) == tuple(dots[str(classes[1])].get_facecolor()[0, :3])
    assert colour_at(ax, 0.5, 0.1) == tuple(dots[str(classes[0])].get_facecolor()[0, :3])
    with pytest.raises(ValueError, match="labels must be classes of the model"):
        plot.decision_boundary(Halves(), points, np.array([7, 7, 7]))
    with pytest.raises(ValueError, match=r"labels must be one for each of 3 examples, got shape \(2,\)"):
        plot.decision_boundary(Halves(), points, classes)


def picture(ax: Any) -> np.ndarray:
    (image,) = ax.get_images()
    return np.ma.filled(np.ma.asarray(image.get_array(), "float64"), np.nan)


def test_image_grid_puts_images_row_by_row_with_a_gap_between() -> None:
    images = np.arange(18, dtype="float32").reshape(3, 2, 3)
    drawn = picture(plot.image_grid(images, columns=2))
    expected = np.full((5, 7), np.nan)
    expected[:2, :3], expected[:2, 4:], expected[3:, :3] = images
    np.testing.assert_array_equal(drawn, expected)


def test_image_grid_of_colours_and_of_any_device(device: Device) -> None:
    images = np.random.default_rng(0).random((2, 3, 2, 2), "float32")
    drawn = picture(plot.image_grid(lamella.tensor(images, device=device), columns=5))
    assert drawn.shape == (2, 5, 3)
    np.testing.assert_allclose(drawn[:, 3:], images[1].transpose(1, 2, 0))
    with pytest.raises(ValueError, match=r"images must have shape .*got \(2, 2, 5, 5\)"):
        plot.image_grid(np.zeros((2, 2, 5, 5)))


def test_filters_share_one_scale_around_zero(device: Device) -> None:
    conv = L.Conv2d(1, 4, 3, rng=lamella.Generator(0)).to(device)
    ax = plot.filters(conv)
    weight = conv.weight.to_numpy()
    np.testing.assert_array_equal(picture(ax)[4:, 4:], weight[3, 0])
    low, high = ax.get_images()[0].get_clim()
    assert low == -high
    assert high == pytest.approx(abs(weight).max())


def test_filters_of_linear_layers_and_of_many_channels() -> None:
    layer = L.Linear(6, 4, rng=lamella.Generator(0))
    drawn = picture(plot.filters(layer, image=(2, 3)))
    np.testing.assert_array_equal(drawn[:2, 4:], layer.weight.to_numpy()[1].reshape(2, 3))
    many = np.random.default_rng(0).standard_normal((2, 5, 3, 3))
    drawn = picture(plot.filters(many))
    assert drawn.shape == (7, 19)
    np.testing.assert_allclose(drawn[4:, 8:11], many[1, 2], rtol=1e-6)
    colours = picture(plot.filters(many[:, :3]))
    assert colours.shape == (3, 7, 3)
    np.testing.assert_allclose(colours[:, :3], 0.5 + many[0, :3].transpose(1, 2, 0) / (2 * abs(many[:, :3]).max()))
    with pytest.raises(ValueError, match=r"image must be .*got \(2, 2\) for \(4, 6\)"):
        plot.filters(layer, image=(2, 2))
    with pytest.raises(TypeError, match="must be a tensor or a module that has one, got ReLU"):
        plot.filters(L.ReLU())


def test_attention_map_has_the_weights_and_the_words(device: Device) -> None:
    weights = np.float32([[1, 0, 0], [0.25, 0.25, 0.5]])
    ax = plot.attention_map(lamella.tensor(weights, device=device), ["je", "suis"], ["I", "am", "here"])
    np.testing.assert_array_equal(picture(ax), weights)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["I", "am", "here"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["je", "suis"]
    assert ax.get_images()[0].get_clim() == (0, 1)
    with pytest.raises(ValueError, match="queries must be 2 words"):
        plot.attention_map(weights, ["one"])
    with pytest.raises(ValueError, match="pick example and head"):
        plot.attention_map(weights[None])


def test_confusion_matrix_counts_true_classes_in_rows(device: Device) -> None:
    scores = lamella.tensor(np.float32([[2, 1], [2, 1], [0, 1], [3, 1]]), device=device)
    ax = plot.confusion_matrix(scores, np.array([0, 1, 1, 1]), ["cat", "dog"])
    np.testing.assert_array_equal(picture(ax), [[1, 0], [2, 1]])
    assert [text.get_text() for text in ax.texts] == ["1", "0", "2", "1"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]


def test_latent_space_has_a_colour_for_each_class(device: Device) -> None:
    codes = np.arange(12, dtype="float32").reshape(4, 3)
    ax = plot.latent_space(lamella.tensor(codes, device=device), np.array([0, 2, 2, 0]), axes=(2, 0))
    dots = {dot.get_label(): dot for dot in ax.collections}
    assert set(dots) == {"0", "2"}
    np.testing.assert_array_equal(dots["2"].get_offsets(), codes[1:3][:, [2, 0]])
    assert ax.get_xlabel() == "$h_{3}$"
    with pytest.raises(ValueError, match=r"axes must be two of 0 … 2, got \(0, 3\)"):
        plot.latent_space(codes, axes=(0, 3))


@pytest.mark.parametrize(("labels", "names"), [([-1, 0, 0, -1], {"-1", "0"}), (["b", "a", "a", "b"], {"a", "b"})])
def test_latent_space_loses_no_example_whatever_the_labels_are(labels: list[Any], names: set[str]) -> None:
    ax = plot.latent_space(np.arange(8, dtype="float32").reshape(4, 2), np.array(labels))
    assert {dot.get_label() for dot in ax.collections} == names
    assert sum(len(dot.get_offsets()) for dot in ax.collections) == 4
    with pytest.raises(ValueError, match=r"labels must be one for each of 4 examples, got shape \(1,\)"):
        plot.latent_space(np.zeros((4, 2)), np.zeros(1, int))


@pytest.mark.parametrize(
    ("library", "draw"),
    [
        ("matplotlib", lambda: plot.image_grid(np.zeros((1, 2, 2)))),
        ("sklearn", lambda: plot.confusion_matrix(np.array([0, 1]), np.array([0, 1]))),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_brings_it(
    library: str, draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"not installed: pip install 'lamella\[plot\]'"):
        draw()
