"""A case's contenders in this process: its numbers as arrays of one library, and their results back on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .case import Case, Run

SEED = 0


def is_rival(name: str) -> bool:
    """Whether a contender is PyTorch in one of its ways."""
    return name.startswith("torch")


def host_numbers(case: Case) -> tuple[Any, ...]:
    """The inputs in float32 and integers, the same for everybody."""
    return case.numbers(np.random.default_rng(SEED))


def stored_as(dtype: str) -> str:
    """The dtype of the arrays: tf32 is a way to multiply float32."""
    return "float32" if dtype == "tf32" else dtype


def rounded(numbers: tuple[Any, ...], dtype: str) -> tuple[Any, ...]:
    """The inputs as the dtype rounds them; integers stay."""
    if (name := stored_as(dtype)) == "float32":
        return numbers
    if name == "bfloat16":
        import ml_dtypes

        kind: Any = ml_dtypes.bfloat16
    else:
        kind = np.dtype(name)
    return tuple(a.astype(kind) if a.dtype.kind == "f" else a for a in numbers)


def exact(numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    """Rounded inputs in float64, for the judge; integers stay."""
    return tuple(a if a.dtype.kind in "iub" else a.astype(np.float64) for a in numbers)


def on_host(array: Any, backend: Any = None) -> Any:
    """A result as a NumPy array; 16-bit floats as float32."""
    if hasattr(array, "detach"):  # a torch tensor
        array = array.detach()
        return (array.float() if array.is_floating_point() and array.element_size() == 2 else array).cpu().numpy()
    host = np.asarray(array) if backend is None else backend.to_numpy(array)
    return host.astype(np.float32) if host.dtype.itemsize == 2 and host.dtype.kind in "fV" else host


def run_of(case: Case, name: str, arrays: tuple[Any, ...], dtype: str) -> Run:
    """A contender other than PyTorch, on arrays of its device."""
    if name == "numpy" or dtype != "tf32":
        return case.contenders[name](*arrays)
    import lamella

    with lamella.precision("tf32"):
        run = case.contenders[name](*arrays)

    def in_tf32() -> tuple[Any, ...]:
        with lamella.precision("tf32"):
            return run()

    return in_tf32


# -- PyTorch ---------------------------------------------------------------------------------------------------------
def tensor_of(torch: Any, array: Any) -> Any:
    """A tensor that shares the array's memory, by DLPack; bfloat16, which that may not know, travels as integers."""
    if array.dtype.name == "bfloat16":
        return torch.from_dlpack(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_dlpack(array)


def eager(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def compiled(torch: Any) -> Callable[..., Any]:
    """The wrapper for ``torch compile``: no CUDA graphs, whose replay would be compared with launches."""
    torch.compiler.reset()
    return lambda function: torch.compile(function, mode="max-autotune-no-cudagraphs")


def rival_of(case: Case, name: str, torch: Any, arrays: tuple[Any, ...], dtype: str) -> Run:
    """PyTorch in one of its ways, on tensors that share the arrays' memory; ``torch compile`` is its default compiled.

    Products of float32 are IEEE, and tf32 only where that is measured.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    torch.backends.cudnn.benchmark = True
    tensors = tuple(tensor_of(torch, array) for array in arrays)
    if name == "torch compile":
        return case.contenders["torch"](torch, compiled(torch), *tensors)
    return case.contenders[name](torch, eager, *tensors)


def first_results(case: Case, run: Run) -> tuple[Any, ...]:
    """What is judged: the results of the first run, or of as many as the case says."""
    return tuple(result for _ in range(case.steps) for result in run())
