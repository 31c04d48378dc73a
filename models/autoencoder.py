"""Autoencoders: plain, denoising, sparse and convolutional; two modules, the penalties and two ways to make them.

What is learned is the input itself, through a code that cannot hold it all::

    model = models.autoencoder(64, 32, 8, rng=rng)
    training.fit(model, (x, x), loss=L.mse_loss, optimizer=training.Adam(model.parameters()), epochs=20)

A sparse one may have a long code, of which few values are used: Ω(h) is added to the loss::

    def loss(y, x):
        return L.mse_loss(y, x) + 1e-3 * models.l1_penalty(model.encode(x))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from ..autograd import Parameter, Tensor, clip, log
from ..autograd import abs as absolute
from ..autograd.tape import require_arrays
from ..backend import Generator, as_generator
from ..layers import Conv2d, ConvTranspose2d, Flatten, Linear, Module, ReLU, Sequential, Unflatten, init, linear
from ..layers.lengths import length
from ..layers.real import real


class Autoencoder(Module):
    """``y = decoder(encoder(noise(x)))``: x comes back from a code h that keeps what matters.

    Args:
        encoder: a module that maps x to the code h.
        decoder: a module that maps h to the shape of x.
        noise: a module that spoils x in training, such as ``GaussianNoise`` or ``Dropout``; with the clean x as the
            target it makes the autoencoder a denoising one (Vincent et al. 2008).
    """

    def __init__(self, encoder: Module, decoder: Module, *, noise: Module | None = None) -> None:
        for name, part in (("encoder", encoder), ("decoder", decoder), ("noise", noise)):
            if not (isinstance(part, Module) or (name == "noise" and part is None)):
                raise TypeError(f"Autoencoder: {name} must be a Module, got {part!r}")
        self.encoder, self.decoder, self.noise = encoder, decoder, noise

    def encode(self, x: Any) -> Tensor:
        """The code h of x as it is, without noise."""
        return self.encoder(x)

    def decode(self, h: Any) -> Tensor:
        """What the code h stands for."""
        return self.decoder(h)

    def forward(self, x: Any) -> Tensor:
        return self.decoder(self.encoder(x if self.noise is None else self.noise(x)))


class TiedLinear(Module):
    """``y = x weight + bias`` with the weight of another linear layer, the other way: a decoder's layer (tied weights).

    Args:
        layer: the encoder's, ``(in, out)``; this one is ``(out, in)`` and shares its weight, so that both gradients add
            up in one parameter.
    """

    def __init__(self, layer: Linear) -> None:
        if not isinstance(layer, Linear):
            raise TypeError(f"TiedLinear: layer must be a Linear, got {type(layer).__name__}")
        self.weight = layer.weight
        self.bias = Parameter(init.zeros((layer.weight.shape[1],)))

    def forward(self, x: Any) -> Tensor:
        return linear(x, self.weight.mT, self.bias)

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"in_features={out_features}, out_features={in_features}"


def autoencoder(
    *features: int,
    activation: Callable[[], Any] = ReLU,
    code_activation: Callable[[], Any] | None = None,
    output_activation: Callable[[], Any] | None = None,
    tied: bool = False,
    noise: Module | None = None,
    rng: Generator | None = None,
) -> Autoencoder:
    """Linear layers down to the code and, mirrored, up again: ``autoencoder(64, 32, 8)`` is 64-32-8-32-64.

    With two lengths and no activation the model is linear, and at its least squared error the decoder spans the
    subspace of the first principal components.

    Args:
        features: lengths of the input, of each hidden layer of the encoder and of the code; at least two.
        activation: makes the module after each hidden layer.
        code_activation: makes the one after the code, such as ``Sigmoid`` for :func:`kl_penalty`; None leaves it out.
        output_activation: makes the last one, such as ``Sigmoid`` for values in 0 … 1; None leaves it out.
        tied: the decoder's weights are the encoder's, transposed.
        noise: spoils the input in training, as for :class:`Autoencoder`.
        rng: draws the initial values; a fresh generator by default.
    Source: Rumelhart, Hinton and Williams 1986; Baldi and Hornik 1989 (the linear one).
    """
    rng = as_generator("autoencoder", rng)
    if len(features) < 2:
        raise ValueError(f"autoencoder: features must be at least two lengths, input and code, got {features}")
    features = tuple(length("autoencoder", "features", n, 1) for n in features)
    for name, make in (
        ("activation", activation),
        ("code_activation", code_activation),
        ("output_activation", output_activation),
    ):
        if (make is None and name == "activation") or isinstance(make, Module) or not (make is None or callable(make)):
            raise TypeError(f"autoencoder: {name} must make a module, such as layers.Tanh, got {make!r}")
    down = [Linear(before, after, rng=rng) for before, after in pairwise(features)]
    up: list[Any] = []
    for layer, (before, after) in zip(reversed(down), pairwise(features[::-1]), strict=True):
        up.append(TiedLinear(layer) if tied else Linear(before, after, rng=rng))
    encoder = _with_activations(down, activation, code_activation)
    return Autoencoder(encoder, _with_activations(up, activation, output_activation), noise=noise)


def conv_autoencoder(
    image: Sequence[int] = (1, 28, 28),
    code: int = 32,
    *,
    channels: Sequence[int] = (16, 32),
    output_activation: Callable[[], Any] | None = None,
    noise: Module | None = None,
    rng: Generator | None = None,
) -> Autoencoder:
    """Convolutions of stride 2, each of which halves the image, and a linear layer to the code; then all of it back.

    Args:
        image: channels, height and width of the images.
        code: length of the code.
        channels: of each 3 x 3 convolution.
        output_activation, noise, rng: as for :func:`autoencoder`.
    Returns:
        an Autoencoder that maps ``(N, *image)`` to ``(N, *image)``, and encodes to ``(N, code)``.
    Source: Masci et al. 2011, "Stacked convolutional auto-encoders", with strides in place of pooling.
    """
    rng = as_generator("conv_autoencoder", rng)
    for what, numbers in (("image", image), ("channels", channels)):
        if not isinstance(numbers, (tuple, list)) or not numbers:
            raise TypeError(f"conv_autoencoder: {what} must be a tuple or list of integers, got {numbers!r}")
    image = tuple(length("conv_autoencoder", "image", n, 1) for n in image)
    widths = [image[0], *(length("conv_autoencoder", "channels", n, 1) for n in channels)]
    if len(image) != 3:
        raise ValueError(f"conv_autoencoder: image must be (channels, height, width), got {image}")
    sizes: list[tuple[int, ...]] = [image[1:]]
    down: list[Any] = []
    for before, after in pairwise(widths):
        down += [Conv2d(before, after, 3, stride=2, padding=1, rng=rng), ReLU()]
        sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
    inner = (widths[-1], *sizes[-1])
    flat = inner[0] * inner[1] * inner[2]
    code = length("conv_autoencoder", "code", code, 1)
    up: list[Any] = [Linear(code, flat, rng=rng), ReLU(), Unflatten(1, inner)]
    for i in reversed(range(len(channels))):
        even = tuple(1 - n % 2 for n in sizes[i])  # an even size n was halved to n / 2, which gives n - 1 back
        up.append(ConvTranspose2d(widths[i + 1], widths[i], 3, stride=2, padding=1, output_padding=even, rng=rng))
        if i > 0:
            up.append(ReLU())
    if output_activation is not None:
        up.append(output_activation())
    return Autoencoder(Sequential(*down, Flatten(), Linear(flat, code, rng=rng)), Sequential(*up), noise=noise)


def l1_penalty(h: Any) -> Tensor:
    """``Ω(h) = Σ_j |h_j|``, a mean over the batch; 0-d.

    Args:
        h: codes, shape ``(N, D)``.
    Source: Olshausen and Field 1996; Goodfellow, Bengio and Courville 2016, section 14.2.1.
    """
    return absolute(h).sum() / len(h)


def kl_penalty(h: Any, rho: float = 0.05) -> Tensor:
    """``Ω(h) = Σ_j KL(ρ ‖ ρ̂_j)`` with ρ̂_j the mean of ``h_j`` over the batch: each unit is to be on a share ρ of it.

    ``KL(ρ ‖ ρ̂) = ρ log(ρ / ρ̂) + (1 - ρ) log((1 - ρ) / (1 - ρ̂))``, 0 at ρ̂ = ρ. Means are kept 1e-6 away from 0 and 1.

    Args:
        h: codes between 0 and 1, as a sigmoid gives them, shape ``(N, D)``.
        rho: ρ, between 0 and 1.
    Source: Ng 2011, "Sparse autoencoder".
    """
    require_arrays("kl_penalty", h=h)
    rho = real("kl_penalty", "rho", rho)
    if not 0.0 < rho < 1.0:
        raise ValueError(f"kl_penalty: rho must be between 0 and 1, got {rho}")
    mean = clip(h.mean(axis=0), 1e-6, 1.0 - 1e-6)
    return (rho * (math.log(rho) - log(mean)) + (1.0 - rho) * (math.log(1.0 - rho) - log(1.0 - mean))).sum()


def _with_activations(layers: list[Any], between: Callable[[], Any], last: Callable[[], Any] | None) -> Sequential:
    parts: list[Any] = []
    for i, layer in enumerate(layers):
        make = between if i < len(layers) - 1 else last
        parts += [layer] if make is None else [layer, make()]
    return Sequential(*parts)
