"""Matrix products: ``matmul`` with broadcasting over leading axes, and ``einsum``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..backend import Array, backend_of
from .axes import one_axis
from .broadcast import unbroadcast
from .elementwise import multiply
from .reduction import sum
from .shape import permute_dims, reshape
from .tape import op, require_arrays
from .tensor import Tensor


@op
def matmul(x: Array, y: Array) -> Any:
    """``x @ y`` with NumPy's rules: vectors, matrices, and stacks of matrices whose leading axes broadcast."""
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError("matmul: operands must have at least 1 dimension; multiply by a number with *")
    inner = y.shape[-2] if y.ndim > 1 else y.shape[0]
    if x.shape[-1] != inner:
        raise ValueError(f"matmul: the inner lengths must agree, got shapes {x.shape} and {y.shape}")
    backend = backend_of(x)
    if x.ndim == 2 and y.ndim == 2 and x.dtype == y.dtype:
        gemm = backend.gemm
        return gemm(x, y), (lambda dy, out: gemm(dy, y.T, out), lambda dy, out: gemm(x.T, dy, out))

    xs, ys, xt, yt = x.shape, y.shape, x.dtype, y.dtype
    a = x[None, :] if x.ndim == 1 else x  # (…, M, K)
    b = y[:, None] if y.ndim == 1 else y  # (…, K, N)
    z = backend.matmul(a, b)

    def widened(dy: Array) -> Array:  # the gradient with the axes that a vector operand took away
        g = dy[..., None] if len(ys) == 1 else dy
        return g[..., None, :] if len(xs) == 1 else g

    def dx(dy: Array, out: Any) -> Array:
        return unbroadcast(backend.matmul(widened(dy), b.swapaxes(-1, -2)), a.shape, xt).reshape(xs)

    def dy_(dy: Array, out: Any) -> Array:
        g = widened(dy)
        if b.ndim == 2 and a.ndim > 2:  # one matrix for a whole stack: its gradient is one product
            return backend.gemm(_as_matrix(a).T, _as_matrix(g)).reshape(ys).astype(yt)
        return unbroadcast(backend.matmul(a.swapaxes(-1, -2), g), b.shape, yt).reshape(ys)

    if len(ys) == 1:
        z = z[..., 0]
    if len(xs) == 1:
        z = z[..., 0, :] if len(ys) > 1 else z[..., 0]
    return z, (dx, dy_)


def _as_matrix(a: Array) -> Array:
    """A stack of rows as one matrix; -1 would be ambiguous where a row is empty."""
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])


def dot(x: Any, y: Any) -> Any:
    """``x @ y`` of vectors and matrices, ``x * y`` where one is 0-d, as NumPy's."""
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        require_arrays("dot", x=x, y=y)
    if x.ndim > 2 or y.ndim > 2:
        raise ValueError(f"dot: operands must have at most 2 dimensions, got shapes {x.shape}, {y.shape}; use matmul")
    return multiply(x, y) if x.ndim == 0 or y.ndim == 0 else matmul(x, y)


def outer(x: Any, y: Any) -> Any:
    """``x[i] * y[j]`` of all values of both, ``(x.size, y.size)``."""
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        require_arrays("outer", x=x, y=y)
    return multiply(reshape(x, (-1, 1)), reshape(y, (1, -1)))


def vecdot(x: Any, y: Any, axis: int = -1) -> Any:
    """The sum of products along one axis; the other axes broadcast."""
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        require_arrays("vecdot", x=x, y=y)
    return sum(multiply(x, y), axis)


def tensordot(x: Any, y: Any, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Any:
    """The sum over pairs of axes: x's last ``axes`` with y's first, or x's ``axes[0]`` with y's ``axes[1]``."""
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        require_arrays("tensordot", x=x, y=y)
    if isinstance(axes, int):
        xs, ys = tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes))
    else:
        xs, ys = (tuple(one_axis(a, t.ndim) for a in side) for side, t in zip(axes, (x, y), strict=True))
    if [x.shape[a] for a in xs] != [y.shape[a] for a in ys]:
        raise ValueError(f"tensordot: paired axes must agree in length, got shapes {x.shape}, {y.shape}, axes={axes}")
    x_kept = tuple(a for a in range(x.ndim) if a not in xs)
    y_kept = tuple(a for a in range(y.ndim) if a not in ys)
    inner = math.prod(x.shape[a] for a in xs)
    a = reshape(permute_dims(x, (*x_kept, *xs)), (math.prod(x.shape[a] for a in x_kept), inner))
    b = reshape(permute_dims(y, (*ys, *y_kept)), (inner, math.prod(y.shape[a] for a in y_kept)))
    return reshape(matmul(a, b), (*(x.shape[a] for a in x_kept), *(y.shape[a] for a in y_kept)))


def einsum(subscripts: str, *operands: Any) -> Any:
    """Sums of products named by letters: ``einsum("bij,bjk->bik", x, y)``.

    Each operand's letters must differ from each other (no diagonals), and ``...`` is not taken: name every axis.

    Raises:
        ValueError: the subscripts do not fit the operands.
    """
    if not isinstance(subscripts, str):
        raise TypeError(f"einsum: subscripts must be text such as 'ij,jk->ik', got {subscripts!r}")
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        letters = sorted(set(inputs.replace(",", "")))
        output = "".join(c for c in letters if inputs.count(c) == 1)
    if len(terms) != len(operands):
        raise ValueError(f"einsum: {subscripts!r} names {len(terms)} operands, got {len(operands)}")
    for i, (term, operand) in enumerate(zip(terms, operands, strict=True)):
        if not isinstance(operand, Tensor):
            require_arrays("einsum", **{f"operand {i + 1}": operand})
        if not term.isalpha() and term:
            raise ValueError(f"einsum: subscripts must be letters, got {term!r} in {subscripts!r}")
        if len(set(term)) != len(term):
            raise ValueError(f"einsum: a letter must not stand twice in one operand, got {term!r} in {subscripts!r}")
        if len(term) != operand.ndim:
            raise ValueError(
                f"einsum: {term!r} names {len(term)} axes, the operand has {operand.ndim} (shape {operand.shape})"
            )
    if set(output) - set("".join(terms)) or len(set(output)) != len(output):
        raise ValueError(f"einsum: the output {output!r} must use each letter of the operands at most once")
    return _einsum(tuple(terms), output, *operands)


@op
def _einsum(terms: tuple[str, ...], output: str, *arrays: Array) -> Any:
    xp = backend_of(arrays[0]).xp
    y = xp.einsum(",".join(terms) + "->" + output, *arrays)
    sizes = {c: n for term, array in zip(terms, arrays, strict=True) for c, n in zip(term, array.shape, strict=True)}

    def gradient(i: int) -> Any:
        others = [j for j in range(len(arrays)) if j != i]
        given = output + "".join(terms[j] for j in others)
        kept = "".join(c for c in terms[i] if c in given)  # a letter of this operand alone was summed over
        names = ",".join([output, *(terms[j] for j in others)])

        def make(dy: Array, out: Any) -> Array:
            g = xp.einsum(f"{names}->{kept}", dy, *(arrays[j] for j in others))
            g = g.reshape([sizes[c] if c in kept else 1 for c in terms[i]])
            return xp.broadcast_to(g, arrays[i].shape).astype(arrays[i].dtype)

        return make

    return y, (None, None, *(gradient(i) for i in range(len(arrays))))
