"""Where a normal number lies with a given probability: the inverse of the normal distribution function, on the host."""

from __future__ import annotations

from typing import Any

from ..backend import Array

# Rational approximations, lowest power first: near the middle in 0.180625 - (p - 1/2)², in the tails in
# r = sqrt(-log(min(p, 1 - p))), less 1.6 or 5.
_MIDDLE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
     3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_TAIL = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_FAR_TAIL = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
     1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def normal_quantile(xp: Any, p: Array) -> Array:
    """The x with ``P(standard normal number < x) = p``, exact to about 1e-15.

    Args:
        xp: the host's array module.
        p: probabilities in (0, 1), float64, shape ``(n,)``.
    Source: Wichura 1988, "Algorithm AS 241: the percentage points of the normal distribution", PPND16.
    """
    q = p - 0.5
    x = q * _ratio(0.180625 - q * q, _MIDDLE)
    tails = xp.flatnonzero(abs(q) > 0.425)
    q = q[tails]
    r = xp.sqrt(-xp.log(xp.where(q < 0, p[tails], 1.0 - p[tails])))
    x[tails] = xp.copysign(xp.where(r <= 5.0, _ratio(r - 1.6, _TAIL), _ratio(r - 5.0, _FAR_TAIL)), q)
    return x


def _ratio(x: Array, polynomials: tuple[tuple[float, ...], tuple[float, ...]]) -> Array:
    top, bottom = polynomials
    above, below = top[-1], bottom[-1]
    for a, b in zip(reversed(top[:-1]), reversed(bottom[:-1]), strict=True):
        above, below = above * x + a, below * x + b
    return above / below
