"""The ceilings of this GPU and PyTorch's times on it: ``python benchmarks/on_device.py report.json``.

Copies in memory and matrix products say what the device can do; a kernel's time is read against them. Where torch can
be imported, its forward passes of the benchmarked operations are timed in the same way. Not yet run on a GPU.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import lamella
from lamella.backend import Backend, Device, backend_for

sys.path.insert(0, str(Path(__file__).resolve().parent))
import bench_layer_norm
import bench_softmax
import timer


def samples(backend: Backend, device: Device, function: Callable[[], Any]) -> list[float]:
    """Seconds of each round, the cache flushed before it, after three rounds of warm-up."""
    clear, stamp = timer.flush(backend, device), timer.timer(backend)

    def one_round() -> float:
        clear()
        start = stamp()
        function()
        return stamp() - start

    warm = [one_round() for _ in range(3)]
    return [one_round() for _ in range(timer.rounds_for(min(warm)))]


def ceilings(backend: Backend, device: Device, bytes_copied: int = 1 << 30, size: int = 8192) -> dict[str, Any]:
    """The rate of a large copy (bytes read and written) and of square matrix products (2 N^3 operations)."""
    xp, found = backend.xp, {}
    source, target = (backend.empty((bytes_copied // 4,), np.float32, device) for _ in range(2))
    source.fill(1)

    def copy() -> None:
        target[...] = source

    seconds = samples(backend, device, copy)
    if not (backend.to_numpy(target[-1000:]) == 1).all():
        raise AssertionError("the copy is wrong: no rate is given")
    found["copy"] = {"value": 2 * bytes_copied / statistics.median(seconds), "unit": "B/s", "samples": seconds}
    for dtype in (np.float32, np.float16):
        a, b = (backend.from_numpy(np.ones((size, size), dtype), device) for _ in range(2))
        seconds = samples(backend, device, lambda a=a, b=b: xp.matmul(a, b))
        if not (backend.to_numpy(xp.matmul(a, b)[-1]) == size).all():
            raise AssertionError(f"the product of {np.dtype(dtype)} is wrong: no rate is given")
        rate = 2 * size**3 / statistics.median(seconds)
        found[f"gemm {np.dtype(dtype)}"] = {"value": rate, "unit": "FLOP/s", "samples": seconds}
    return found


def torch_results(backend: Backend, device: Device) -> list[dict[str, Any]]:
    """PyTorch's forward softmax and layer normalisation on the benchmarks' inputs, checked against float64.

    Raises:
        RuntimeError: PyTorch works in another stream than CuPy, whose events would then mean nothing.
    """
    import torch

    if torch.cuda.current_stream().cuda_stream != backend.xp.cuda.get_current_stream().ptr:
        raise RuntimeError("on_device: torch and CuPy must work in one stream")
    results = []

    def add(name: str, function: Callable[[], Any], expected: Any, atol: float) -> None:
        error = timer.largest_error(function().cpu().numpy(), expected)
        if not error <= atol:
            raise AssertionError(f"{name}: torch is wrong by {error:.3g}, allowed is {atol:.3g}: no time is given")
        seconds = samples(backend, device, function)
        one = {"name": name, "library": "torch", "device": str(device), "samples": seconds}
        results.append({**one, "error": error, "bound": atol})

    with torch.no_grad():
        for shape in bench_softmax.SHAPES:
            host = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            x = torch.from_numpy(host).cuda()
            add(f"bench_softmax[cuda-{shape}]", lambda x=x: torch.softmax(x, -1), bench_softmax.definition(host), 1e-6)
        for shape in bench_layer_norm.SHAPES:
            rng = np.random.default_rng(0)
            hosts = [rng.standard_normal(s, dtype=np.float32) for s in (shape, shape[1:], shape[1:])]
            x, weight, bias = (torch.from_numpy(host).cuda() for host in hosts)
            expected = bench_layer_norm.definition(hosts[0])[0] * hosts[1] + hosts[2]
            norm = torch.nn.functional.layer_norm
            add(
                f"bench_layer_norm[cuda-{shape}]",
                lambda x=x, w=weight, b=bias, norm=norm: norm(x, x.shape[1:], w, b, 1e-5),
                expected,
                1e-5,
            )
    return results


def main() -> None:
    device = lamella.device("cuda")
    backend = backend_for(device)
    report: dict[str, Any] = {"ceilings": ceilings(backend, device), "results": []}
    if importlib.util.find_spec("torch") is not None:
        report["results"] = torch_results(backend, device)
    else:
        print("torch cannot be imported here: no column of it")
    Path(sys.argv[1]).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
