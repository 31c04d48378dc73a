"""GPT: a training step of the character model of ``examples/text``, and a token after many, with a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Run, relative_error, worst
from lamella.benchmarks.model import Model, model_case, weights


def gpt_parameters(vocabulary: int, longest: int, d: int, depth: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"wte.weight": (vocabulary, d), "wpe.weight": (longest, d)}
    shapes = {
        "ln_1": (d,), "attn.c_attn": (3 * d, d), "attn.c_proj": (d, d),
        "ln_2": (d,), "mlp.c_fc": (4 * d, d), "mlp.c_proj": (d, 4 * d),
    }  # fmt: skip
    for i in range(depth):
        for name, shape in shapes.items():
            found |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[:1]}
    return found | {"ln_f.weight": (d,), "ln_f.bias": (d,)}


def rival(nn: Any, vocabulary: int, longest: int, d: int, depth: int, heads: int) -> Any:
    """The same model in PyTorch, with its fused attention; a cache is a list of keys and values for each block."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn, self.c_proj = nn.Linear(d, 3 * d), nn.Linear(d, d)

        def forward(self, x: Any, cache: Any, start: int) -> Any:
            count, places, _ = x.shape
            q, k, v = (
                part.view(count, places, heads, d // heads).transpose(1, 2) for part in self.c_attn(x).split(d, 2)
            )
            if cache is not None:
                for kept, new in zip(cache, (k, v), strict=True):
                    kept[:, :, start : start + places] = new
                k, v = (kept[:, :, : start + places] for kept in cache)
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=places > 1)
            return self.c_proj(y.transpose(1, 2).reshape(count, places, d))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_fc, self.c_proj = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

        def forward(self, x: Any) -> Any:
            return self.c_proj(nn.functional.gelu(self.c_fc(x), approximate="tanh"))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2, self.attn, self.mlp = nn.LayerNorm(d), nn.LayerNorm(d), Attention(), Network()

        def forward(self, x: Any, cache: Any, start: int) -> Any:
            x = x + self.attn(self.ln_1(x), cache, start)
            return x + self.mlp(self.ln_2(x))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(vocabulary, d), nn.Embedding(longest, d)
            self.h, self.ln_f = nn.ModuleList(Block() for _ in range(depth)), nn.LayerNorm(d)

        def forward(self, ids: Any, cache: Any = None, start: int = 0) -> Any:
            x = self.wte(ids) + self.wpe.weight[start : start + ids.shape[1]]
            for i, block in enumerate(self.h):
                x = block(x, None if cache is None else cache[i], start)
            return nn.functional.linear(self.ln_f(x), self.wte.weight)

    return Model()


def build(nn: Any, *sizes: int) -> Any:
    """The model of either library."""
    if not nn.__name__.startswith("lamella"):
        return rival(nn, *sizes)
    import lamella

    return lamella.models.GPT(*sizes, dropout=0.0)


def step_case(batch: int, places: int, vocabulary: int, d: int, depth: int, heads: int, **options: Any) -> Case:
    """A training step; half of the operations of the attention are not done, since no token sees a later one."""
    model = Model(
        lambda nn: build(nn, vocabulary, places, d, depth, heads),
        lambda nn, module, ids: module(ids).reshape(-1, vocabulary),
        gpt_parameters(vocabulary, places, d, depth),
        training=True,
    )
    tokens = batch * places
    return model_case(
        f"char GPT step {depth}×{d}, {batch}×{places}",
        model,
        lambda rng: (rng.integers(0, vocabulary, (batch, places)), rng.integers(0, vocabulary, tokens)),
        2 * tokens * (12 * depth * d * d + d * vocabulary) + 2 * depth * tokens * places * d,
        images=False,
        needs=("models.GPT",),
        **options,
    )


def token_case(before: int, vocabulary: int, d: int, depth: int, heads: int, **options: Any) -> Case:
    """The scores after one more token, keys and values of those before in a cache."""
    sizes = (vocabulary, before + 1, d, depth, heads)
    shapes = gpt_parameters(vocabulary, before + 1, d, depth)
    model = Model(lambda nn: build(nn, *sizes), lambda *_: None, shapes, training=False)

    def lamella(ids: Any, *parameters: Any) -> Run:
        import lamella
        from lamella.backend import backend_of

        module = model.build(lamella.layers).to(backend_of(ids).device_of(ids), parameters[0].dtype).eval()
        module.load_state_dict(dict(zip(model.parameters, parameters, strict=True)))
        cache = lamella.layers.KVCache(before + 1)
        with lamella.no_grad():
            module.features(ids[:, :-1], cache=cache)

        def token() -> tuple[Any, ...]:
            cache.truncate(before)
            with lamella.no_grad():
                return (module(ids[:, -1:], cache=cache).data,)

        return token

    def torch(torch: Any, wrap: Callable[..., Any], ids: Any, *parameters: Any) -> Run:
        module = model.build(torch.nn).to(device=ids.device, dtype=parameters[0].dtype).eval()
        module.load_state_dict(dict(zip(model.parameters, parameters, strict=True)))
        shape = (1, heads, before + 1, d // heads)
        cache = [[torch.empty(shape, dtype=parameters[0].dtype, device=ids.device) for _ in "kv"] for _ in range(depth)]
        forward = wrap(module)
        with torch.inference_mode():
            module(ids[:, :-1], cache)

        def token() -> tuple[Any, ...]:
            with torch.inference_mode():
                return (forward(ids[:, -1:], cache, before),)

        return token

    def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
        """Against all tokens at once in float64, without a cache."""
        import lamella

        ids, *parameters = inputs
        module = model.build(lamella.layers).to(dtype="float64").eval()
        module.load_state_dict(dict(zip(model.parameters, (p.astype(np.float64) for p in parameters), strict=True)))
        with lamella.no_grad():
            expected = module(ids, last_only=True).to_numpy()
        return worst([relative_error(r.astype(np.float64), expected) for r in results])

    return Case(
        name=f"GPT token after {before}, {depth}×{d}",
        suite="models",
        numbers=lambda rng: (rng.integers(0, vocabulary, (1, before + 1)), *weights(rng, model)),
        contenders={"lamella": lamella, "torch": torch},
        error=error,
        values=depth * (12 * d * d + 2 * before * d) + vocabulary * d,
        operations=2 * (depth * (12 * d * d + 2 * before * d) + vocabulary * d),
        bound=2048.0,
        needs=("models.GPT",),
        **options,
    )


CASES = [
    step_case(32, 128, 84, 128, 4, 4),
    token_case(100, 84, 128, 4, 4),
    token_case(1000, 5000, 512, 6, 8),
]


def bench_gpt(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
