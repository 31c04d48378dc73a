"""Which array library serves what: registration, devices, the reasons why one is missing, mixed and foreign arrays."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import lamella
from lamella.backend import (
    Backend,
    Device,
    DeviceUnavailableError,
    MixedDevicesError,
    NumpyBackend,
    StepScalars,
    available_devices,
    backend_for,
    backend_names,
    backend_of,
    common_backend,
    current_precision,
    precision,
    register_backend,
    register_loader,
    registry,
    unregister_backend,
    why_unavailable,
)


class ToyArray(np.ndarray):
    place = 0


class ToyBackend(NumpyBackend):
    """A second array library with two devices."""

    name = "toy"
    array_types = (ToyArray,)

    def devices(self) -> tuple[Device, ...]:
        return Device("toy", 0), Device("toy", 1)

    def device_of(self, array: ToyArray) -> Device:
        return Device("toy", array.place)


def toy(place: int) -> ToyArray:
    array = np.ones(3).view(ToyArray)
    array.place = place
    return array


@pytest.fixture
def toy_backend() -> Iterator[ToyBackend]:
    backend = ToyBackend()
    register_backend(backend)
    yield backend
    unregister_backend("toy")


# -- devices and registration ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("cpu", Device("cpu", 0), "cpu"),
        ("cpu:0", Device("cpu", 0), "cpu"),
        ("cpu:1", Device("cpu", 1), "cpu:1"),
        ("cuda", Device("cuda", 0), "cuda:0"),
        ("cuda:13", Device("cuda", 13), "cuda:13"),
        (Device("x", 2), Device("x", 2), "x:2"),
    ],
)
def test_device_names_are_read_and_shown(text: str | Device, expected: Device, shown: str) -> None:
    assert Device.parse(text) == expected
    assert str(expected) == shown
    assert Device.parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["", ":", ":0", "cuda:", "cuda:x", "cuda:-1", "cuda:1.5", "cuda:0:1", "cuda: 1"])
def test_unreadable_device_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"device must read 'kind' or 'kind:index' .* got '{text}'"):
        lamella.device(text)


@pytest.mark.parametrize("value", [None, 0, b"cpu"])
def test_a_device_is_a_string_or_a_device(value: object) -> None:
    with pytest.raises(TypeError, match="device must be a string such as 'cpu' or 'cuda:0', or a Device, got "):
        lamella.device(value)


def test_unknown_kinds_and_indices_name_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"device kind must be one of cpu, cuda.*got 'tpu'"):
        lamella.device("tpu")
    with pytest.raises(DeviceUnavailableError, match=r"device cpu:1 does not exist here; available: cpu$"):
        lamella.device("cpu:1")


def test_registered_backend_serves_its_device_and_its_arrays(toy_backend: ToyBackend) -> None:
    assert lamella.device("toy:1") == Device("toy", 1)
    assert backend_of(toy(0)) is toy_backend
    assert backend_for(Device("toy", 1)) is toy_backend
    assert "toy" in backend_names()
    assert available_devices()[0] == Device("cpu")
    assert set(toy_backend.devices()) <= set(available_devices())
    replacement = ToyBackend()
    register_backend(replacement)
    assert backend_of(toy(0)) is replacement
    unregister_backend("toy")
    unregister_backend("toy")
    with pytest.raises(TypeError, match=r"expected an array of numpy\.ndarray"):
        backend_of(toy(0))
    with pytest.raises(ValueError, match="device kind must be one of"):
        lamella.device("toy")


def test_loader_runs_when_its_device_is_first_asked_for_and_once() -> None:
    calls = []

    def load() -> Backend:
        calls.append(1)
        return ToyBackend()

    register_loader("toy", load)
    try:
        assert "toy" in backend_names()
        assert calls == []
        lamella.device("toy")
        lamella.device("toy:1")
        assert calls == [1]
    finally:
        registry._loaders.pop("toy")
        unregister_backend("toy")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3.0, "builtins.float"),
        ([1, 2], "builtins.list"),
        (np.float32(1), "numpy.float32"),
        (np.ma.array([1.0]), "numpy.ma.MaskedArray"),
        (None, "builtins.NoneType"),
    ],
)
def test_foreign_types_are_named_with_the_way_out(value: object, shown: str) -> None:
    with pytest.raises(TypeError, match=rf"expected an array of numpy.ndarray.*got {shown}; convert it with"):
        backend_of(value)


def test_mixed_devices_are_both_named(toy_backend: ToyBackend) -> None:
    assert common_backend(toy(1), toy(1)) is toy_backend
    assert common_backend(np.ones(1), np.ones(2)) is backend_for("cpu")
    for first, second, names in [
        (np.ones(3), toy(0), "cpu and toy"),
        (toy(1), np.ones(3), "toy:1 and cpu"),
        (toy(0), toy(1), "toy and toy:1"),
    ]:
        with pytest.raises(MixedDevicesError, match=f"all arrays must be on one device, got {names}; move one with"):
            common_backend(first, second)
    with pytest.raises(MixedDevicesError, match="got toy and toy:1"):
        common_backend(toy(0), toy(0), toy(1))


# -- CUDA that is not there --------------------------------------------------------------------------------------------


class FakeError(RuntimeError):
    pass


def fake_cupy(devices: int | Exception, nvrtc: Exception | None = None) -> ModuleType:
    """As much of CuPy as the backend asks before it is sure that CUDA works."""

    def answer(value: object) -> object:
        if isinstance(value, Exception):
            raise value
        return value

    cupy = ModuleType("cupy")
    cupy.ndarray = type("ndarray", (), {"__module__": "cupy"})
    cupy.cuda = ModuleType("cupy.cuda")
    cupy.cuda.runtime = ModuleType("runtime")
    cupy.cuda.runtime.CUDARuntimeError = FakeError
    cupy.cuda.runtime.getDeviceCount = lambda: answer(devices)
    cupy.cuda.Device = lambda index: SimpleNamespace(compute_capability=f"{8 + index}{index}")
    cupy.cuda.nvrtc = ModuleType("nvrtc")
    cupy.cuda.nvrtc.getVersion = lambda: answer(nvrtc or (13, 0))
    return cupy


MISSING = {
    "not installed": (None, "CuPy is not installed; install one of them: pip install 'lamella[cuda12]'"),
    "broken": (OSError("cannot write /cache"), "importing CuPy failed: cannot write /cache"),
    "no driver": (fake_cupy(FakeError("too old")), "the driver answered: too old"),
    "no runtime": (fake_cupy(RuntimeError("no libcudart")), "the driver answered: no libcudart"),
    "no device": (fake_cupy(0), "the driver reports none"),
    "no compiler": (fake_cupy(1, RuntimeError("no lib")), "the kernel compiler NVRTC is missing (no lib); install"),
}


@pytest.mark.parametrize(("found", "reason"), MISSING.values(), ids=MISSING.keys())
def test_a_missing_cuda_device_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, found: object, reason: str
) -> None:
    unregister_backend("cuda")
    plant_cupy(monkeypatch, found)
    with pytest.raises(DeviceUnavailableError) as caught:
        lamella.device("cuda")
    assert str(caught.value).startswith("no CUDA device can be used: ")
    assert reason in str(caught.value)
    assert why_unavailable("cuda") == str(caught.value)
    assert "cuda" not in [device.kind for device in available_devices()]


def plant_cupy(monkeypatch: pytest.MonkeyPatch, found: object) -> None:
    from lamella.backend import cupy_backend

    monkeypatch.setattr(cupy_backend, "find_spec", lambda name: None if found is None else object())
    if isinstance(found, Exception):

        class Broken:
            def find_spec(self, name: str, path: object = None, target: object = None) -> None:
                if name.startswith("cupy"):
                    raise found

        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    elif found is not None:
        monkeypatch.setitem(sys.modules, "cupy", found)
        monkeypatch.setitem(sys.modules, "cupyx", ModuleType("cupyx"))


def test_a_cupy_array_is_known_before_a_cuda_device_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    unregister_backend("cuda")
    cupy = fake_cupy(2)
    plant_cupy(monkeypatch, cupy)
    try:
        backend = backend_of(cupy.ndarray())
        assert backend.name == "cuda"
        assert backend.devices() == (Device("cuda", 0), Device("cuda", 1))
        assert [backend.compute_capability(device) for device in backend.devices()] == [80, 91]
        assert backend_for("cpu").compute_capability(Device("cpu")) == 0
        with pytest.raises(DeviceUnavailableError, match="cuda:2 does not exist here; available: cuda:0, cuda:1"):
            lamella.device("cuda:2")
    finally:
        unregister_backend("cuda")


def test_importing_and_using_lamella_on_the_cpu_never_imports_cupy() -> None:
    code = """
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cupy", "cupyx"):
            print("imports", name)
sys.meta_path.insert(0, Watch())
import lamella
x = lamella.tensor([1.0, 2.0], requires_grad=True)
(x * 2).sum().backward()
lamella.device("cpu"), lamella.backend.backend_names()
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == ""


# -- what a backend does -----------------------------------------------------------------------------------------------


def test_arrays_travel_to_a_device_and_back_as_copies(device: Device) -> None:
    backend = backend_for(device)
    hosts = [np.arange(6.0).reshape(2, 3).T, np.array(3, "float32"), np.zeros((0, 2), "int32"), np.ones(5)[::-2]]
    for host in hosts:
        there = backend.from_numpy(host, device)
        expected = host.copy()
        assert backend_of(there) is backend
        assert backend.device_of(there) == device
        if host.size:
            host[...] = -1
        back = backend.to_numpy(there)
        assert (back.dtype, back.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(back, expected)


def test_scatter_add_counts_every_duplicate(device: Device) -> None:
    backend = backend_for(device)
    target = backend.from_numpy(np.zeros(4, "float32"), device)
    index = backend.from_numpy(np.array([1, 3, 1, 1, -1]), device)
    backend.scatter_add(target, index, backend.from_numpy(np.array([1, 2, 3, 4, 5], "float32"), device))
    assert backend.to_numpy(target).tolist() == [0, 8, 0, 7]


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (0, 4), (3, 0), (1000, 7)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_rows_are_summed_in_float32_or_better(device: Device, shape: tuple[int, int], dtype: str) -> None:
    backend = backend_for(device)
    host = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    expected = host.astype("float64").sum(0)
    bound = np.abs(host.astype("float64")).sum(0) * {"float16": 1e-3, "float32": 2e-6, "float64": 1e-14}[dtype]
    array = backend.from_numpy(host, device)
    found = backend.sum_rows(array)
    assert found.dtype == dtype
    assert (np.abs(backend.to_numpy(found) - expected) <= bound).all()
    out = backend.empty((shape[1],), dtype, device)
    assert (np.abs(backend.to_numpy(backend.sum_rows(array, out)) - expected) <= bound).all()


def test_a_backend_without_cuda_compiles_nothing() -> None:
    with pytest.raises(NotImplementedError, match="the cpu backend runs no CUDA kernels"):
        backend_for("cpu").compile("", (), Device("cpu"))


# -- per-step scalars --------------------------------------------------------------------------------------------------


def test_step_scalars_stay_in_one_place_and_take_new_values(device: Device) -> None:
    scalars = StepScalars(device, "lr", "scale", "decay")
    backend = backend_for(device)
    lr, scale = scalars["lr"], scalars["scale"]
    assert lr.shape == ()
    assert lr.dtype == np.float32
    assert backend.to_numpy(scalars.values).tolist() == [0, 0, 0]
    for values in ([0.5, 2.0, -1.0], [0.25, 4.0, 3.0]):
        scalars.write(*values)
        assert backend.to_numpy(scalars.values).tolist() == values
        assert float(lr) == values[0]
        assert float(scale) == values[1]
    assert scalars["lr"] is lr


def test_step_scalars_want_one_value_for_each_name() -> None:
    scalars = StepScalars(Device("cpu"), "lr", "scale")
    for values in [(), (1.0,), (1.0, 2.0, 3.0)]:
        with pytest.raises(ValueError, match=r"write needs 2 values \(lr, scale\), got"):
            scalars.write(*values)
    with pytest.raises(KeyError, match="rate"):
        scalars["rate"]
    with pytest.raises(ValueError, match="names must differ from each other, got a, a"):
        StepScalars(Device("cpu"), "a", "a")


# -- precision ---------------------------------------------------------------------------------------------------------


def test_precision_is_chosen_in_a_block_and_goes_back_after() -> None:
    assert current_precision() == "float32"
    tf32 = precision("tf32")
    with tf32:
        assert current_precision() == "tf32"
        with precision("strict"):
            assert current_precision() == "strict"
            with tf32:  # one object entered twice
                assert current_precision() == "tf32"
            assert current_precision() == "strict"
        assert current_precision() == "tf32"
    assert current_precision() == "float32"
    with pytest.raises(ZeroDivisionError), tf32:
        raise ZeroDivisionError
    assert current_precision() == "float32"


def test_precision_is_each_threads_own() -> None:
    shared = precision("tf32")
    inside, leave = threading.Event(), threading.Event()
    seen = []

    def other() -> None:
        seen.append(current_precision())
        with shared:
            inside.set()
            leave.wait(10)
        seen.append(current_precision())

    thread = threading.Thread(target=other)
    with precision("strict"):
        thread.start()
        inside.wait(10)
        with shared:
            leave.set()
            thread.join()
        assert current_precision() == "strict"
    assert seen == ["float32", "float32"]


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(ValueError, match="precision must be one of 'float32', 'tf32', 'strict', got 'fp16'"):
        precision("fp16")


def test_sum_rows_of_a_million_rows_keeps_its_digits() -> None:
    backend = backend_for("cpu")
    a = np.full(((1 << 20) + 3, 2), 0.1, np.float32)
    expected = float(np.float32(0.1)) * len(a)
    out = np.empty(2, np.float32)
    for total in (backend.sum_rows(a), backend.sum_rows(a, out), out):
        np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_bfloat16_is_known_by_name_in_a_fresh_process() -> None:
    import subprocess
    import sys

    code = "import lamella; t = lamella.tensor([1.5], dtype='bfloat16'); print(t.dtype, t.astype('float32').item())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["bfloat16", "1.5"]
