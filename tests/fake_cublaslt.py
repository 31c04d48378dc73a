"""A libcublasLt without a GPU: checks every argument against the header's rules and does the products with NumPy.

The functions are called through ctypes with the header's own types, so a wrong width shows. A broken rule is kept in
``broken`` (an exception cannot cross a C call) and answered with CUBLAS_STATUS_INTERNAL_ERROR.
Source of the rules: cublasLt.h and cublas_api.h 12.9.3.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from ctypes import CFUNCTYPE, c_int, c_int64, c_size_t, c_uint64, c_void_p
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from lamella.testing.array import SimulatorArray

INTERNAL_ERROR = 14
DTYPES = {0: np.float32, 1: np.float64, 2: np.float16, 14: ml_dtypes.bfloat16}  # cudaDataType
COMPUTE = {(68, 0): {0, 2, 14}, (69, 0): {0, 2, 14}, (77, 0): {0}, (70, 1): {1}}  # (compute, scale): data
DESC = {  # attribute: (name, bytes, signed)
    3: ("transa", 4, True), 4: ("transb", 4, True), 7: ("epilogue", 4, False), 8: ("bias", 8, False),
    11: ("aux", 8, False), 12: ("aux_ld", 8, True),
}  # fmt: skip
LAYOUT = {5: ("count", 4, True), 6: ("step", 8, True)}
PREFERENCE = {
    1: ("workspace", 8, False), 3: ("reduction", 4, False), 5: ("align_a", 4, False), 6: ("align_b", 4, False),
    7: ("align_c", 4, False), 8: ("align_d", 4, False),
}  # fmt: skip
RELU, GELU, BIAS, AUX = 2, 32, 4, 128
DRELU_BGRAD, DGELU_BGRAD, BGRADA, BGRADB = 152, 208, 256, 512
EPILOGUES = {1, 2, 4, 6, 32, 36, 134, 164, 152, 208, 256, 512}

SIGNATURES = {
    "cublasLtCreate": [c_void_p],
    "cublasLtDestroy": [c_void_p],
    "cublasLtMatrixLayoutCreate": [c_void_p, c_int, c_uint64, c_uint64, c_int64],
    "cublasLtMatrixLayoutDestroy": [c_void_p],
    "cublasLtMatrixLayoutSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "cublasLtMatmulDescCreate": [c_void_p, c_int, c_int],
    "cublasLtMatmulDescDestroy": [c_void_p],
    "cublasLtMatmulDescSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "cublasLtMatmulPreferenceCreate": [c_void_p],
    "cublasLtMatmulPreferenceDestroy": [c_void_p],
    "cublasLtMatmulPreferenceSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "cublasLtMatmulAlgoGetHeuristic": [*(c_void_p,) * 7, c_int, c_void_p, c_void_p],
    "cublasLtMatmul": [*(c_void_p,) * 13, c_void_p, c_size_t, c_void_p],
}


class FakeCuda:
    """The few names of CuPy that the binding uses; memory is host memory, aligned as CuPy's, full of NaN at first."""

    def __init__(self) -> None:
        self.stream = 7
        self.capturing = False
        self.memory: list[np.ndarray] = []
        self.cuda = SimpleNamespace(
            Device=lambda index: nullcontext(),
            get_current_stream=lambda: SimpleNamespace(ptr=self.stream),
            runtime=SimpleNamespace(streamIsCapturing=lambda stream: self.capturing),
        )

    def empty(self, shape: tuple[int, ...], dtype: Any) -> SimulatorArray:
        if self.capturing:
            raise AssertionError("memory was allocated while a graph was captured")
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        block = np.full(size + 512, 0xFF, np.uint8)  # 0xFFFF… is a NaN in every float type
        block = block[-block.ctypes.data % 512 :][:size]
        self.memory.append(block)
        return SimulatorArray(block.view(dtype).reshape(shape))

    def put(self, values: np.ndarray) -> SimulatorArray:
        array = self.empty(values.shape, values.dtype)
        array._values[...] = values
        return array

    def view(self, address: int, size: int) -> np.ndarray:
        """Bytes of one allocation; anything else is out of bounds."""
        for block in self.memory:
            start = block.ctypes.data
            if start <= address and address + size <= start + block.size:
                return block[address - start :][:size]
        raise AssertionError(f"{size} bytes at {address:#x} lie outside every array")


class FakeCublasLt:
    """The library; give it to ``CublasLt`` in place of the real one.

    Attributes:
        calls: how often each function was called.
        products: what each product was: the descriptor's, layouts' and call's values.
        answers: a status for a function that is to fail.
        finds: whether the heuristics find an algorithm.
        broken: rules that were broken.
    """

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.calls: Counter[str] = Counter()
        self.products: list[dict[str, Any]] = []
        self.answers: dict[str, int] = {}
        self.finds = True
        self.broken: list[BaseException] = []
        self.objects: dict[int, SimpleNamespace] = {}
        self.algorithms: dict[int, Any] = {}
        for name, argtypes in SIGNATURES.items():
            setattr(self, name, CFUNCTYPE(c_int, *argtypes)(self._guarded(name)))

    def _guarded(self, name: str) -> Callable[..., int]:
        method = getattr(self, "_" + name.removeprefix("cublasLt"))

        def call(*args: Any) -> int:
            self.calls[name] += 1
            if status := self.answers.get(name, 0):
                return status
            try:
                return method(*args) or 0
            except BaseException as error:
                self.broken.append(error)
                return INTERNAL_ERROR

        return call

    # -- objects -------------------------------------------------------------------------------------------------
    def _new(self, where: int, kind: str, **fields: Any) -> None:
        number = 1000 + 8 * sum(self.calls.values())
        self.objects[number] = SimpleNamespace(kind=kind, **fields)
        c_void_p.from_address(where).value = number

    def _get(self, number: int, kind: str) -> SimpleNamespace:
        found = self.objects[number]
        assert found.kind == kind, f"a {found.kind} was given where a {kind} is expected"
        return found

    def _set(self, known: dict[int, tuple[str, int, bool]], target: Any, attribute: int, where: int, size: int) -> None:
        name, width, signed = known[attribute]
        assert size == width, f"{name} has {width} bytes, got {size}"
        setattr(target, name, int.from_bytes(ctypes.string_at(where, size), "little", signed=signed))

    def _Create(self, where: int) -> None:
        self._new(where, "handle")

    def _Destroy(self, number: int) -> None:
        self._get(number, "handle")
        del self.objects[number]

    def _MatrixLayoutCreate(self, where: int, dtype: int, rows: int, columns: int, ld: int) -> None:
        assert dtype in DTYPES
        assert 0 < rows < 1 << 31
        assert 0 < columns < 1 << 31
        assert ld >= rows, f"the leading dimension {ld} of a column-major matrix is below its {rows} rows"
        self._new(where, "layout", dtype=dtype, rows=rows, columns=columns, ld=ld, count=1, step=0)

    def _MatrixLayoutDestroy(self, number: int) -> None:
        self._get(number, "layout")
        del self.objects[number]

    def _MatrixLayoutSetAttribute(self, number: int, attribute: int, where: int, size: int) -> None:
        self._set(LAYOUT, self._get(number, "layout"), attribute, where, size)

    def _MatmulDescCreate(self, where: int, compute: int, scale: int) -> None:
        fields = {"transa": 0, "transb": 0, "epilogue": 1, "bias": 0, "aux": 0, "aux_ld": 0}
        self._new(where, "desc", compute=compute, scale=scale, **fields)

    def _MatmulDescDestroy(self, number: int) -> None:
        self._get(number, "desc")
        del self.objects[number]

    def _MatmulDescSetAttribute(self, number: int, attribute: int, where: int, size: int) -> None:
        self._set(DESC, self._get(number, "desc"), attribute, where, size)

    def _MatmulPreferenceCreate(self, where: int) -> None:
        fields = {"workspace": 0, "reduction": 7, "align_a": 256, "align_b": 256, "align_c": 256, "align_d": 256}
        self._new(where, "preference", **fields)

    def _MatmulPreferenceDestroy(self, number: int) -> None:
        self._get(number, "preference")
        del self.objects[number]

    def _MatmulPreferenceSetAttribute(self, number: int, attribute: int, where: int, size: int) -> None:
        self._set(PREFERENCE, self._get(number, "preference"), attribute, where, size)

    # -- the problem ---------------------------------------------------------------------------------------------
    def _problem(self, desc: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        """The rules that tie descriptor and layouts together; returns what must not change until the product."""
        assert a.dtype == b.dtype == c.dtype == d.dtype
        assert d.dtype in COMPUTE[desc.compute, desc.scale], "compute and scale type do not fit the data"
        assert {desc.transa, desc.transb} <= {0, 1}
        m, k = (a.columns, a.rows) if desc.transa else (a.rows, a.columns)
        k_too, n = (b.columns, b.rows) if desc.transb else (b.rows, b.columns)
        assert (k, m, n) == (k_too, d.rows, d.columns), "the sides of the product do not agree"
        assert vars(c) == vars(d)
        assert a.count == b.count == d.count
        assert d.count == 1 or d.step != 0
        code = desc.epilogue
        assert code in EPILOGUES
        assert bool(desc.bias) == bool(code & (BIAS | 16 | BGRADA | BGRADB)), "bias pointer and epilogue disagree"
        assert bool(desc.aux) == bool(code & AUX), "aux pointer and epilogue disagree"
        if code != 1:
            assert d.count == 1
        if code & AUX:
            assert desc.aux_ld >= d.rows
            assert desc.aux_ld % (128 if code & (RELU | 8) else 8) == 0
        fixed = {key: value for key, value in vars(desc).items() if key not in ("bias", "aux")}
        return fixed, vars(a).copy(), vars(b).copy(), vars(d).copy()

    def _MatmulAlgoGetHeuristic(
        self, handle: int, desc: int, a: int, b: int, c: int, d: int, preference: int, wanted: int, at: int, found: int
    ) -> None:
        assert not self.cuda.capturing
        self._get(handle, "handle")
        wish = self._get(preference, "preference")
        operation, *layouts = self._get(desc, "desc"), *(self._get(x, "layout") for x in (a, b, c, d))
        problem = self._problem(operation, *layouts)
        assert wanted == 1
        if DTYPES[layouts[0].dtype] in (np.float16, ml_dtypes.bfloat16):
            assert wish.reduction == 2, "partial sums would be kept in 16 bits"
        number = len(self.algorithms) + 1
        pointers = [(x & -x) if x else 0 for x in (operation.bias, operation.aux)]
        self.algorithms[number] = (problem, vars(wish).copy(), pointers)
        if self.finds:
            ctypes.memset(at, 0, 96)
            c_uint64.from_address(at).value = number
            c_size_t.from_address(at + 64).value = wish.workspace  # the hungriest algorithm
        c_int.from_address(found).value = int(self.finds)

    def _matrix(self, at: int, layout: Any) -> np.ndarray:
        """A stack of matrices as they lie in memory, writable."""
        dtype = np.dtype(DTYPES[layout.dtype])
        steps = (layout.step * dtype.itemsize, dtype.itemsize, layout.ld * dtype.itemsize)
        shape = (layout.count, layout.rows, layout.columns)
        extent = sum(s * (n - 1) for s, n in zip(steps, shape, strict=True)) + dtype.itemsize
        return np.lib.stride_tricks.as_strided(self.cuda.view(at, extent)[: dtype.itemsize].view(dtype), shape, steps)

    def _Matmul(
        self, handle: int, desc: int, alpha: int, a_at: int, a: int, b_at: int, b: int, beta: int, c_at: int, c: int,
        d_at: int, d: int, algo: int, workspace: int, workspace_size: int, stream: int,
    ) -> None:  # fmt: skip
        self._get(handle, "handle")
        operation, *layouts = self._get(desc, "desc"), *(self._get(x, "layout") for x in (a, b, c, d))
        problem, wish, pointers = self.algorithms[c_uint64.from_address(algo).value]
        assert problem == self._problem(operation, *layouts), "the algorithm was chosen for another problem"
        for name, at in (("a", a_at), ("b", b_at), ("c", c_at), ("d", d_at)):
            assert at % wish[f"align_{name}"] == 0, f"{name} is less aligned than the algorithm was promised"
        for promised, at in zip(pointers, (operation.bias, operation.aux), strict=True):
            assert not promised or at % min(promised, 256) == 0
        assert workspace_size >= wish["workspace"]
        assert workspace % 256 == 0
        self.cuda.view(workspace, workspace_size)
        assert (stream or 0) == self.cuda.stream
        number = np.float64 if operation.scale == 1 else np.float32
        factors = [np.frombuffer(ctypes.string_at(p, number().itemsize), number)[0] for p in (alpha, beta)]
        assert factors[0] == 1
        assert factors[1] in (0, 1)
        assert c_at == d_at

        left, right, result = (
            self._matrix(at, layout) for at, layout in zip((a_at, b_at, d_at), (*layouts[:2], layouts[3]), strict=True)
        )
        if result.size > 1:
            places = np.add.outer(
                np.add.outer(np.arange(result.shape[0]) * layouts[3].step, np.arange(result.shape[1])),
                np.arange(result.shape[2]) * layouts[3].ld,
            )
            assert np.unique(places).size == result.size, "elements of D overlap"
        x, y = (operand.astype(np.float64) for operand in (left, right))
        if operation.compute == 77:
            x, y = tf32(x), tf32(y)
        x = x.swapaxes(1, 2) if operation.transa else x
        y = y.swapaxes(1, 2) if operation.transb else y
        z = x @ y
        if factors[1]:
            z = z + result.astype(np.float64)
        dtype = result.dtype
        result[...] = self._epilogue(operation, z[0], x[0], y[0], dtype)[None] if z.shape[0] == 1 else z
        self.products.append({**vars(operation), "count": layouts[3].count, "stream": stream})

    def _epilogue(self, op: Any, z: np.ndarray, x: np.ndarray, y: np.ndarray, dtype: Any) -> np.ndarray:
        rows, columns = z.shape
        code, item = op.epilogue, np.dtype(dtype).itemsize
        bias: Any = None
        if op.bias:
            bias = self.cuda.view(op.bias, item * (columns if code == BGRADB else rows)).view(dtype)
        aux: Any = None
        if op.aux and code & (RELU | 8):
            aux = self.cuda.view(op.aux, op.aux_ld // 8 * columns).reshape(columns, -1)
        elif op.aux:
            aux = self.cuda.view(op.aux, op.aux_ld * columns * item).view(dtype).reshape(columns, -1)
        if code == BGRADA:
            bias[...] = x.sum(1)
        elif code == BGRADB:
            bias[...] = y.sum(0)
        elif code == DRELU_BGRAD:
            z = z * np.unpackbits(aux, axis=1, bitorder="little")[:, :rows].T
            bias[...] = z.sum(1)
        elif code == DGELU_BGRAD:
            z = z * gelu_slope(aux[:, :rows].T.astype(np.float64))
            bias[...] = z.sum(1)
        else:
            if code & BIAS:
                z = z + bias[:, None].astype(np.float64)
            if code & RELU:
                if code & AUX:
                    bits = np.zeros((columns, op.aux_ld), np.uint8)
                    bits[:, :rows] = (z > 0).T
                    aux[...] = np.packbits(bits, axis=1, bitorder="little")
                z = np.maximum(z, 0)
            if code & GELU:
                if code & AUX:
                    aux[:, :rows] = z.T
                z = gelu(z)
        return z


def tf32(x: np.ndarray) -> np.ndarray:
    """Rounded to 10 bits of mantissa."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32).astype(np.float64)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_slope(x: np.ndarray) -> np.ndarray:
    t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x * x)
