"""Initial values: pure functions of a shape and a generator that give float32 arrays on the host.

Layers start as PyTorch's do. To start otherwise, draw values and assign them::

    weight = L.init.glorot_uniform(layer.weight.shape, rng=rng)
    L.init.assign(layer.weight, weight)
    L.init.assign(layer.bias, L.init.zeros(layer.bias.shape))

Everything is drawn on the host, so every device starts with the same bits. What scale does to a deep network is the
point: with weights that are all equal (zeros, ones) every unit of a layer stays the same for ever; too small, the
signal and its gradient fade with depth; too large, they explode; Glorot's and He's scales keep the variance of the
signal near 1 from layer to layer.

A weight has shape ``(out, in)`` or, for convolutions, ``(out, in / groups, *kernel)``: see :func:`fans`.
"""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, note_write
from ..backend import Array, Generator, as_generator, backend_for, backend_of, device
from .normal_quantile import normal_quantile

Shape = tuple[int, ...]


def _host() -> Any:
    return backend_for(device("cpu")).xp


def _generator(rng: Generator | None) -> Generator:
    return as_generator("init", rng)


def assign(parameter: Tensor, values: Any) -> None:
    """Write values into a parameter, in place, on its device and in its dtype; the tape sees it.

    Raises:
        ValueError: the shapes differ. TypeError: ``values`` is no array.
    """
    array = values.data if isinstance(values, Tensor) else values
    backend, place = backend_of(array), parameter.device
    if array.shape != parameter.shape:
        raise ValueError(f"assign: values must have the parameter's shape {parameter.shape}, got {array.shape}")
    if backend.device_of(array) != place:
        array = backend_for(place).from_numpy(backend.to_numpy(array), place)
    parameter.data[...] = array.astype(parameter.dtype)
    note_write(parameter.data)


# -- without a thought for the layer --------------------------------------------------------------------------------


def constant(shape: Shape, value: float) -> Array:
    """The same number everywhere."""
    return _host().full(shape, value, "float32")


def zeros(shape: Shape) -> Array:
    """0 everywhere: right for biases, wrong for weights, whose units would then all stay alike."""
    return constant(shape, 0.0)


def ones(shape: Shape) -> Array:
    """1 everywhere."""
    return constant(shape, 1.0)


def uniform(shape: Shape, low: float = 0.0, high: float = 1.0, *, rng: Generator | None = None) -> Array:
    """Uniform in [low, high)."""
    if not high >= low:
        raise ValueError(f"uniform: high must not be below low, got low={low}, high={high}")
    return _generator(rng).uniform(shape, low, high)


def normal(shape: Shape, mean: float = 0.0, std: float = 1.0, *, rng: Generator | None = None) -> Array:
    """Normal; std 0.01 is the lectures' small random start, std 1 the large one."""
    _check_std("normal", std)
    return _generator(rng).normal(shape, mean, std)


def truncated_normal(
    shape: Shape,
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    *,
    rng: Generator | None = None,
) -> Array:
    """Normal, cut off outside ``[low, high]``, as ``torch.nn.init.trunc_normal_`` has it.

    ``low`` and ``high`` are values, not multiples of ``std``, and ``std`` is that before the cut: what comes out varies
    less (0.88 std for a cut at 2 std), where Keras and JAX correct for it. One 32-bit word is drawn for each value.
    """
    _check_std("truncated_normal", std)
    if not high > low:
        raise ValueError(f"truncated_normal: high must be above low, got low={low}, high={high}")
    xp = _host()
    if std == 0:
        return constant(shape, min(max(mean, low), high))
    u = (_generator(rng).bits(math.prod(shape)).astype("float64") + 0.5) * 2.0**-32
    a, b = (low - mean) / std, (high - mean) / std
    mirrored = a > 0  # in the lower tail a probability keeps its digits
    if mirrored:
        a, b = -b, -a
    below_a, below_b = (0.5 * math.erfc(-bound / math.sqrt(2.0)) for bound in (a, b))
    if not below_b > 0:
        raise ValueError(f"truncated_normal: [{low}, {high}] is too far from mean={mean} for std={std}")
    z = normal_quantile(xp, below_a + (below_b - below_a) * u)
    return xp.clip(mean + std * (-z if mirrored else z), low, high).astype("float32").reshape(shape)


def identity(shape: Shape) -> Array:
    """1 on the diagonal of a matrix: the layer starts as the identity."""
    if len(shape) != 2:
        raise ValueError(f"identity: shape must have two axes, got {shape}")
    return _host().eye(*shape, dtype="float32")


def dirac(shape: Shape, groups: int = 1) -> Array:
    """A convolution ``(out, in / groups, *kernel)`` that starts as the identity, one channel to one."""
    if len(shape) < 3:
        raise ValueError(f"dirac: shape must be that of a convolution, (out, in, *kernel), got {shape}")
    if groups < 1 or shape[0] % groups:
        raise ValueError(f"dirac: out channels must be divisible by groups, got {shape[0]} and groups={groups}")
    weight = zeros(shape)
    centre = tuple(length // 2 for length in shape[2:])
    out = shape[0] // groups
    for group in range(groups):
        for channel in range(min(out, shape[1])):
            weight[(group * out + channel, channel, *centre)] = 1.0
    return weight


# -- scaled to the layer --------------------------------------------------------------------------------------------


def fans(shape: Shape) -> tuple[int, int]:
    """``(fan_in, fan_out)``: how many inputs an output has, and how many outputs an input reaches.

    ``(out, in)`` gives ``(in, out)``; ``(out, in / groups, *kernel)`` gives both times the size of the kernel, where
    PyTorch does not divide ``out`` by the groups.
    """
    if len(shape) < 2:
        raise ValueError(f"fans: shape must have at least two axes (out, in, *kernel), got {shape}")
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """What an activation takes from the standard deviation of its input, to be given back by the weights before it.

    Args:
        nonlinearity: ``"linear"``, ``"sigmoid"``, ``"tanh"``, ``"relu"``, ``"leaky_relu"``, ``"selu"``, or the name of
            a convolution such as ``"conv2d"``; PyTorch's names and values.
        param: the slope of ``"leaky_relu"`` below 0, 0.01 by default.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1.0 + slope * slope))
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75}
    gains |= {f"conv{kind}{n}d": 1.0 for kind in ("", "_transpose") for n in (1, 2, 3)}
    if nonlinearity not in gains:
        names = ", ".join(sorted([*gains, "leaky_relu"]))
        raise ValueError(f"calculate_gain: nonlinearity must be one of {names}, got {nonlinearity!r}")
    return gains[nonlinearity]


def glorot_uniform(shape: Shape, gain: float = 1.0, *, rng: Generator | None = None) -> Array:
    """U(±gain sqrt(6 / (fan_in + fan_out))): Xavier initialisation, for tanh and sigmoid.

    Source: Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks".
    """
    bound = gain * _scale(6.0, sum(fans(shape)))
    return uniform(shape, -bound, bound, rng=rng)


def glorot_normal(shape: Shape, gain: float = 1.0, *, rng: Generator | None = None) -> Array:
    """N(0, gain² 2 / (fan_in + fan_out)): the normal form of :func:`glorot_uniform`."""
    return normal(shape, 0.0, gain * _scale(2.0, sum(fans(shape))), rng=rng)


def he_uniform(
    shape: Shape,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: Generator | None = None,
) -> Array:
    """U(±gain sqrt(3 / fan)): Kaiming initialisation, for ReLU and its kin.

    Args:
        shape: of the weight.
        a: the slope of ``"leaky_relu"`` below 0; 0 is ReLU.
        mode: ``"fan_in"`` keeps the variance of the signal, ``"fan_out"`` that of the gradient.
        nonlinearity: for :func:`calculate_gain`.
        rng: draws the values; a fresh generator by default.
    Source: He et al. 2015, "Delving deep into rectifiers", arXiv 1502.01852.
    """
    bound = calculate_gain(nonlinearity, a) * _scale(3.0, _fan(shape, mode))
    return uniform(shape, -bound, bound, rng=rng)


def he_normal(
    shape: Shape,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: Generator | None = None,
) -> Array:
    """N(0, gain² / fan): the normal form of :func:`he_uniform`."""
    return normal(shape, 0.0, calculate_gain(nonlinearity, a) * _scale(1.0, _fan(shape, mode)), rng=rng)


def fan_in_uniform(shape: Shape, fan_in: int, *, rng: Generator | None = None) -> Array:
    """U(±1/sqrt(fan_in)), PyTorch's default for the weights and biases of linear and convolution layers.

    For weights this is He initialisation with the gain of a leaky ReLU of slope sqrt(5).
    Source: He et al. 2015, arXiv 1502.01852, as set up in ``torch.nn.Linear.reset_parameters``.
    """
    bound = _scale(1.0, fan_in)
    return uniform(shape, -bound, bound, rng=rng)


def orthogonal(shape: Shape, gain: float = 1.0, *, rng: Generator | None = None) -> Array:
    """gain times a random matrix ``(shape[0], the rest)`` whose rows, or columns where they are fewer, are orthonormal.

    Uniform among all such matrices: the signs of R's diagonal are moved into Q.
    Source: Saxe et al. 2013, "Exact solutions to the nonlinear dynamics of learning", arXiv 1312.6120; Mezzadri 2007,
        "How to generate random matrices from the classical compact groups" (the signs).
    """
    if len(shape) < 2:
        raise ValueError(f"orthogonal: shape must have at least two axes, got {shape}")
    xp = _host()
    rows, cols = shape[0], math.prod(shape[1:])
    if not rows * cols:
        return zeros(shape)
    x = _generator(rng).normal((max(rows, cols), min(rows, cols))).astype("float64")
    q, r = xp.linalg.qr(x)
    q *= xp.where(xp.diagonal(r) < 0, -gain, gain)
    return xp.ascontiguousarray(q.T if rows < cols else q).reshape(shape).astype("float32")


def _fan(shape: Shape, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"he: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return fans(shape)[mode == "fan_out"]


def _scale(variance: float, fan: int) -> float:
    return math.sqrt(variance / fan) if fan else 0.0


def _check_std(function: str, std: float) -> None:
    if not std >= 0:
        raise ValueError(f"{function}: std must not be negative, got {std}")
