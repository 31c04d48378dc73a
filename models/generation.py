"""Writing on: a decoder is given tokens, chooses the next, and is given that one too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..autograd import Tensor, no_grad
from ..autograd.tape import require_arrays
from ..backend import Array, Generator, as_generator, backend_for, backend_of, device, is_array
from ..layers import KVCache, Module
from ..layers.lengths import length
from ..layers.real import real
from .sampling import draw, greatest, keep_top_k, keep_top_p, penalize_repetition
from .transformer import EncoderDecoder


def generate(
    model: Module,
    ids: Any,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    eos_id: int | Sequence[int] | None = None,
    pad_id: int | None = None,
    memory: Any = None,
    use_cache: bool = True,
    rng: Generator | None = None,
) -> Array:
    """The tokens that ``model`` writes after ``ids``, without gradients and in evaluation mode.

    Row n is what it would be without the others, but for rounding and for the place of its draws in ``rng``'s stream.

    Args:
        model: a :class:`GPT`, or a module that is called as one, ``model(ids, cache=…, padding=…, last_only=True)``;
            with ``memory`` a module that is called ``model.decode(ids, memory, cache=…)``.
        ids: the beginnings: integers of shape ``(N, T)``, or ``(T,)`` for one; or a list of N lists of lengths that may
            differ. At least one token each.
        max_new_tokens: how many tokens at most.
        temperature: 0 takes the token with the greatest score each time; else tokens are drawn with the probabilities
            ``softmax(scores / temperature)``, after what follows.
        top_k: only the k tokens with the greatest scores can be drawn; this and the next need a temperature above 0.
        top_p: only the fewest most probable tokens whose probabilities add up to this can be drawn.
        repetition_penalty: above 1 makes tokens less likely that the sequence, its beginning included, already holds.
        eos_id: a row ends with this token, or with one of these; all rows ended end the writing.
        pad_id: what follows the end of a row; the first of ``eos_id`` by default. It need not be a token of the model.
        memory: what an encoder made of N sources, with a method ``take(rows)``.
        use_cache: whether keys and values of earlier tokens are kept; else all is computed anew for each token.
        rng: the stream of the draws, two words for each row and token; a fresh generator by default. A seed gives the
            same tokens on every device, where the scores are the same.
    Returns:
        int64 on the host, the new tokens alone: shape ``(N, M)``, or ``(M,)`` for one, ``M <= max_new_tokens``.
    Raises:
        ValueError: an argument is out of its range, or the model has not that many places.
        FloatingPointError: scores are NaN.
    """
    one, steps = _writing(
        "generate", model, ids, max_new_tokens, temperature, top_k, top_p, repetition_penalty, eos_id, pad_id, memory,
        use_cache, rng,
    )  # fmt: skip
    xp = host_library()
    found = list(steps)
    tokens = xp.stack(found, axis=1) if found else xp.empty((0 if one else len(ids), 0), "int64")
    return tokens.reshape(-1) if one else tokens


def stream(
    model: Module,
    ids: Any,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    eos_id: int | Sequence[int] | None = None,
    pad_id: int | None = None,
    memory: Any = None,
    use_cache: bool = True,
    rng: Generator | None = None,
) -> Iterator[Any]:
    """The same tokens as :func:`generate`, each as soon as it is chosen: ``for token in stream(model, ids, 100)``.

    Between two of them gradients and the model's mode are as the caller left them.

    Arguments as for :func:`generate`.
    Yields:
        an int for one sequence, else N of them as int64 on the host.
    """
    one, steps = _writing(
        "stream", model, ids, max_new_tokens, temperature, top_k, top_p, repetition_penalty, eos_id, pad_id, memory,
        use_cache, rng,
    )  # fmt: skip
    return (int(tokens[0]) for tokens in steps) if one else steps


def _writing(
    name: str,
    model: Module,
    ids: Any,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float,
    eos_id: int | Sequence[int] | None,
    pad_id: int | None,
    memory: Any,
    use_cache: bool,
    rng: Generator | None,
) -> tuple[bool, Iterator[Any]]:
    """Whether there is one sequence without a batch, and the tokens of each step; arguments are checked at once."""
    prompt, padding, one = prompts(name, ids)
    count = length(name, "max_new_tokens", max_new_tokens)
    temperature, penalty = real(name, "temperature", temperature), real(name, "repetition_penalty", repetition_penalty)
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"{name}: temperature must be at least 0 and finite, got {temperature}")
    if not 0 < penalty < float("inf"):
        raise ValueError(f"{name}: repetition_penalty must be above 0 and finite, got {penalty}")
    top_k = None if top_k is None else length(name, "top_k", top_k, 1)
    top_p = None if top_p is None else real(name, "top_p", top_p)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"{name}: top_p must be in (0, 1], got {top_p}")
    ends = end_tokens(name, eos_id)
    if pad_id is not None:
        pad_id = length(name, "pad_id", pad_id)
    elif ends:
        pad_id = ends[0]
    if not temperature and (top_k is not None or top_p is not None):
        raise ValueError(
            f"{name}: temperature must be above 0 with top_k or top_p, which are for draws, got {temperature=}, "
            f"{top_k=}, {top_p=}"
        )
    rng = as_generator(name, rng)
    decoder = Decoder(name, model, prompt, padding, memory, count, use_cache, ends)

    def choose(scores: Array, seen: Any) -> Array:
        if seen is not None:
            scores = penalize_repetition(scores, seen, penalty)
        if not temperature:
            return greatest(scores)
        scores = scores / temperature
        if top_k is not None:
            scores = keep_top_k(scores, top_k)
        if top_p is not None and top_p < 1:
            scores = keep_top_p(scores, top_p)
        words = rng.bits((len(scores), 2)).astype("float64")
        uniforms = (words[:, 0] * 2.0**21 + host_library().floor(words[:, 1] * 2.0**-11)) * 2.0**-53
        return draw(scores, backend_of(scores).from_numpy(uniforms, backend_of(scores).device_of(scores)))

    def steps() -> Iterator[Any]:
        new, ended, seen = prompt, host_library().zeros(len(prompt), bool), None
        for _ in range(count):
            scores = decoder.scores(new)
            if penalty != 1:
                seen = _marked(scores, seen, new, padding)
            tokens = to_host(name, choose(scores, seen))
            new = tokens[:, None].copy()
            if ends:
                new[ended] = ends[0]  # what the model reads and nobody looks at; pad_id need not be one of its tokens
                tokens[ended] = pad_id
                ended |= host_library().isin(new[:, 0], ends)
            yield tokens
            if ends and ended.all():
                return

    return one, steps()


def end_tokens(name: str, eos_id: int | Sequence[int] | None) -> tuple[int, ...]:
    """The tokens that end a sequence; none for None."""
    if eos_id is None:
        return ()
    if not isinstance(eos_id, (list, tuple)):
        return (length(name, "eos_id", eos_id),)
    if not eos_id:
        raise ValueError(f"{name}: eos_id must be a token, a list of at least one, or None, got {eos_id!r}")
    return tuple(length(name, "eos_id", token) for token in eos_id)


def prompts(name: str, ids: Any) -> tuple[Any, Any, bool]:
    """The beginnings on the host, ``(N, T)``, ending together; how many places at the left of each hold nothing, or
    None where all are of one length; and whether they were one sequence without a batch."""
    padding = None
    if isinstance(ids, Sequence) and not isinstance(ids, (str, bytes)):
        data, padding = _from_rows(name, ids)
    else:
        require_arrays(name, ids=ids)
        data = _on_host(ids)
    if data.ndim not in (1, 2) or not data.shape[-1]:
        raise ValueError(f"{name}: ids must have shape (N, T) or (T,) with T at least 1, got {data.shape}")
    _check_integers(name, data)
    one = data.ndim == 1
    return (data[None] if one else data).astype("int64"), padding, one


def _from_rows(name: str, ids: Sequence[Any]) -> tuple[Any, Any]:
    """A list of tokens, or of sequences of them, which then end together; and their padding as in :func:`prompts`."""
    xp = host_library()
    try:
        rows = [_on_host(row) if isinstance(row, Tensor) or is_array(row) else xp.asarray(row) for row in ids]
    except ValueError:  # of NumPy: lists of lists that differ
        rows = []
    depth = {row.ndim for row in rows}
    if ids and depth != {0} and depth != {1}:
        raise ValueError(f"{name}: ids must be a list of tokens or a list of such lists, got {ids!r}")
    lengths = xp.array([row.size for row in rows])
    if not lengths.all():
        raise ValueError(f"{name}: ids must hold at least one token in each sequence, got lengths {lengths.tolist()}")
    for row in rows:
        _check_integers(name, row)
    if depth != {1}:
        return xp.array(rows), None
    longest = lengths.max()
    data = xp.zeros((len(rows), longest), "int64")
    for row, to in zip(rows, data, strict=True):
        to[longest - len(row) :] = row
    return data, longest - lengths if (lengths != longest).any() else None


def _check_integers(name: str, ids: Any) -> None:
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name}: ids must be integers, got {ids.dtype}")


def _on_host(ids: Any) -> Any:
    data = ids.data if isinstance(ids, Tensor) else ids
    return backend_of(data).to_numpy(data)


class Decoder:
    """A model as the writing sees it: tokens in, scores of those that may follow out.

    Args:
        name: whom messages name.
        model, memory, use_cache: as for :func:`generate`.
        prompt, padding: from :func:`prompts`.
        more: tokens that will be asked for after the prompt.
        ends: the tokens that end a sequence.
    """

    def __init__(
        self, name: str, model: Module, prompt: Any, padding: Any, memory: Any, more: int, use_cache: bool,
        ends: tuple[int, ...],
    ) -> None:  # fmt: skip
        if not isinstance(model, Module):
            raise TypeError(f"{name}: model must be a Module, got {model!r}")
        if memory is not None and not hasattr(model, "decode"):
            raise TypeError(f"{name}: with memory the model must have a method decode, got {type(model).__name__}")
        if memory is None and isinstance(model, EncoderDecoder):
            raise TypeError(f"{name}: memory must be given for an EncoderDecoder: model.encode(source)")
        if memory is not None and padding is not None:
            raise ValueError(f"{name}: ids must be of one length with memory, got {prompt.shape[1] - padding}")
        places, most = prompt.shape[1] + more - 1, getattr(model, "max_len", None)
        if most is not None and places > most:
            raise ValueError(
                f"{name}: the model has {most} places (max_len), got a beginning of {prompt.shape[1]} and "
                f"max_new_tokens={more}"
            )
        self._name, self._ends = name, ends
        first = next(model.parameters(), None)
        self._place = device("cpu") if first is None else first.device
        self._model, self._memory, self._padding = model, memory, padding
        self._cache = KVCache(places) if use_cache else None
        self._all = prompt[:, :0]
        self._training = [module for module in model.modules() if module.training]

    def scores(self, new: Any) -> Array:
        """Scores after these tokens, which follow those before: ``(N, V)`` on the model's device, not of 16 bits."""
        if self._cache is None:
            new = self._all = host_library().concatenate([self._all, new], axis=1)
        ids = backend_for(self._place).from_numpy(new, self._place)
        with no_grad(), _evaluating(self._training):
            if self._memory is None:
                found = self._model(ids, cache=self._cache, padding=self._padding, last_only=True)
            else:
                found = self._model.decode(ids, self._memory, cache=self._cache)  # type: ignore[attr-defined]
        last = found.data[:, -1]
        if self._ends and max(self._ends) >= last.shape[1]:
            raise ValueError(f"{self._name}: eos_id must be in 0 … {last.shape[1] - 1}, got {max(self._ends)}")
        return last.astype("float32") if last.dtype.itemsize == 2 else last

    def reorder(self, rows: Any) -> None:
        """Sequence i becomes what sequence ``rows[i]`` was."""
        self._all = self._all[rows]
        self._padding = None if self._padding is None else self._padding[rows]
        if self._cache is not None:
            self._cache.reorder(rows)
        if self._memory is not None:
            with no_grad():
                self._memory = self._memory.take(rows)


def to_host(name: str, tokens: Array) -> Any:
    """The chosen tokens on the host.

    Raises:
        FloatingPointError: there was nothing to choose from in a row.
    """
    found = backend_of(tokens).to_numpy(tokens).copy()
    if (found < 0).any():
        raise FloatingPointError(f"{name}: the scores of sequence {int((found < 0).argmax())} are NaN or all -inf")
    return found


@contextmanager
def _evaluating(modules: list[Module]) -> Iterator[None]:
    """Evaluation mode for modules that are in training mode."""
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module in modules:
            module.training = True


def _marked(scores: Array, seen: Any, new: Any, padding: Any) -> Array:
    """Which tokens each sequence holds, ``(N, V)``, with the new ones."""
    xp, backend = host_library(), backend_of(scores)
    place = backend.device_of(scores)
    if seen is None:
        marks = xp.zeros(scores.shape, bool)
        for i, row in enumerate(new):
            marks[i, row if padding is None else row[padding[i] :]] = True
        return backend.from_numpy(marks, place)
    rows = backend.from_numpy(xp.arange(len(new)), place)
    seen[rows, backend.from_numpy(new[:, 0].copy(), place)] = True
    return seen


def host_library() -> Any:
    """The array library of the host, where tokens are chosen."""
    return backend_for(device("cpu")).xp
