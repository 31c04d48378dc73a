"""Wrong values that a kernel met: kept on the device, raised when the host waits for it, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.testing
from lamella.backend import Device, backend_for, fault_kind, fault_record, get_kernel

SOURCE = Path(__file__).parent / "kernels/fault.cu"
MESSAGE = "refuse: values must be in 0 … {last}, below {limit}, got {value}"


def refuse(values: Any, device: Device, message: str = MESSAGE, limit: int = 5) -> Any:
    x = backend_for(device).from_numpy(np.array(values, np.int64), device)
    arguments = (x, fault_record(x), np.int64(x.size), fault_kind(message), np.int64(limit))
    get_kernel(SOURCE, "refuse", (), x)((1,), (32,), arguments)
    return x


@pytest.fixture
def cuda_like(device: Device) -> Device:
    if device.kind == "cpu":
        pytest.skip("on the CPU a wrong value raises at once")
    return device


WAITS: dict[str, Callable[[Any, Device], object]] = {
    "synchronize": lambda x, device: backend_for(device).synchronize(device),
    "to_numpy": lambda x, device: lamella.Tensor(x).to_numpy(),
    "item": lambda x, device: lamella.Tensor(x[:1]).item(),
    "tolist": lambda x, device: lamella.Tensor(x).tolist(),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_fault_is_raised_at_the_next_wait_and_only_there(name: str, cuda_like: Device) -> None:
    x = refuse([0, 7, 2], cuda_like)
    y = x + 1  # nothing is known yet
    with pytest.raises(ValueError, match=rf"refuse: values must be in 0 … 4, below 5, got 7 \(found on {cuda_like}"):
        WAITS[name](y, cuda_like)
    WAITS[name](y, cuda_like)


def test_no_fault_raises_nothing(cuda_like: Device) -> None:
    np.testing.assert_array_equal(lamella.Tensor(refuse([0, 4, 2], cuda_like)).to_numpy(), [0, 4, 2])


def test_the_first_fault_is_kept(cuda_like: Device) -> None:
    x = refuse([-3], cuda_like)
    refuse([9], cuda_like, "another kernel: {value}")
    with pytest.raises(ValueError, match="got -3"):
        lamella.Tensor(x).to_numpy()
    x = refuse([9], cuda_like, "another kernel: {value}")
    with pytest.raises(ValueError, match="another kernel: 9"):
        lamella.Tensor(x).to_numpy()


def test_a_wait_without_a_checking_kernel_reads_nothing() -> None:
    with lamella.testing.simulator() as sim:
        x = refuse([1], lamella.device("simulator"))
        sim.to_numpy(x)
        sim.reset()
        sim.to_numpy(x)
        assert sim.synchronizations == 1
        refuse([1], lamella.device("simulator"))
        assert sim.synchronizations == 1, "a launch must not wait"


def test_a_new_simulator_knows_nothing_of_the_old_one() -> None:
    with lamella.testing.simulator():
        refuse([9], lamella.device("simulator"))
    with lamella.testing.simulator() as sim:
        assert sim.to_numpy(refuse([1], lamella.device("simulator"))).tolist() == [1]
