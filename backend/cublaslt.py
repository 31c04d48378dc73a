"""Matrix products by cuBLASLt through ctypes: ``out = epilogue(a @ b [+ out])``. Unproven: not yet run on hardware.

CuPy's products are the default. This binding exists because CuPy refuses every cuBLAS call while a CUDA graph is
captured, copies stacks of float16 to float32, refuses stacks of bfloat16, and knows neither TF32 for stacks nor
epilogues. Choose it for a process with::

    from lamella.backend import register_backend
    from lamella.backend.cupy_backend import CupyBackend
    register_backend(CupyBackend(use_cublaslt=True))

cuBLASLt thinks in columns. A row-major ``(M, N)`` matrix is byte for byte a column-major ``(N, M)`` one, so it is asked
for ``out^T = b^T a^T``: its A is our b, its B is our a, its rows are our columns. Nothing is copied: a transposed view
is the same memory with the other operation flag.

Source: cublasLt.h and cublas_api.h 12.9.3 (13.1.0 has the same values), library_types.h 13.0.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import POINTER, byref, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from importlib import import_module
from itertools import product
from typing import Any, NamedTuple

from .base import Array, stacked_shape
from .precision import current_precision

WORKSPACE_BYTES = 32 << 20  # what NVIDIA recommends for Hopper
_MAX_LAUNCHES = 4096  # remembered problems; lengths that vary would fill the memory with descriptors
_WIDEST_ALIGNMENT = 256  # bytes; heuristics look no further

_STATUS = {
    0: "SUCCESS", 1: "NOT_INITIALIZED", 3: "ALLOC_FAILED", 7: "INVALID_VALUE", 8: "ARCH_MISMATCH", 11: "MAPPING_ERROR",
    13: "EXECUTION_FAILED", 14: "INTERNAL_ERROR", 15: "NOT_SUPPORTED", 16: "LICENSE_ERROR",
}  # fmt: skip
_CANNOT = {7, 8, 15}  # answers that mean "not this problem on this device", when asked for an algorithm

_CUDA_TYPE = {"float16": 2, "bfloat16": 14, "float32": 0, "float64": 1}  # CUDA_R_*
_COMPUTE_64F = 70
_COMPUTE_32F = {"float32": 68, "strict": 69, "tf32": 77}  # by precision: CUBLAS_COMPUTE_32F, _PEDANTIC, _FAST_TF32
_OP_N, _OP_T = 0, 1
_LAYOUT_BATCH_COUNT, _LAYOUT_BATCH_STEP = 5, 6
_DESC_TRANSA, _DESC_TRANSB, _DESC_EPILOGUE, _DESC_BIAS, _DESC_AUX, _DESC_AUX_LD = 3, 4, 7, 8, 11, 12
_PREF_WORKSPACE, _PREF_REDUCTION, _PREF_ALIGNMENT_A = 1, 3, 5  # B, C and D follow A: 6, 7, 8
_REDUCE_IN_COMPUTE_TYPE = 2  # partial sums of 16-bit products stay in float32; the other schemes use out's dtype


class _Epilogue(NamedTuple):
    """What is done to the product before it is stored."""

    code: int  # CUBLASLT_EPILOGUE_*
    vector: str = ""  # "columns" or "rows": the axis of out that the bias, or a bias' gradient, belongs to
    aux: str = ""  # "mask" (ReLU's signs, one bit an element) or "input" (GELU's argument)


# Named after our row-major operands; the header's BGRADA sums our b, its BGRADB our a.
EPILOGUES = {
    "": _Epilogue(1),
    "relu": _Epilogue(2),
    "gelu": _Epilogue(32),
    "bias": _Epilogue(4, "columns"),
    "relu_bias": _Epilogue(6, "columns"),
    "gelu_bias": _Epilogue(36, "columns"),
    "relu_aux_bias": _Epilogue(134, "columns", "mask"),
    "gelu_aux_bias": _Epilogue(164, "columns", "input"),
    "drelu_bgrad": _Epilogue(152, "columns", "mask"),
    "dgelu_bgrad": _Epilogue(208, "columns", "input"),
    "bgrad_a": _Epilogue(512, "rows"),
    "bgrad_b": _Epilogue(256, "columns"),
}
_MAY_ACCUMULATE = {"", "bgrad_a", "bgrad_b"}


class CublasLtError(RuntimeError):
    """cuBLASLt is missing, failed, or was asked for something at the wrong time; the message says which."""


class CublasLtUnsupportedError(CublasLtError):
    """cuBLASLt does not do this product; the message says why. CuPy's product may."""


class _Algorithm(ctypes.Structure):
    _fields_ = [("data", c_uint64 * 8)]


class _HeuristicResult(ctypes.Structure):
    _fields_ = [
        ("algo", _Algorithm),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    ]


_PROTOTYPES: dict[str, list[Any]] = {
    "cublasLtCreate": [POINTER(c_void_p)],
    "cublasLtDestroy": [c_void_p],
    "cublasLtMatrixLayoutCreate": [POINTER(c_void_p), c_int, c_uint64, c_uint64, c_int64],
    "cublasLtMatrixLayoutDestroy": [c_void_p],
    "cublasLtMatrixLayoutSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "cublasLtMatmulDescCreate": [POINTER(c_void_p), c_int, c_int],
    "cublasLtMatmulDescDestroy": [c_void_p],
    "cublasLtMatmulDescSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "cublasLtMatmulPreferenceCreate": [POINTER(c_void_p)],
    "cublasLtMatmulPreferenceDestroy": [c_void_p],
    "cublasLtMatmulPreferenceSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "cublasLtMatmulAlgoGetHeuristic": [
        *(c_void_p,) * 7, c_int, POINTER(_HeuristicResult), POINTER(c_int)
    ],
    "cublasLtMatmul": [
        *(c_void_p,) * 12, POINTER(_Algorithm), c_void_p, c_size_t, c_void_p
    ],
}  # fmt: skip


def load_library(cuda_major: int) -> Any:
    """libcublasLt of one CUDA version, from NVIDIA's wheels, a conda environment or the system.

    Raises:
        CublasLtError: it was not found, or is of another CUDA version.
    """
    library: Any = None
    tried = []
    try:
        library = ctypes.CDLL(import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublasLt").abs_path)
    except Exception as error:  # pathfinder's own errors, which cannot be named without importing it
        tried.append(f"cuda.pathfinder: {error}")
        for name in (f"libcublasLt.so.{cuda_major}", f"cublasLt64_{cuda_major}.dll"):
            try:
                library = ctypes.CDLL(name)
                break
            except OSError as failure:
                tried.append(f"{name}: {failure}")
    if library is None:
        package = "nvidia-cublas-cu12" if cuda_major == 12 else "nvidia-cublas"
        raise CublasLtError(
            f"cuBLASLt for CUDA {cuda_major} was not found; install it: pip install {package} ({'; '.join(tried)})"
        )
    library.cublasLtGetVersion.restype = c_size_t
    version = library.cublasLtGetVersion()  # 120903 is 12.9.3
    if version // 10000 != cuda_major:
        raise CublasLtError(f"cuBLASLt must be of CUDA {cuda_major}, as CuPy is, found version {version}")
    return library


class _Matrix(NamedTuple):
    """A stack of matrices in memory, lengths and steps in elements."""

    rows: int
    columns: int
    row_step: int
    column_step: int
    steps: tuple[int, ...]  # along the stack's axes; 0 where the operand is repeated

    @property
    def turned(self) -> _Matrix:
        return _Matrix(self.columns, self.rows, self.column_step, self.row_step, self.steps)

    def leading(self) -> int | None:
        """The step from row to row where rows are contiguous and do not overlap, else None."""
        if self.column_step != 1 and self.columns != 1:
            return None
        step = self.row_step if self.rows > 1 else self.columns  # the step of a single row means nothing
        return step if step >= self.columns else None


class _Launch(NamedTuple):
    """Everything about one problem but its addresses."""

    desc: c_void_p
    layouts: tuple[c_void_p, c_void_p, c_void_p]  # of cuBLASLt's A, B and D
    algorithm: _Algorithm
    swapped: bool  # out is column-major: A is our a
    offsets: list[tuple[int, ...]]  # in bytes for A, B and D: one call each
    one: Any
    zero: Any


class CublasLt:
    """Products on CUDA devices with own handles and workspaces, on CuPy's current stream.

    A problem is prepared once (descriptors, algorithm) and remembered. A captured graph holds the workspace of the
    stream it was captured on: graphs captured on one stream must not run at the same time.

    Args:
        xp: the module ``cupy``.
        library: libcublasLt as :func:`load_library` gives it.
    """

    def __init__(self, xp: Any, library: Any) -> None:
        for name, argtypes in _PROTOTYPES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = argtypes, c_int
        self._xp, self._library = xp, library
        self._handles: dict[int, c_void_p] = {}  # by device; never destroyed: at exit the driver may be gone before us
        self._workspaces: dict[tuple[int, int], Array] = {}  # by device and stream: two streams must not share one
        self._launches: dict[Any, _Launch | str] = {}  # a string says why there is none
        self._lock = threading.RLock()  # descriptors hold the addresses of the call in progress

    # -- the product ---------------------------------------------------------------------------------------------
    def matmul(
        self,
        a: Array,
        b: Array,
        out: Array | None = None,
        *,
        accumulate: bool = False,
        epilogue: str = "",
        bias: Array | None = None,
        aux: Array | None = None,
    ) -> Array:
        """``out = epilogue(a @ b)``, or ``out += a @ b``; stacks broadcast. ``out`` must not overlap ``a`` or ``b``.

        Args:
            a: shape ``(..., M, K)``, of float16, bfloat16, float32 or float64; rows or columns contiguous.
            b: shape ``(..., K, N)``, of the same dtype.
            out: shape ``(..., M, N)``; a new array by default.
            accumulate: add to ``out`` instead of overwriting it.
            epilogue: one of :data:`EPILOGUES`, for single matrices only. ``bias``, ``relu_bias``, ``gelu_bias`` (by
                tanh); ``*_aux_bias`` also write ``aux``; ``drelu_bgrad`` and ``dgelu_bgrad`` multiply ``a @ b`` by the
                activation's derivative, read from ``aux``, and write its sum over rows into ``bias``; ``bgrad_a``
                writes ``a.sum(1)`` and ``bgrad_b`` writes ``b.sum(0)`` into ``bias``.
            bias: shape ``(N,)``, for ``bgrad_a`` ``(M,)``.
            aux: of the shape and dtype that :func:`aux_like` says.
        Raises:
            CublasLtUnsupportedError: cuBLASLt does not do this product (see :meth:`why_not`).
            CublasLtError: the product failed, or it would have to be prepared while a graph is captured.
        """
        if accumulate and out is None:
            raise ValueError("matmul: accumulate=True needs out, the array to add to")
        if accumulate and epilogue not in _MAY_ACCUMULATE:
            raise ValueError(f"matmul: accumulate=True and epilogue={epilogue!r} exclude each other")
        with self._xp.cuda.Device(a.device.id):
            stream = self._xp.cuda.get_current_stream().ptr
            with self._lock:
                launch = self._find(a, b, out, epilogue, bias, aux, stream)
                if isinstance(launch, str):
                    raise CublasLtUnsupportedError(launch)
                if out is None:
                    out = self._xp.empty((*stacked_shape(a, b), a.shape[-2], b.shape[-1]), a.dtype)
                if launch is None:  # nothing to add up
                    if not accumulate:
                        out[...] = 0
                    return out
                self._run(launch, a, b, out, accumulate, bias, aux, stream)
        return out

    def why_not(
        self,
        a: Array,
        b: Array,
        out: Array | None = None,
        *,
        epilogue: str = "",
        bias: Array | None = None,
        aux: Array | None = None,
    ) -> str | None:
        """Why :meth:`matmul` would refuse these arguments as unsupported; None where it would not."""
        with self._xp.cuda.Device(a.device.id), self._lock:
            launch = self._find(a, b, out, epilogue, bias, aux, self._xp.cuda.get_current_stream().ptr)
        return launch if isinstance(launch, str) else None

    def close(self) -> None:
        """Give up descriptors, workspaces and handles; captured graphs must not run any more."""
        with self._lock:
            for launch in self._launches.values():
                self._destroy(launch)
            self._launches.clear()
            self._workspaces.clear()
            for device, handle in self._handles.items():
                with self._xp.cuda.Device(device):
                    self._call("cublasLtDestroy", handle)
            self._handles.clear()

    # -- preparing a problem, once -------------------------------------------------------------------------------
    def _find(
        self, a: Array, b: Array, out: Array | None, epilogue: str, bias: Array | None, aux: Array | None, stream: int
    ) -> _Launch | str | None:
        """How to compute this, why it cannot be done, or None where the result is a sum of nothing."""
        kind = EPILOGUES.get(epilogue)
        if kind is None:
            raise ValueError(f"matmul: epilogue must be one of {', '.join(map(repr, EPILOGUES))}, got {epilogue!r}")
        key = (
            a.device.id, a.dtype, a.shape, a.strides, b.dtype, b.shape, b.strides,
            None if out is None else (out.dtype, out.shape, out.strides), epilogue, current_precision(),
            *(_WIDEST_ALIGNMENT if x is None else _alignment(x.data.ptr) for x in (a, b, out, bias, aux)),
        )  # fmt: skip
        launch = self._launches.get(key)
        if launch is None or kind.vector or kind.aux:  # the vectors' shapes are not in the key
            stack = stacked_shape(a, b)
            shape = (*stack, a.shape[-2], b.shape[-1])
            if out is not None and (out.shape != shape or out.dtype != a.dtype):
                raise ValueError(f"matmul: out must be {a.dtype} of shape {shape}, got {out.dtype} of {out.shape}")
            places = {x.device.id for x in (a, b, out, bias, aux) if x is not None}
            if len(places) > 1:
                raise ValueError(f"matmul: all arrays must be on one device, got devices {sorted(places)}")
            _check_extras(kind, epilogue, shape, a.dtype, bias, aux)
            if launch is None:
                if 0 in (*shape, a.shape[-1]):
                    return None if not epilogue else f"epilogue={epilogue!r} of an empty product"
                self._refuse_in_capture(stream, "this product was not prepared")
                try:
                    launch = self._prepare(a, b, out, stack, epilogue, bias, aux)
                except CublasLtUnsupportedError as reason:
                    launch = str(reason)
                if len(self._launches) >= _MAX_LAUNCHES:
                    self._destroy(self._launches.pop(next(iter(self._launches))))
                self._launches[key] = launch
        return launch

    def _prepare(
        self,
        a: Array,
        b: Array,
        out: Array | None,
        stack: tuple[int, ...],
        epilogue: str,
        bias: Array | None,
        aux: Array | None,
    ) -> _Launch:
        item, kind = a.dtype.itemsize, EPILOGUES[epilogue]
        if a.dtype != b.dtype or a.dtype.name not in _CUDA_TYPE:
            raise CublasLtUnsupportedError(
                f"dtypes must be one of {', '.join(_CUDA_TYPE)} for both operands, got {a.dtype} and {b.dtype}"
            )
        if epilogue and stack:
            raise CublasLtUnsupportedError(f"epilogue={epilogue!r} is for single matrices, got a stack of {stack}")
        x, y = _matrix("a", a.shape, a.strides, item, stack), _matrix("b", b.shape, b.strides, item, stack)
        shape = (*stack, x.rows, y.columns)
        z = _matrix("out", shape, _contiguous(shape, item) if out is None else out.strides, item, stack)
        if max(x.rows, x.columns, y.columns) >= 1 << 31:
            raise CublasLtUnsupportedError(f"sides must be below 2**31, got {x.rows} x {x.columns} x {y.columns}")
        swapped = z.leading() is None
        if swapped:
            if z.turned.leading() is None or epilogue:
                raise CublasLtUnsupportedError(f"out must have contiguous rows, got strides of {z} in elements")
            x, y, z = y.turned, x.turned, z.turned  # out^T = b^T a^T
        # y is cuBLASLt's A, x its B, z its C and D
        (trans_a, lead_a), (trans_b, lead_b) = _operation("b", y), _operation("a", x)
        # cuBLASLt takes one step along the stack: the longest merged axis; the others are walked through here
        axes = _merged_axes(stack, y.steps, x.steps, z.steps)
        count, *batch_steps = axes.pop(axes.index(max(axes))) if axes else (1, 0, 0, 0)
        offsets = [
            tuple(item * sum(i * axis[1 + k] for i, axis in zip(index, axes, strict=True)) for k in range(3))
            for index in product(*(range(axis[0]) for axis in axes))
        ]

        single = a.dtype.itemsize != 8
        compute = _COMPUTE_64F if not single else _COMPUTE_32F[current_precision() if item == 4 else "float32"]
        scale, data = _CUDA_TYPE["float32" if single else "float64"], _CUDA_TYPE[a.dtype.name]
        created: list[tuple[str, c_void_p]] = []

        def create(what: str, *args: Any) -> c_void_p:
            handle = c_void_p()
            self._call(f"cublasLt{what}Create", byref(handle), *args)
            created.append((what, handle))
            return handle

        try:
            desc = create("MatmulDesc", compute, scale)
            for attribute, value in (
                (_DESC_TRANSA, c_int32(trans_a)),
                (_DESC_TRANSB, c_int32(trans_b)),
                (_DESC_EPILOGUE, c_uint32(kind.code)),
            ):
                self._set("MatmulDesc", desc, attribute, value)
            if aux is not None:
                self._set("MatmulDesc", desc, _DESC_AUX_LD, c_int64(aux.shape[1] * (8 if kind.aux == "mask" else 1)))
            self._point(desc, bias, aux)
            layouts = []
            operands = ((y, lead_a, trans_a), (x, lead_b, trans_b), (z, z.leading(), _OP_N))
            for (matrix, lead, turned), step in zip(operands, batch_steps, strict=True):
                rows, columns = (matrix.rows, matrix.columns) if turned else (matrix.columns, matrix.rows)
                layout = create("MatrixLayout", data, rows, columns, lead)
                if count > 1:
                    self._set("MatrixLayout", layout, _LAYOUT_BATCH_COUNT, c_int32(count))
                    self._set("MatrixLayout", layout, _LAYOUT_BATCH_STEP, c_int64(step))
                layouts.append(layout)
            preference = create("MatmulPreference")
            self._set("MatmulPreference", preference, _PREF_WORKSPACE, c_uint64(WORKSPACE_BYTES))
            if item == 2:
                self._set("MatmulPreference", preference, _PREF_REDUCTION, c_uint32(_REDUCE_IN_COMPUTE_TYPE))
            first, second = (a, b) if swapped else (b, a)
            for i, array in enumerate((first, second, out, out)):  # A, B, C, D
                address = 0 if array is None else array.data.ptr
                least = min(_alignment(address + offset[min(i, 2)]) for offset in offsets)
                self._set("MatmulPreference", preference, _PREF_ALIGNMENT_A + i, c_uint32(least))
            algorithm = self._algorithm(a.device.id, desc, layouts, preference)
            created.remove(("MatmulPreference", preference))
            self._call("cublasLtMatmulPreferenceDestroy", preference)
        except BaseException:
            for what, handle in created:
                self._call(f"cublasLt{what}Destroy", handle)
            raise
        number = c_float if single else c_double
        layout_a, layout_b, layout_d = layouts
        return _Launch(desc, (layout_a, layout_b, layout_d), algorithm, swapped, offsets, number(1.0), number(0.0))

    def _algorithm(self, device: int, desc: c_void_p, layouts: list[c_void_p], preference: c_void_p) -> _Algorithm:
        """The first choice of cuBLASLt's heuristics."""
        handle = self._handles.get(device)
        if handle is None:
            handle = c_void_p()
            self._call("cublasLtCreate", byref(handle))
            self._handles[device] = handle
        layout_a, layout_b, layout_d = layouts
        result, found = _HeuristicResult(), c_int()
        status = self._library.cublasLtMatmulAlgoGetHeuristic(
            handle, desc, layout_a, layout_b, layout_d, layout_d, preference, 1, byref(result), byref(found)
        )
        status = status or result.state
        if status in _CANNOT or (status == 0 and found.value == 0):
            said = _spelled(status) if status else "it found no algorithm"
            raise CublasLtUnsupportedError(f"cuBLASLt does not do this product on this device: {said}")
        _check("cublasLtMatmulAlgoGetHeuristic", status)
        return result.algo

    def _destroy(self, launch: _Launch | str) -> None:
        if isinstance(launch, _Launch):
            for layout in launch.layouts:
                self._call("cublasLtMatrixLayoutDestroy", layout)
            self._call("cublasLtMatmulDescDestroy", launch.desc)

    # -- running it ----------------------------------------------------------------------------------------------
    def _run(
        self,
        launch: _Launch,
        a: Array,
        b: Array,
        out: Array,
        accumulate: bool,
        bias: Array | None,
        aux: Array | None,
        stream: int,
    ) -> None:
        device = a.device.id
        workspace = self._workspaces.get((device, stream))
        if workspace is None:
            self._refuse_in_capture(stream, "this stream has no workspace")
            workspace = self._workspaces[device, stream] = self._xp.empty((WORKSPACE_BYTES,), "uint8")
        self._point(launch.desc, bias, aux)
        beta = launch.one if accumulate else launch.zero
        layout_a, layout_b, layout_d = launch.layouts
        first, second = (a, b) if launch.swapped else (b, a)
        for offset_a, offset_b, offset_d in launch.offsets:
            d = out.data.ptr + offset_d
            status = self._library.cublasLtMatmul(
                self._handles[device], launch.desc, byref(launch.one),
                first.data.ptr + offset_a, layout_a, second.data.ptr + offset_b, layout_b, byref(beta),
                d, layout_d, d, layout_d, byref(launch.algorithm), workspace.data.ptr, WORKSPACE_BYTES, stream,
            )  # fmt: skip
            if status:
                _check(f"cublasLtMatmul of {a.dtype} {a.shape} @ {b.shape}", status)

    def _point(self, desc: c_void_p, bias: Array | None, aux: Array | None) -> None:
        for attribute, array in ((_DESC_BIAS, bias), (_DESC_AUX, aux)):
            if array is not None:
                self._set("MatmulDesc", desc, attribute, c_void_p(array.data.ptr))

    def _refuse_in_capture(self, stream: int, what: str) -> None:
        if self._xp.cuda.runtime.streamIsCapturing(stream):
            raise CublasLtError(
                f"cuBLASLt: {what} before the capture began; run the step once on the same stream, then capture it"
            )

    def _set(self, what: str, handle: c_void_p, attribute: int, value: Any) -> None:
        self._call(f"cublasLt{what}SetAttribute", handle, attribute, byref(value), ctypes.sizeof(value))

    def _call(self, function: str, *args: Any) -> None:
        _check(function, getattr(self._library, function)(*args))


def aux_like(epilogue: str, rows: int, columns: int, dtype: Any) -> tuple[tuple[int, int], Any]:
    """Shape and dtype of the array that an epilogue writes in the forward pass and reads in the backward pass.

    What stands in it is cuBLASLt's own affair: each row is padded, ReLU's signs are bits.
    """
    aux = EPILOGUES[epilogue].aux
    if not aux:
        raise ValueError(f"aux_like: epilogue={epilogue!r} takes no aux")
    return ((rows, -(-columns // 128) * 16), "uint8") if aux == "mask" else ((rows, -(-columns // 8) * 8), dtype)


def _check_extras(
    kind: _Epilogue, epilogue: str, shape: tuple[int, ...], dtype: Any, bias: Array | None, aux: Array | None
) -> None:
    for name, array, wanted in (("bias", bias, kind.vector), ("aux", aux, kind.aux)):
        if (array is None) == bool(wanted):
            raise ValueError(f"matmul: epilogue={epilogue!r} {f'needs {name}' if wanted else f'takes no {name}'}")
    expected: list[tuple[str, Array, tuple[int, ...], Any]] = []
    if bias is not None:
        expected.append(("bias", bias, (shape[-1 if kind.vector == "columns" else -2],), dtype))
    if aux is not None:
        expected.append(("aux", aux, *aux_like(epilogue, shape[-2], shape[-1], dtype)))
    for name, array, right, of in expected:
        if array.shape != right or array.dtype != of or array.strides != _contiguous(right, array.dtype.itemsize):
            raise ValueError(
                f"matmul: {name} must be {of}, contiguous, of shape {right} for epilogue={epilogue!r}, "
                f"got {array.dtype} of {array.shape} with strides {array.strides}"
            )


def _matrix(name: str, shape: tuple[int, ...], strides: tuple[int, ...], item: int, stack: tuple[int, ...]) -> _Matrix:
    if any(stride % item for stride in strides):
        raise CublasLtUnsupportedError(f"{name} must have strides that are multiples of {item}, got {strides}")
    if min(strides) < 0:
        raise CublasLtUnsupportedError(f"{name} must not run backwards, got strides {strides}")
    steps = [stride // item for stride in strides]
    repeated = [0] * (len(stack) - len(shape) + 2)
    along = (step if length > 1 else 0 for step, length in zip(steps[:-2], shape[:-2], strict=True))
    return _Matrix(shape[-2], shape[-1], steps[-2], steps[-1], (*repeated, *along))


def _operation(name: str, matrix: _Matrix) -> tuple[int, int]:
    """Operation flag and leading dimension of an operand that lies in memory by rows or by columns."""
    if (lead := matrix.leading()) is not None:
        return _OP_N, lead
    if (lead := matrix.turned.leading()) is not None:
        return _OP_T, lead
    raise CublasLtUnsupportedError(f"{name} must have contiguous rows or columns, got strides of {matrix} in elements")


def _merged_axes(stack: tuple[int, ...], *steps: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The stack's axes as (length, one step for each operand), as few as the memory allows, the last one innermost."""
    axes: list[tuple[int, ...]] = []
    for length, *outer in zip(stack, *steps, strict=True):
        if length == 1:
            continue
        if axes and all(step == length * inner for step, inner in zip(axes[-1][1:], outer, strict=True)):
            axes[-1] = (axes[-1][0] * length, *outer)
        else:
            axes.append((length, *outer))
    return axes


def _contiguous(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    strides = [item]
    for length in shape[:0:-1]:
        strides.append(strides[-1] * length)
    return tuple(reversed(strides))


def _alignment(address: int) -> int:
    return min(address & -address, _WIDEST_ALIGNMENT) or _WIDEST_ALIGNMENT


def _spelled(status: int) -> str:
    return f"CUBLAS_STATUS_{_STATUS[status]} ({status})" if status in _STATUS else f"status {status}"


def _check(what: str, status: int) -> None:
    if status:
        raise CublasLtError(f"{what}: {_spelled(status)}")
