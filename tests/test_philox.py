"""Random numbers: the published answers, the stream as one whole, and the distributions drawn from it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import lamella
from lamella.backend import Device, Generator, backend_for, get_kernel, philox4x32, random_bits
from lamella.kernels._launch import stream_place

# Random123 1.14, tests/kat_vectors: philox4x32 10.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_rounds_give_the_published_answers(counter: tuple, key: tuple, expected: tuple) -> None:
    assert philox4x32(counter, key) == expected
    arrays = tuple(np.full(3, word, np.uint64) for word in counter)
    for words, word in zip(philox4x32(arrays, key), expected, strict=True):
        assert (words == word).all()


def test_stream_is_the_definition_read_counter_by_counter(device: Device) -> None:
    key = 0x299F31D0A4093822
    found = backend_for(device).to_numpy(random_bits(key, 0, 4 * 20_000, device))
    assert found.dtype == np.uint32
    for block in [0, 1, 16_383, 16_384, 16_385, 19_999]:  # the chunk's edge among them
        assert tuple(found[4 * block : 4 * block + 4]) == philox4x32((block, 0, 0, 0), (0xA4093822, 0x299F31D0))


@pytest.mark.parametrize(("offset", "count"), [(0, 1), (1, 1), (3, 2), (5, 0), (7, 1000), (65_535, 5), (1, 200_000)])
def test_any_window_of_the_stream_equals_the_stream(device: Device, offset: int, count: int) -> None:
    whole = random_bits(7, 0, 200_004)
    window = backend_for(device).to_numpy(random_bits(7, offset, count, device))
    assert window.shape == (count,)
    assert np.array_equal(window, whole[offset : offset + count])


@pytest.mark.parametrize("block", [2**32 - 2, 2**33 - 1, 2**63 + 5, 2**64 - 2])
def test_counters_carry_past_32_bits(block: int) -> None:
    count = 2 if block == 2**64 - 2 else 4
    found = random_bits(3, 4 * block, 4 * count).reshape(-1, 4)
    for i in range(count):
        assert tuple(found[i]) == philox4x32(((block + i) % 2**32, (block + i) >> 32, 0, 0), (3, 0))


def test_draws_one_after_another_are_one_stream() -> None:
    parts, whole = Generator(5), Generator(5)
    found = np.concatenate([parts.bits(n) for n in (1, 0, 6, 3, 10)])
    assert np.array_equal(found, whole.bits(20))
    assert parts.state == (5, 20)


def test_restored_state_continues_where_it_was() -> None:
    g = Generator(11)
    g.normal((3, 5))
    state = g.state
    expected = g.uniform(9)
    restored = Generator(0)
    restored.state = state
    assert np.array_equal(restored.uniform(9), expected)


def test_reserved_words_are_those_that_bits_would_have_given() -> None:
    g, expected = Generator(8), Generator(8).bits(12)
    g.bits(2)
    assert np.array_equal(random_bits(*g.reserve(10), 10), expected[2:])


def test_split_depends_on_the_path_and_on_nothing_drawn() -> None:
    g = Generator(1)
    before = g.split(2, 3)
    g.bits(100)
    assert g.split(2, 3).state == before.state == g.split(2).split(3).state
    paths = [(0,), (1,), (2,), (0, 0), (0, 1), (1, 0), (2**32,), (2**32 + 1,), (-1,)]
    seeds = {g.split(*path).state[0] for path in paths}
    assert len(seeds | {1}) == 10


def test_split_streams_do_not_correlate() -> None:
    n = 100_000
    streams = np.stack([Generator(0).split(i).uniform(n) for i in range(4)] + [Generator(0).uniform(n)])
    correlations = np.corrcoef(streams.astype("float64"))[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() <= 5 / math.sqrt(n)


def test_numpy_integers_are_taken_where_integers_are() -> None:
    assert Generator(np.int32(7)).split(np.int64(3)).state == Generator(7).split(3).state
    assert Generator(0).integers(np.int64(0), np.int64(10), np.int64(4)).shape == (4,)
    assert np.array_equal(Generator(0).integers(np.int64(0), np.int64(10), 9), Generator(0).integers(0, 10, 9))


def test_every_device_draws_the_same_numbers(device: Device) -> None:
    def draw(place: Device) -> list[np.ndarray]:
        g = Generator(42)
        drawn = [
            g.bits((3, 7), device=place),
            g.uniform((5, 11), -2.0, 3.0, device=place),
            g.integers(-5, 1000, 77, device=place),
            g.normal((4, 9), 1.0, 2.0, device=place),
        ]
        return [backend_for(place).to_numpy(array) for array in drawn]

    for found, expected in zip(draw(device), draw(lamella.device("cpu")), strict=True):
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()


def chi_square(counts: np.ndarray) -> float:
    """How far counts are from uniform, in standard deviations of the chi-square distribution."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    return float((((counts - expected) ** 2).sum() / expected - freedom) / math.sqrt(2 * freedom))


@pytest.mark.parametrize("width", [2, 3, 10, 255])
def test_integers_are_uniform(width: int) -> None:
    drawn = Generator(2).integers(-1, width - 1, 60_000)
    assert drawn.dtype == np.int64
    assert drawn.min() == -1
    assert drawn.max() == width - 2
    assert abs(chi_square(np.bincount(drawn + 1, minlength=width))) <= 4


@pytest.mark.parametrize("width", [1, 7, 2**31 + 1, 2**32])
def test_integers_are_the_high_half_of_a_64_bit_product(width: int) -> None:
    words = Generator(12).bits((500, 2)).astype(object)
    expected = [((int(a) + (int(b) << 32)) * width) >> 64 for a, b in words]
    assert Generator(12).integers(0, width, 500).tolist() == expected


def test_integers_span_ranges_up_to_32_bits() -> None:
    drawn = Generator(2).integers(-(2**31), 2**31, 50_000)
    assert abs(chi_square(np.histogram(drawn, 64, (-(2**31), 2**31))[0])) <= 4
    assert (Generator(2).integers(2**40, 2**40 + 1, 5) == 2**40).all()


def test_uniforms_fill_the_unit_interval_on_a_grid_of_24_bits() -> None:
    u = Generator(4).uniform(200_000)
    assert u.dtype == np.float32
    assert u.min() >= 0
    assert u.max() < 1
    assert (u * 2**24 == np.floor(u * 2**24)).all()
    assert abs(chi_square(np.histogram(u, 100, (0, 1))[0])) <= 4
    stretched = Generator(4).uniform(200_000, -3.0, 5.0)
    assert np.abs(stretched - (8 * u.astype("float64") - 3)).max() <= 1e-6


def test_normals_have_the_moments_of_the_normal_distribution() -> None:
    n = 400_000
    z = Generator(6).normal(n).astype("float64")
    assert abs(z.mean()) <= 4 / math.sqrt(n)
    assert abs(z.var() - 1) <= 4 * math.sqrt(2 / n)
    assert abs((z**3).mean()) <= 4 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) <= 4 * math.sqrt(96 / n)
    assert abs((np.abs(z) > 3).mean() - 0.0026998) <= 4 * math.sqrt(0.0027 / n)
    assert abs(np.corrcoef(z[: n // 2], z[n // 2 :])[0, 1]) <= 4 / math.sqrt(n / 2)  # the two of a pair
    moved = Generator(6).normal(n, 10.0, 0.5)
    assert np.abs(moved - (10 + 0.5 * z)).max() <= 1e-5


@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (2, 0, 3), (3, 5)])
def test_shapes_are_as_asked(shape: tuple[int, ...]) -> None:
    g = Generator(0)
    for drawn in (g.bits(shape), g.uniform(shape), g.integers(0, 5, shape), g.normal(shape)):
        assert drawn.shape == shape
    assert g.normal(3).shape == (3,)


def test_permutations_hold_every_index_once_and_are_uniform() -> None:
    g = Generator(9)
    for length in (0, 1, 2, 1000):
        assert sorted(g.permutation(length).tolist()) == list(range(length))
    orders = [tuple(g.permutation(4).tolist()) for _ in range(4800)]
    counts = np.unique(np.array([sum(v * 4**i for i, v in enumerate(o)) for o in orders]), return_counts=True)[1]
    assert counts.size == math.factorial(4)
    assert abs(chi_square(counts)) <= 4


def test_without_a_seed_generators_differ() -> None:
    assert Generator().state != Generator().state


ERRORS = [
    (lambda: Generator(1.5), TypeError, "seed must be an integer or None, got 1.5"),
    (lambda: Generator(-1), ValueError, "seed must be in 0 … 2**64 - 1, got -1"),
    (lambda: Generator(2**64), ValueError, "seed must be in 0 … 2**64 - 1"),
    (lambda: Generator(0).split(), TypeError, "path must name the new stream"),
    (lambda: Generator(0).integers(3, 3), ValueError, "high must be above low, got low=3, high=3"),
    (lambda: Generator(0).integers(0, 2**32 + 1), ValueError, "high - low must be at most 2**32"),
    (lambda: Generator(0).permutation(-1), ValueError, "length must not be negative, got -1"),
    (lambda: Generator(0).bits((2, -1)), ValueError, "shape must not hold negative lengths, got (2, -1)"),
    (lambda: Generator(0).reserve(-1), ValueError, "count must be in 0 …"),
    (lambda: setattr(Generator(0), "state", (0, -4)), ValueError, "offset must be in 0 … 2**66, got -4"),
    (lambda: random_bits(0, 0, -1), ValueError, "count must not be negative, got -1"),
    (lambda: random_bits(0, -1, 1), ValueError, "offset must be in 0 … 2**66 - count, got offset=-1, count=1"),
    (lambda: random_bits(0, 2**66, 1), ValueError, "offset must be in"),
    (lambda: random_bits(2**64, 0, 1), ValueError, "key must be in 0 … 2**64 - 1"),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_errors_name_the_argument_the_rule_and_the_value(call, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value)


def test_spawned_streams_differ_from_each_other_and_are_the_same_again() -> None:
    one, other = lamella.Generator(3), lamella.Generator(3)
    seeds = [one.spawn().state[0] for _ in range(4)]
    assert len(set(seeds)) == 4
    assert seeds == [other.spawn().state[0] for _ in range(4)]


@pytest.mark.parametrize("per_thread", [1, 3, 4, 8])
@pytest.mark.parametrize("offset", [0, 1, 6, 2**34 - 5, 2**65 + 3])
def test_a_kernel_draws_the_words_of_the_stream(device: Device, offset: int, per_thread: int) -> None:
    """From any place, through the carry of the counter's low half, a few words to a thread."""
    if device.kind == "cpu":
        pytest.skip("the CPU runs no kernels")
    count, first, key = 301, 10, 0xA4093822299F31D0
    words = backend_for(device).empty((count,), np.uint32, device)
    kernel = get_kernel(Path(__file__).parent / "kernels/philox.cu", "draws", (f"PER_THREAD={per_thread}",), words)
    kernel((2,), (-(-count // per_thread),), (words, np.int64(count), np.int64(first), *stream_place(key, offset)))
    np.testing.assert_array_equal(backend_for(device).to_numpy(words), random_bits(key, offset + first, count))
