"""Training steps of multilayer perceptrons: forward, loss, backward and Adam, through public classes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Run, normal, relative_error

STEPS = 3  # of which the losses are judged


def lamella(lr: float, classes: bool) -> Callable[..., Run]:
    def build(x: Any, y: Any, *weights: Any) -> Run:
        import lamella
        from lamella.backend import backend_of

        backend = backend_of(x)
        device = backend.device_of(x)
        model = lamella.models.mlp(weights[0].shape[1], *(len(w) for w in weights)).to(device)
        if x.dtype.name != "float32":
            model.to(dtype=x.dtype)
        state = {f"{2 * i}.weight": w for i, w in enumerate(weights)}
        state |= {name: backend.xp.zeros_like(value) for name, value in model.state_dict().items() if "bias" in name}
        model.load_state_dict(state)
        optimizer = lamella.training.Adam(model.parameters(), lr=lr)
        inputs, targets = lamella.Tensor(x), lamella.Tensor(y)
        loss_of = lamella.layers.cross_entropy if classes else lamella.layers.mse_loss

        def run() -> tuple[Any, ...]:
            optimizer.zero_grad()
            loss = loss_of(model(inputs), targets)
            loss.backward()
            optimizer.step()
            return (loss.data,)

        return run

    return build


def torch_contender(lr: float, classes: bool, **options: Any) -> Callable[..., Run]:
    def build(torch: Any, wrap: Callable[..., Any], x: Any, y: Any, *weights: Any) -> Run:
        nn = torch.nn
        layers: list[Any] = []
        for w in weights:
            linear = nn.Linear(w.shape[1], w.shape[0], device=x.device, dtype=x.dtype)
            linear.weight.data.copy_(w)
            linear.bias.data.zero_()
            layers += [linear, nn.ReLU()]
        model = nn.Sequential(*layers[:-1])
        optimizer = torch.optim.Adam(model.parameters(), lr=lr, **options)
        loss_of = nn.functional.cross_entropy if classes else nn.functional.mse_loss
        forward = wrap(lambda x, y: loss_of(model(x), y))

        def run() -> tuple[Any, ...]:
            optimizer.zero_grad()
            loss = forward(x, y)
            loss.backward()
            optimizer.step()
            return (loss.detach(),)

        return run

    return build


def by_hand(lr: float, classes: bool) -> Callable[..., Run]:
    """The step in bare NumPy, in the dtype of the numbers: a contender, and in float64 the judge."""

    def build(x: Any, y: Any, *weights: Any) -> Run:
        ws = [w.copy() for w in weights]
        bs = [np.zeros(len(w), w.dtype) for w in weights]
        parameters = [*ws, *bs]
        moments = [(np.zeros_like(p), np.zeros_like(p)) for p in parameters]
        steps = 0

        def run() -> tuple[Any, ...]:
            nonlocal steps
            h = [x]
            for i, (w, b) in enumerate(zip(ws, bs, strict=True)):
                z = h[-1] @ w.T + b
                h.append(np.maximum(z, 0) if i < len(ws) - 1 else z)
            if classes:
                e = np.exp(h[-1] - h[-1].max(axis=1, keepdims=True))
                p = e / e.sum(axis=1, keepdims=True)
                place = (np.arange(len(x)), y)
                loss = -np.log(p[place]).mean()
                p[place] -= 1
                d = p / len(x)
            else:
                d = h[-1] - y
                loss = (d * d).mean()
                d = d * (2 / d.size)
            dws: list[Any] = []
            dbs: list[Any] = []
            for i in reversed(range(len(ws))):
                dws.insert(0, d.T @ h[i])
                dbs.insert(0, d.sum(axis=0))
                if i:
                    d = (d @ ws[i]) * (h[i] > 0)
            steps += 1
            for p, g, (m, v) in zip(parameters, [*dws, *dbs], moments, strict=True):
                m *= 0.9
                m += 0.1 * g
                v *= 0.999
                v += 0.001 * g * g
                p -= lr * (m / (1 - 0.9**steps)) / (np.sqrt(v / (1 - 0.999**steps)) + 1e-8)
            return (np.asarray(loss),)

        return run

    return build


def judge(build: Callable[..., Run]) -> Callable[..., float]:
    """The losses of the first steps, by the same steps in float64."""

    def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
        run = build(*inputs)
        expected = np.concatenate([np.reshape(run()[0], 1) for _ in range(STEPS)])
        found = np.concatenate([np.reshape(loss, 1) for loss in results])
        return relative_error(found.astype(np.float64), expected)

    return error


def case(features: tuple[int, ...], batch: int, lr: float, classes: bool, **options: Any) -> Case:
    def numbers(rng: Any) -> tuple[Any, ...]:
        x = normal(rng, batch, features[0])
        y = rng.integers(0, features[-1], batch) if classes else normal(rng, batch, features[-1])
        return x, y, *(normal(rng, after, before, scale=before**-0.5) for before, after in pairwise(features))

    weights = sum(before * after for before, after in pairwise(features))
    return Case(
        name=f"MLP step {'-'.join(map(str, features))}",
        suite="models",
        numbers=numbers,
        contenders={
            "lamella": lamella(lr, classes),
            "torch": torch_contender(lr, classes),
            "torch fused": torch_contender(lr, classes, fused=True),
            "numpy": by_hand(lr, classes),
        },
        error=judge(by_hand(lr, classes)),
        values=10 * weights,  # the weights in three products, their gradients, and seven values each in Adam's step
        operations=6 * batch * weights,
        steps=STEPS,
        family="MLP step",
        size=batch * weights,
        **options,
    )


CASES = [
    case((9, 16, 8, 1), 32, 1e-3, classes=False, target="W1 MLP", quick=True),
    case((784, 512, 256, 10), 128, 1e-4, classes=True, target="W2 MLP", quick=True, dtypes=("float32", "tf32")),
]


def bench_mlp(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
