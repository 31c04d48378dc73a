"""The claims of ``examples/lectures/rbm.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import models


@pytest.fixture(scope="module")
def found(lecture: ModuleType) -> dict[str, Any]:
    """What the lecture measures as it stands, once for all tests."""
    return lecture.measure(rng=lamella.Generator(0))


def test_the_exact_gradient_raises_the_likelihood_at_each_step(lecture: ModuleType) -> None:
    data = np.eye(4, dtype="float32")
    rbm = models.RBM(4, 4, rng=lamella.Generator(0)).to(dtype="float64")
    lamella.layers.init.assign(rbm.weight, lamella.Generator(1).normal((4, 4), 0.0, 0.3))
    curve = lecture.learn(
        rbm, data.astype("float64"), "exact gradient", 40, 0.5, lamella.Generator(2), data.astype("float64")
    )
    assert len(curve) == 40
    assert (np.diff(curve) > 0).all()


@pytest.mark.parametrize(("how", "steps"), [("CD-1", 1), ("CD-10", 10), ("persistent CD", 1)])
def test_chains_begin_at_the_data_or_never_end(lecture: ModuleType, how: str, steps: int) -> None:
    ends: list[Any] = [None]

    class Watched(models.RBM):
        def contrastive_divergence(self, v: Any, chain: Any = None, **options: Any) -> Any:
            assert chain is (ends[-1] if how == "persistent CD" else None)
            assert options == {"steps": steps}
            loss, end = super().contrastive_divergence(v, chain, **options)
            ends.append(end)
            return loss, end

    rbm = Watched(4, 2, rng=lamella.Generator(0))
    lecture.learn(rbm, np.eye(4, dtype="float32"), how, 3, 0.1, lamella.Generator(1))
    assert len(ends) == 4


@pytest.mark.slow
def test_neither_contrastive_divergence_is_the_gradient_and_both_end_far_above(found: dict[str, Any]) -> None:
    exact = found["exact gradient"]
    assert (np.diff(exact) > 0).all()
    assert exact[-1] < -np.log(14)
    for how in ("CD-1", "CD-10", "persistent CD"):
        assert found[how][0] == pytest.approx(exact[0])
        assert np.diff(found[how]).min() < 0
        assert found[how][-1] > exact[0] + 2.5
        assert found[how][-1] > exact[-1] - 1.0


@pytest.mark.slow
def test_digits_are_more_likely_than_under_independent_pixels(found: dict[str, Any]) -> None:
    assert found["independent"] == pytest.approx(-24.49, abs=0.01)
    assert found["bernoulli"][-1] > found["independent"] + 4
    assert found["gaussian"][-1] > found["gaussian"][0] + 3


@pytest.mark.slow
def test_samples_are_as_near_to_digits_as_other_digits_are(found: dict[str, Any]) -> None:
    """The distance to the nearest digit; pixels drawn independently with the same means are further away."""
    digits = lamella.training.digits()[0]
    binary = (digits > 0.5).astype("float64")
    samples = (found["samples"].reshape(-1, 64) > 0.5).astype("float64")
    noise = np.random.default_rng(0).random(samples.shape) < binary.mean(axis=0)

    def nearest(images: np.ndarray) -> float:
        return float(abs(images[:, None] - binary[None]).sum(axis=2).min(axis=1).mean())

    assert nearest(samples) < 0.75 * nearest(noise.astype("float64"))
