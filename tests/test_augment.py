"""Random changes of images: each by its definition, the same on every device, and the same again from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import Generator, training
from lamella.backend import Device

CHANGES: dict[str, Callable[[Any, Generator], Any]] = {
    "flip": lambda x, rng: training.random_flip(x, rng=rng),
    "crop": lambda x, rng: training.random_crop(x, (3, 4), padding=(0, 2), fill=-1.0, rng=rng),
    "shift": lambda x, rng: training.random_shift(x, (2, 1), rng=rng),
    "cutout": lambda x, rng: training.cutout(x, (2, 3), fill=0.5, rng=rng),
}


def images(number: int = 40, channels: int = 2, height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 2, (number, channels, height, width)).astype("float32")


def test_flips_mirror_about_so_many_images_and_leave_the_others() -> None:
    x = images(1000)
    y = training.random_flip(x, rng=Generator(1), p=0.3)
    mirrored = (y == x[..., ::-1]).all(axis=(1, 2, 3))
    assert (mirrored ^ (y == x).all(axis=(1, 2, 3))).all()
    assert abs(mirrored.mean() - 0.3) <= 4 * (0.3 * 0.7 / 1000) ** 0.5
    np.testing.assert_array_equal(training.random_flip(x, rng=Generator(1), p=0), x)
    np.testing.assert_array_equal(training.random_flip(x, rng=Generator(1), p=1), x[..., ::-1])


@pytest.mark.parametrize(("size", "padding"), [((3, 4), (0, 2)), (5, 0), ((1, 1), 0), ((9, 7), (2, 0)), (3, 2)])
def test_crops_are_windows_of_the_bordered_image_at_every_place_equally_often(size: Any, padding: Any) -> None:
    x = images(2000)
    y = training.random_crop(x, size, padding=padding, fill=-1.0, rng=Generator(2))
    (h, w), (rows, columns) = np.broadcast_to(size, 2), np.broadcast_to(padding, 2)
    bordered = np.pad(x, ((0, 0), (0, 0), (rows, rows), (columns, columns)), constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(bordered, (h, w), axis=(2, 3))  # (N, C, places, places, h, w)
    same = (windows == y[:, :, None, None]).all(axis=(1, 4, 5))  # (N, places, places)
    assert same.any(axis=(1, 2)).all()
    once = same[same.sum(axis=(1, 2)) == 1]  # a window of border alone is found at several places
    share = once.mean(axis=0)
    assert abs(share - share.mean()).max() <= 5 * (share.mean() / len(once)) ** 0.5


def test_a_shift_of_one_pixel_has_nine_outcomes_and_fills_what_comes_in() -> None:
    x = np.arange(1, 10, dtype="float32").reshape(1, 1, 3, 3).repeat(300, axis=0)
    y = training.random_shift(x, 1, rng=Generator(0), fill=0)
    outcomes = {tuple(image.reshape(-1).astype(int).tolist()) for image in y}
    bordered = np.pad(x[0, 0].astype(int), 1)
    assert outcomes == {tuple(bordered[i : i + 3, j : j + 3].reshape(-1).tolist()) for i in range(3) for j in range(3)}


def test_cutout_blanks_a_rectangle_whose_centre_is_in_the_image() -> None:
    x = images(500)
    y = training.cutout(x, (3, 2), rng=Generator(3))
    seen = set()
    for before, after in zip(x, y, strict=True):
        blank = (after == 0).all(axis=0)
        np.testing.assert_array_equal(after, np.where(blank, 0, before))
        r, c = np.nonzero(blank)
        assert blank[r.min() : r.max() + 1, c.min() : c.max() + 1].all()
        seen.add((r.min().item(), r.max().item(), c.min().item(), c.max().item()))
    centres = ((i, j) for i in range(5) for j in range(7))
    assert seen == {(max(0, i - 1), min(4, i + 1), max(0, j - 1), min(6, j)) for i, j in centres}


def test_normalize_is_its_formula_for_each_channel(device: Device) -> None:
    x = images()
    found = training.normalize(lamella.tensor(x, device=device), [1.5, 0.5], [0.5, 2.0])
    assert found.device == device
    assert found.dtype == "float32"
    expected = (x.astype("float64") - np.array([1.5, 0.5])[:, None, None]) / np.array([0.5, 2.0])[:, None, None]
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_the_same_on_every_device_and_leave_their_input(name: str, device: Device) -> None:
    x = images()
    given = lamella.tensor(x, device=device)
    found = CHANGES[name](given, Generator(5))
    assert isinstance(found, lamella.Tensor)
    assert found.device == device
    assert found.dtype == "float32"
    np.testing.assert_array_equal(given.to_numpy(), x)
    on_host = CHANGES[name](x, Generator(5))
    assert isinstance(on_host, np.ndarray)
    np.testing.assert_array_equal(found.to_numpy(), on_host)
    assert not np.array_equal(on_host, CHANGES[name](x, Generator(6)))


@pytest.mark.parametrize("name", CHANGES)
def test_changes_take_other_layouts_dtypes_and_no_images(name: str) -> None:
    x = images()
    expected = CHANGES[name](x, Generator(5))
    last = lamella.tensor(x).channels_last()
    np.testing.assert_array_equal(CHANGES[name](last, Generator(5)).to_numpy(), expected)
    backwards = x[::-1]
    np.testing.assert_array_equal(CHANGES[name](backwards, Generator(5)), CHANGES[name](backwards.copy(), Generator(5)))
    assert CHANGES[name](x.astype("float64"), Generator(5)).dtype == np.float64
    assert CHANGES[name](x[:0], Generator(5)).shape == (0, *expected.shape[1:])


def test_pixels_in_bytes_stay_bytes() -> None:
    x = np.arange(2 * 9, dtype="uint8").reshape(2, 1, 3, 3)
    assert training.random_shift(x, 1, rng=Generator(0)).dtype == np.uint8
    assert training.cutout(x, 1, rng=Generator(0), fill=255).dtype == np.uint8


ERRORS: list[tuple[Callable[[np.ndarray], Any], type[Exception], str]] = [
    (lambda x: training.random_flip(x[0], rng=Generator(0)), ValueError, "random_flip: x must be images of shape"),
    (lambda x: training.random_flip(x, rng=Generator(0), p=1.5), ValueError, "p must be in 0 … 1, got 1.5"),
    (lambda x: training.random_flip(x, rng=0), TypeError, "random_flip: rng must be a lamella.Generator"),
    (lambda x: training.random_crop(x, 8, rng=Generator(0)), ValueError, "at most image and padding, 5 x 7, got 8 x 8"),
    (lambda x: training.random_crop(x, (1, 2, 3), rng=Generator(0)), ValueError, r"size must be one number or two"),
    (lambda x: training.random_shift(x, -1, rng=Generator(0)), ValueError, "pixels must be at least 0, got -1"),
    (lambda x: training.cutout(x, 1.5, rng=Generator(0)), TypeError, "cutout: size must be an integer, got 1.5"),
    (lambda x: training.normalize(x, [0.5], [1, 1]), ValueError, "mean must have one number for each of 2 channels"),
    (lambda x: training.normalize(x, [0, 0], [1, 0]), ValueError, r"std must be above 0, got \[1, 0\]"),
    (lambda x: training.normalize(x.astype(int), [0, 0], [1, 1]), TypeError, "x must be floating, got int64"),
    (lambda x: training.random_flip([[1]], rng=Generator(0)), TypeError, "list"),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_what_cannot_be_is_said(call: Callable[[np.ndarray], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(images())


# -- in batches and in fit ---------------------------------------------------------------------------------------------
def test_batches_change_each_batch_by_a_stream_of_its_own(device: Device) -> None:
    x, y = images(10), np.arange(10)
    given = (lamella.tensor(x, device=device), lamella.tensor(y, device=device))
    rng = Generator(4)
    passes = [list(training.batches(*given, batch_size=4, rng=rng, augment=CHANGES["shift"])) for _ in range(2)]
    again = Generator(4)
    for batches in passes:
        order, changes = again.permutation(10), again.spawn()
        for i, (images_, labels) in enumerate(batches):
            chosen = order[4 * i : 4 * i + 4]
            np.testing.assert_array_equal(labels.to_numpy(), chosen)
            np.testing.assert_array_equal(images_.to_numpy(), CHANGES["shift"](x[chosen], changes.split(i)))


def trained(x: np.ndarray, y: np.ndarray, epochs: int, **options: Any) -> dict[str, np.ndarray]:
    model = L.Sequential(L.Flatten(), L.Linear(70, 10, rng=Generator(0)))
    optimizer = training.SGD(model.parameters(), lr=0.1)
    training.fit(
        model, (x, y), loss=L.cross_entropy, optimizer=optimizer, epochs=epochs, batch_size=4, progress=False, **options
    )
    return {name: np.array(value) for name, value in model.state_dict().items()}


def test_fit_learns_from_the_same_batches_as_the_loop_written_out() -> None:
    x, y, model = images(10), np.arange(10), L.Sequential(L.Flatten(), L.Linear(70, 10, rng=Generator(0)))
    optimizer, rng = training.SGD(model.parameters(), lr=0.1), Generator(7)
    for _ in range(2):
        for inputs, labels in training.batches(x, y, batch_size=4, rng=rng, augment=CHANGES["shift"]):
            loss = L.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = trained(x, y, 2, rng=Generator(7), augment=CHANGES["shift"])
    assert not np.array_equal(found["1.weight"], trained(x, y, 2, rng=Generator(7))["1.weight"])
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(found[name], value)


def test_an_interrupted_run_draws_the_same_changes_again(tmp_path: Path) -> None:
    x, y = images(10), np.arange(10)
    whole = trained(x, y, 3, rng=Generator(7), augment=CHANGES["shift"])

    class Stop(Exception):
        pass

    calls = []

    def until(x: Any, rng: Generator) -> Any:
        calls.append(1)
        if len(calls) == 6:  # in the second epoch, after the checkpoint of its second step
            raise Stop
        return CHANGES["shift"](x, rng)

    options: dict[str, Any] = {"checkpoint": tmp_path / "run.safetensors", "every": 1}
    with pytest.raises(Stop):
        trained(x, y, 3, rng=Generator(7), augment=until, **options)
    resumed = trained(x, y, 3, rng=Generator(8), augment=CHANGES["shift"], resume=True, **options)
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value)


def test_validation_images_are_not_changed() -> None:
    x, y, model = images(8), np.arange(8), L.Sequential(L.Flatten(), L.Linear(70, 10, rng=Generator(0)))
    history = training.fit(
        model, (x, y), loss=L.cross_entropy, optimizer=training.SGD(model.parameters(), lr=0.0), epochs=2,
        validation=(x, y), rng=Generator(0), augment=CHANGES["cutout"], progress=False,
    )  # fmt: skip
    plain = training.evaluate(model, (x, y), loss=L.cross_entropy)
    assert history["validation_loss"] == [plain["loss"]] * 2
    assert len({*history["loss"], plain["loss"]}) == 3


def fit_with(data: Any, augment: Any) -> None:
    model = L.Linear(70, 10)
    optimizer = training.SGD(model.parameters())
    training.fit(model, data, loss=L.cross_entropy, optimizer=optimizer, epochs=1, augment=augment)


X, Y = images(4).reshape(4, 70), np.arange(4)
MISUSE: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: fit_with((X, Y), 3), TypeError, r"fit: augment must be a function augment\(x, rng\), got 3"),
    (lambda: fit_with([(X, Y)], CHANGES["flip"]), ValueError, r"fit: augment needs data to be a pair"),
    (lambda: fit_with((X, Y), lambda x, rng: x[:2]), ValueError, r"tensor of 4 examples, got shape \(2, 70\)"),
    (lambda: fit_with((X, Y), lambda x, rng: None), ValueError, "tensor of 4 examples, got NoneType"),
    (lambda: training.batches(X, batch_size=2, augment=CHANGES["flip"]), ValueError, "batches: augment needs rng"),
    (lambda: training.batches(X, batch_size=2, rng=Generator(0), augment=1), TypeError, "batches: augment must be a"),
]


@pytest.mark.parametrize(("call", "kind", "message"), MISUSE)
def test_a_change_that_is_none_is_said(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("change", [training.random_crop, training.random_shift, training.cutout])
def test_bytes_are_filled_with_bytes(change: Any) -> None:
    """NumPy would cut 0.5 down to 0 without a word."""
    x = np.full((4, 1, 3, 3), 9, "uint8")
    options = {"padding": 2} if change is training.random_crop else {}
    assert set(np.unique(change(x, 3, rng=Generator(0), fill=255.0, **options))) == {9, 255}
    for fill in (0.5, 300, -1):
        message = rf"fill must be a whole number in 0 … 255 for uint8, got {fill}"
        with pytest.raises(ValueError, match=message):
            change(x, 3, rng=Generator(0), fill=fill, **options)
