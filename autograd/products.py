"""Matrix products: ``matmul`` with broadcasting over leading axes, and ``einsum``."""

from __future__ import annotations

from typing import Any

from ..backend import Array, backend_of
from .broadcast import unbroadcast
from .tape import op


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
    z = _product(a, b)

    def widened(dy: Array) -> Array:  # the gradient with the axes that a vector operand took away
        g = dy[..., None] if len(ys) == 1 else dy
        return g[..., None, :] if len(xs) == 1 else g

    def dx(dy: Array, out: Any) -> Array:
        return unbroadcast(_product(widened(dy), b.swapaxes(-1, -2)), a.shape, xt).reshape(xs)

    def dy_(dy: Array, out: Any) -> Array:
        g = widened(dy)
        if b.ndim == 2 and a.ndim > 2:  # one matrix for a whole stack: its gradient is one product
            return backend.gemm(a.reshape(-1, a.shape[-1]).T, g.reshape(-1, g.shape[-1])).reshape(ys).astype(yt)
        return unbroadcast(_product(a.swapaxes(-1, -2), g), b.shape, yt).reshape(ys)

    if len(ys) == 1:
        z = z[..., 0]
    if len(xs) == 1:
        z = z[..., 0, :] if len(ys) > 1 else z[..., 0]
    return z, (dx, dy_)


def _product(a: Array, b: Array) -> Array:
    """A stack of products; a stack times one matrix is done as one large product."""
    backend = backend_of(a)
    if b.ndim == 2:
        return backend.gemm(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
    return backend.xp.matmul(a, b)


def einsum(subscripts: str, *operands: Any) -> Any:
    """Sums of products named by letters: ``einsum("bij,bjk->bik", x, y)``.

    Each operand's letters must differ from each other (no diagonals), and ``...`` is not taken: name every axis.

    Raises:
        ValueError: the subscripts do not fit the operands.
    """
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        letters = sorted(set(inputs.replace(",", "")))
        output = "".join(c for c in letters if inputs.count(c) == 1)
    if len(terms) != len(operands):
        raise ValueError(f"einsum: {subscripts!r} names {len(terms)} operands, got {len(operands)}")
    for term, operand in zip(terms, operands, strict=True):
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
