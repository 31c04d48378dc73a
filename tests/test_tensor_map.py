"""The driver's descriptor of an array: what it is asked for. No GPU has made one yet."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from lamella.backend import tensor_map


class _Driver:
    """Keeps what ``cuTensorMapEncodeTiled`` was given, and answers with a status."""

    def __init__(self, status: int) -> None:
        self.status = status

    def cuTensorMapEncodeTiled(self, place, dtype, rank, address, lengths, strides, box, steps, *rest):
        self.given = dtype, rank, address.value, list(lengths), list(strides), list(box), list(steps), rest
        assert place.value % 64 == 0
        ctypes.memmove(place.value, bytes(range(128)), 128)
        return self.status


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> _Driver:
    fake = _Driver(0)
    monkeypatch.setattr(tensor_map, "_driver", lambda: fake)
    tensor_map.encode_tensor_map.cache_clear()
    return fake


def test_axes_go_innermost_first_and_an_axis_of_one_element_has_a_stride(driver: _Driver) -> None:
    found = tensor_map.encode_tensor_map(4096, "bfloat16", (1, 3, 40, 128), (0, 256, 768, 2), (1, 1, 32, 64))
    no_interleave, swizzle_128, promote_256, fill_zeros = 0, 3, 3, 0
    assert driver.given == (
        *(9, 4, 4096, [128, 40, 3, 1], [768, 256, 16], [64, 32, 1, 1], [1, 1, 1, 1]),
        (no_interleave, swizzle_128, promote_256, fill_zeros),
    )
    assert found.shape == (1,)
    assert found.tobytes() == bytes(range(128))
    assert found.dtype == np.dtype("V128")


def test_what_the_driver_refuses_is_an_error_with_the_values(driver: _Driver) -> None:
    driver.status = 1
    with pytest.raises(RuntimeError, match=r"gave error 1 for float16 at 0x1000, shape \(2, 64\), strides \(128, 2\)"):
        tensor_map.encode_tensor_map(4096, "float16", (2, 64), (128, 2), (2, 64))
