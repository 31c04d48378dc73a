"""Kernels with one token broken: what every test of a kernel has to notice.

A mutant changes one token of one line: a comparison moved by one or turned, an arithmetic operator or a constant
exchanged, a barrier removed, a mask cut, a maximum turned, a neutral element made ordinary. ``make mutants`` runs each
kernel's tests against them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_OPERATORS = {
    " < ": (" <= ", " > "),
    " > ": (" >= ", " < "),
    " <= ": (" < ",),
    " >= ": (" > ",),
    " == ": (" != ",),
    " != ": (" == ",),
    " && ": (" || ",),
    " || ": (" && ",),
    " + ": (" - ",),
    " - ": (" + ",),
    " * ": (" + ",),
    " / ": (" * ",),
    " % ": (" / ",),
    " += ": (" -= ",),
    " -= ": (" += ",),
    " *= ": (" /= ",),
}
_MUTATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    *((re.escape(operator), others) for operator, others in _OPERATORS.items()),
    (r"\b__sync(threads|warp)\([^;]*\);", ("",)),
    (r"\b0xf{8}u?\b", ("0x7fffffffu",)),
    (r"\bfmaxf\b", ("fminf",)),
    (r"\bfminf\b", ("fmaxf",)),
    (r"-INFINITY\b", ("0.f",)),
    (r"(?<!float )\bkLowest\b", ("0.f",)),
    (r"(?<![\w.])0\.f\b", ("1.f",)),
    (r"(?<![\w.])1\.f\b", ("2.f",)),
)
_INTEGER = re.compile(r"(?<![\w.])\d+(?![\w.])")
_NO_CODE = ("//", "#", "template", "extern")  # at the beginning of a line

# File -> mutated line -> why it computes the same; in the simulator expf and __expf are one function. A line here that
# a test notices makes `make mutants` fail. One that stands in the file more than once may begin with its spaces.
EQUIVALENT: dict[str, dict[str, str]] = {
    "attention.cu": {
        "const int last_query = p.packed == 0 ? min(first + kRows, rows) - 1 : p.queries - 1;": "more "
        "tiles, whose keys are hidden from these rows one by one",
        "const int key_tiles = (some + COLS + 1) / COLS, per_split = (key_tiles + p.splits - 1) / p.splits;": "one "
        "tile more at most, of keys that do not exist",
        "const bool drops = OPTIONS || p.threshold > 0;": "no word is below a threshold of 0",
        "const int begin = max(first - p.shift + 1, 0) / COLS, query_tiles = (p.queries + COLS - 0) / COLS;": "one "
        "tile more at most, of queries that do not exist",
        **dict.fromkeys(
            (
                "constexpr int kBlocks = OPTIONS && WIDTH > 64 || sizeof(T) > 2 ? 1 : 3;",
                "constexpr int kBlocks = OPTIONS || WIDTH < 64 || sizeof(T) > 2 ? 1 : 3;",
                "constexpr int kBlocks = OPTIONS || WIDTH >= 64 || sizeof(T) > 2 ? 1 : 3;",
                "constexpr int kBlocks = OPTIONS || WIDTH > 63 || sizeof(T) > 2 ? 1 : 3;",
                "constexpr int kBlocks = OPTIONS || WIDTH > 65 || sizeof(T) > 2 ? 1 : 3;",
                "constexpr int kBlocks = OPTIONS || WIDTH > 64 && sizeof(T) > 2 ? 1 : 3;",
                "constexpr int kBlocks = OPTIONS || WIDTH > 64 || sizeof(T) < 2 ? 1 : 3;",
                "constexpr int kBlocks = OPTIONS || WIDTH > 64 || sizeof(T) >= 2 ? 1 : 3;",
                "constexpr int kBlocks = OPTIONS || WIDTH > 64 || sizeof(T) > 1 ? 1 : 3;",
                "constexpr int kBlocks = OPTIONS || WIDTH > 64 || sizeof(T) > 3 ? 1 : 3;",
                "constexpr int kBlocks = OPTIONS || WIDTH > 64 || sizeof(T) > 2 ? 0 : 3;",
                "constexpr int kBlocks = OPTIONS || WIDTH > 64 || sizeof(T) > 2 ? 2 : 3;",
                "constexpr int kBlocks = OPTIONS || WIDTH > 64 || sizeof(T) > 2 ? 1 : 2;",
                "constexpr int kBlocks = OPTIONS || WIDTH > 64 || sizeof(T) > 2 ? 1 : 4;",
            ),
            "a launch bound: how many registers a thread may have",
        ),
        "if (lengths != nullptr && threadIdx.x != 0 && lengths[batch] != length) report_fault(faults, fault, lengths[batch], p.keys);": "every thread would note the same, and the first note stays",  # noqa: E501
        "if (lengths != nullptr && threadIdx.x == 1 && lengths[batch] != length) report_fault(faults, fault, lengths[batch], p.keys);": "likewise",  # noqa: E501
        "  cp_async_wait<1>();": "after the loop nothing reads what is still copied, and a thread ends with its copies",
        "cp_async_wait<0>();": "waits for more than it has to",
        "for (int at = 0; at < 31; at += kBits)": "at is 0, or 0 and 16",
        "if (tile + 0 < end) {": "one tile more, which nobody reads",
        "if (tile - 1 < end) {": "one tile more, which nobody reads",
        "if (tile + 1 <= end) {": "one tile more, which nobody reads",
        "const bool masks = OPTIONS || (p.mask_kind != kNone || p.bias_kind != kNone);": "looks at what adds 0",
    },
    "attention_hopper.cu": {
        "const bool hides = first + kRows >= seen_by(query0, length, p) || query0 + COLS > p.queries;": "looks at "
        "a tile that hides nothing",
        "const bool hides = first + kRows > seen_by(query0, length, p) || query0 + COLS >= p.queries;": "looks at "
        "a tile that hides nothing",
        "const int open = factor >= 0.f ? seen_by(first, length, p) / COLS : 0;": "scores are all 0 there",
        "const int open = factor > 1.f ? seen_by(first, length, p) / COLS : 0;": "tiles one by one that could overlap",
        "const int begin = max(first - p.shift + 0, 0) / COLS, query_tiles = (p.queries + COLS - 1) / COLS;": "one "
        "tile more at most, of queries that do not see the keys",
        "const int begin = max(first - p.shift - 1, 0) / COLS, query_tiles = (p.queries + COLS - 1) / COLS;": "one "
        "tile more at most, of queries that do not see the keys",
        "const int begin = max(first - p.shift + 1, 1) / COLS, query_tiles = (p.queries + COLS - 1) / COLS;": "1 "
        "/ 64 is 0",
        "wgmma_wait<0>();": "waits for more than it has to",
    },
    "embedding.cu": {
        "const long long end = first + chunk <= rows ? first + chunk : rows;": "the same number there",
        "__device__ inline long long number_of(long long key) { return key & 0x7fffffffu; }": "rows < 2^31",
        "const long long next = i + 1 < rows ? row_of(keys[i + 1]) : -2;": "any negative number is no row",
    },
    "implicit_gemm.cu": {
        "if constexpr (VECTOR > 2)": "VECTOR is 1, 4 or 8",
        "typedef float Sums[ROWS + COLUMNS / kThreads / 4][4];": "more than is used",
        "for (int i = 0; i < ROWS * 17 / kThreads; ++i)": "8 either way",
    },
    "random_bits.cu": {
        "if (i > count) return;": "nothing is left there for the loop below",
        "for (int j = 0; j <= 3; ++j)": "a fourth word would have gone with the other three",
        "for (int j = 0; j < 4; ++j)": "a fourth word would have gone with the other three",
    },
    "rotary.cu": {
        "const float* angles = table + (inside ? position : 1) * dim + pair;": "the row is NaN, whatever is read",
        "Floats<3 * VECTOR> both;": "more than is used",
    },
    "layer_norm.cu": {
        "constexpr int kBlock = THREADS <= 128 ? 128 : THREADS;": "128 threads are 128 either way",
        "constexpr int kBlock = THREADS < 127 ? 128 : THREADS;": "THREADS is a power of two",
        "constexpr int kBlock = THREADS < 129 ? 128 : THREADS;": "128 threads are 128 either way",
        "constexpr int kWarps = THREADS >= 32 ? THREADS / 32 : 1;": "32 / 32 is 1",
        "constexpr int kWarps = THREADS > 31 ? THREADS / 32 : 1;": "32 / 32 is 1",
        "constexpr int kWarps = THREADS > 33 ? THREADS / 32 : 1;": "THREADS is a power of two",
        "constexpr int kWarps = THREADS > 32 ? THREADS / 32 : 0;": "read only where it is more than 1",
        "constexpr int kLanes = THREADS >= 32 ? 32 : THREADS;": "32 either way",
        "constexpr int kLanes = THREADS > 31 ? 32 : THREADS;": "32 either way",
        "constexpr int kLanes = THREADS > 33 ? 32 : THREADS;": "THREADS is a power of two",
        "constexpr int kLanes = THREADS > 32 ? 33 : THREADS;": "halved to 16 all the same",
        "if (kWarps > 2) {": "a row has 1 warp, or 4 and more",
        "if (kWarps > 2) __syncthreads();": "a row has 1 warp, or 4 and more",
        "if (threadIdx.x % 33 == 0) of_warp[i][threadIdx.x / 32] = values[i];": "a warp has one value, stored once",
        "if (threadIdx.x % 32 == 1) of_warp[i][threadIdx.x / 32] = values[i];": "a warp has one value",
        "if (span.lane == 1) store_statistics(mean, rstd, span.row, row, r);": "every thread has the same",
        "if (threadIdx.x == 1) {": "every thread has the same",
        "if (span.first == 0 && threadIdx.x == 1) store_statistics(mean, rstd, span.row, row, r);": "likewise",
        "for (int k = 0; k <= PACKS; ++k)": "no lane has a pack there",
        "if (kRows >= 1) {": "one row put together is that row",
        "if (kRows > 0) {": "one row put together is that row",
        "if (threshold == 1) return;": "at a threshold of 0 every word is kept, times 1",
        "const float m = mean != nullptr && span.has(0) ? mean[span.row] : 0.f, r = span.has(0) ? rstd[span.row] : 1.f;": "of no row, nothing is loaded or written",  # noqa: E501
    },
    "group_norm.cu": {
        "constexpr int kBlock = THREADS <= 128 ? 128 : THREADS;": "128 threads are 128 either way",
        "constexpr int kBlock = THREADS < 127 ? 128 : THREADS;": "THREADS is a power of two",
        "constexpr int kBlock = THREADS < 129 ? 128 : THREADS;": "128 threads are 128 either way",
        "product = warp_sum<THREADS / 31>(of_warp[0][threadIdx.x % (THREADS / 32)]);": "8 warps are 8 either way",
        "sum = warp_sum<THREADS / 31>(of_warp[1][threadIdx.x % (THREADS / 32)]);": "8 warps are 8 either way",
        "if (threadIdx.x != 1) return;": "every thread has the same",
        "values[i] = 1.f;": "of channels beyond the last, which nobody writes",
        "__shared__ float of_depth[3][THREADS / 32][32];": "more than is used",
    },
    "resample.cu": {
        "if (LANES > 2) sum[0] = warp_sum<LANES>(sum[0]);": "LANES is 1 or 32",
        "if (LANES > 0) sum[0] = warp_sum<LANES>(sum[0]);": "the sum over one lane is its value",
        "if (LANES >= 1) sum[0] = warp_sum<LANES>(sum[0]);": "the sum over one lane is its value",
    },
    "batch_norm.cu": {
        "constexpr int kChannels = LANES > 2 ? VECTOR : 1;": "LANES is never 2",
        "__shared__ float memory[kBlock * kChannels * (sizeof(Part) * sizeof(float))];": "only more room",
    },
    "activation.cu": {
        "__device__ inline float at_least(float x, float low) { return x <= low ? low : x; }": "one number there",
        "__device__ inline float at_most(float x, float high) { return x >= high ? high : x; }": "one number there",
        "__device__ static float value(float x, float a, float) { return x >= 0.f ? x : a * x; }": "0 twice",
        "__device__ static float value(float x, float a, float) { return x >= 0.f ? x : a * expm1f(x / a); }": "0",
        "__device__ static float slope(float x, float a, float) { return x >= 0.f ? 1.f : expf(x / a); }": "1",
        "__device__ static float share(float x, float) { return x >= 0.f ? 0.f : x; }": "0",
        "if (threadIdx.x % 33 == 0) of_warp[threadIdx.x / 32] = sum;": "a warp has one value, stored once",
        "if (threadIdx.x % 32 == 1) of_warp[threadIdx.x / 32] = sum;": "a warp has one value",
        "if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 31] = sum;": "the same for 8 warps",
        "if (threadIdx.x != 1) return;": "the whole warp has the sum",
        "for (int w = 1; w < blockDim.x / 31; ++w) sum += of_warp[w];": "8 either way",
        "stop = row * inner + (inner - before <= chunk ? inner : before + chunk);": "the same number there",
        "stop = column >= channels ? 0 : outer - part * chunk <= chunk ? outer : part * chunk + chunk;": "likewise",
    },
    "gradient_norm.cu": {
        "__shared__ float of_warp[kBlock * 32];": "more than is used",
        "if (threadIdx.x % 33 == 0) of_warp[threadIdx.x / 32] = value;": "a warp has one value, stored once",
        "if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 31] = value;": "the same for 8 warps",
        "return warp_sum<kBlock / 31>(of_warp[threadIdx.x % (kBlock / 32)]);": "8 either way",
        "return warp_sum<kBlock / 32>(of_warp[threadIdx.x % (kBlock / 31)]);": "8 either way",
        "if (threadIdx.x == 1) {": "every thread has the sum",
        "result[1] = factor >= 1.f ? 1.f : factor;": "1 either way",
        "__shared__ float of_warp[kBlock / 31];": "8 either way",
        "if (threadIdx.x % 32 == 1) of_warp[threadIdx.x / 32] = value;": "a warp has one value",
        "if (threadIdx.x == 1) partial[blockIdx.x] = sum;": "every thread has the sum",
    },
    "softmax.cu": {
        "for (int first = row.lane; first <= row.packs; first += kStep) {": "one more step, no lane has a pack",
        "for (int first = tile.depth; first <= tile.length; first += DEPTH * PACKS) {": "one more step, all beyond",
        "if (DEPTH >= 1) {": "one part put together is that part",
        "return sum == 0.f ? 1.f : value;": "only zeros to scale, or -inf to lessen",
        "const float single_y = row.has_single() ? load_float(y + row.single_at()) : 1.f;": "times a single_dy of 0",
        "single_y(row.has_single() ? load_float(y + row.single_at()) : 1.f),": "times a single_dy of 0",
        "to_values(packs, row, first, 1.f, v);": "what lies beyond is not written",
        "if (DEPTH > 0) {": "one part put together is that part",
        "if (DEPTH > 2) {": "DEPTH is 1, 4 or 8",
    },
    "rows.cuh": {
        "constexpr int kBlock = THREADS <= 128 ? 128 : THREADS;": "128 threads are 128 either way",
        "head = wanted <= length ? wanted : length;": "both are the same number there",
        "__device__ inline float exponential(float x) { return sizeof(T) != 4 ? expf(x) : __expf(x); }": "one function",
        "__device__ inline float exponential(float x) { return sizeof(T) == 3 ? expf(x) : __expf(x); }": "one function",
        "__device__ inline float exponential(float x) { return sizeof(T) == 5 ? expf(x) : __expf(x); }": "one function",
        "constexpr int kBlock = THREADS < 127 ? 128 : THREADS;": "THREADS is a power of two",
        "constexpr int kBlock = THREADS < 129 ? 128 : THREADS;": "128 threads are 128 either way",
        "constexpr int kWarps = THREADS >= 32 ? THREADS / 32 : 1;": "32 / 32 is 1",
        "constexpr int kWarps = THREADS > 31 ? THREADS / 32 : 1;": "32 / 32 is 1",
        "constexpr int kWarps = THREADS > 33 ? THREADS / 32 : 1;": "THREADS is a power of two",
        "constexpr int kWarps = THREADS > 32 ? THREADS / 31 : 1;": "the same quotient for 128, 256 and 512",
        "constexpr int kWarps = THREADS > 32 ? THREADS / 32 : 0;": "read only where it is more than 1",
        "constexpr int kLanes = THREADS >= 32 ? 32 : THREADS;": "32 either way",
        "constexpr int kLanes = THREADS > 31 ? 32 : THREADS;": "32 either way",
        "constexpr int kLanes = THREADS > 33 ? 32 : THREADS;": "THREADS is a power of two",
        "constexpr int kLanes = THREADS > 32 ? 33 : THREADS;": "halved to 16 all the same",
        "if (kWarps > 2) {": "a row has 1 warp, or 4 and more",
        "if (threadIdx.x % 33 == 0) of_warp[threadIdx.x / 32] = value;": "a warp has one value, stored once",
        "if (threadIdx.x % 32 == 1) of_warp[threadIdx.x / 32] = value;": "a warp has one value",
        "if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 31] = value;": "the same for 16 warps",
        "single = -2;": "any negative number says so",
    },
    "masked_softmax.cu": {
        "if (threshold == 1) return;": "at a threshold of 0 every word is kept, times 1",
        "for (int first = row.lane; first == row.lane || first <= row.packs; first += kStep) {": "no more packs",
        "to_values(packs, row, first, 1.f, g);": "times an exponential of 0, and not written",
        "__device__ inline float reciprocal(float sum) { return sum == 0.f ? 1.f : 1.f / sum; }": "only zeros to scale",
        "for (int first = row.lane; first <= row.packs; first += kStep) {": "one more step, no lane has a pack",
        "float single_g = row.has_single() ? load_float(dy + row.single_at()) : 1.f;": "times an exponential of 0",
        "if (row.has_single()) mask.drop<2>(&single_g, row.single_at());": "the first of two is the same one",
        "dot = row_sum<2>(dot * shrink) * statistic;": "shared memory of its own either way",
    },
    "reduce.cu": {
        "take(other.sum, 1);": "a sum has no place",
        "for (int first = row.lane; first <= row.packs; first += THREADS * PACKS) {": "one more step, no packs",
        "if (same ? place < at : had ? false : value >= best || nan) {": "an equal value is the other case",
        "if (same ? place <= at : had ? false : value > best || nan) {": "the same place has the same value",
        "if (kWarps > 2) {": "a row has 1 warp, or 4 and more",
        "if (threadIdx.x % 32 == 1) of_warp[threadIdx.x / 32] = state;": "every lane of a warp has its result",
        "if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 31] = state;": "the same for 16 warps",
        "if (threadIdx.x % 33 == 0) of_warp[threadIdx.x / 32] = state;": "a warp has one result, stored once",
        "const int stop = cols - part * chunk <= chunk ? cols : part * chunk + chunk;": "the same number there",
    },
    "cross_entropy.cu": {
        "loss += hard * (own <= 1e-18f ? log_sum + (seen.largest - label_logit) : log1pf(seen.rest / own));": "both agree there",  # noqa: E501
        "before == 0 || row.lane == 0, faults, fault);": "several would note the same, and the first note stays",
        "total.all = row_sum<3>(seen.all);": "shared memory of its own either way",
        "if (DEPTH > 0) {": "one part put together is that part",
        "if (DEPTH >= 1) {": "one part put together is that part",
        "if (DEPTH > 2) {": "DEPTH is 1, 4 or 8",
        "if (threadIdx.x == 1) store(result, divisor == nullptr ? sum : sum / divisor[0]);": "every thread has the sum",
        "for (int first = row.lane; first == row.lane || first <= row.packs; first += kStep) {": "no more packs",
        "for (int k = 0; k <= PACKS; ++k)": "one more pack, beyond the array, is not looked at",
        "__shared__ float of_warp[33];": "one more, which is not used",
        "return row.has_single() ? seen.take(single, before + row.single, wanted) : 1.f;": "used only where one is",
        "if (threadIdx.x % 33 == 0) of_warp[threadIdx.x / 32] = value;": "a warp has one value, stored once",
        "if (first + kVector < count) {": "the loop below does the same to the last pack",
        "constexpr int kVector = 17 / sizeof(T);": "the same quotient for 2 and 4 bytes",
    },
}


@dataclass(frozen=True)
class Mutant:
    """One line of a file, changed.

    Args:
        file: the kernel's file.
        number: the line's number, from 1.
        column: where the change begins, from 0.
        line: the mutated line, without its comment.
        before: the line as it stands in the file.
    """

    file: Path
    number: int
    column: int
    line: str
    before: str

    def __str__(self) -> str:
        return f"kernels/{self.file.name}:{self.number}: {self.line.strip() or f'removed: {self.before.strip()}'}"

    @property
    def reason(self) -> str | None:
        """Why this mutant computes the same, where that is known."""
        listed = EQUIVALENT.get(self.file.name, {})
        return listed.get(self.line, listed.get(self.line.strip()))

    def write(self, folder: Path) -> Path:
        """The broken file in ``folder``, beside copies of the headers that it includes."""
        for header in self.file.parent.glob("*.cuh"):
            (folder / header.name).write_bytes(header.read_bytes())
        lines = self.file.read_text(encoding="utf-8").splitlines()
        lines[self.number - 1] = self.line
        broken = folder / self.file.name
        broken.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return broken


def mutants(file: Path) -> Iterator[Mutant]:
    """Every mutant of a kernel's file, in the order of its lines."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith(_NO_CODE) or line.lstrip().startswith("#"):
            continue
        code = line.partition("//")[0].rstrip()
        for start, end, replacement in sorted(_changes(code)):
            yield Mutant(file, number, start, code[:start] + replacement + code[end:], code)


def _changes(code: str) -> Iterator[tuple[int, int, str]]:
    for pattern, replacements in _MUTATIONS:
        for match in re.finditer(pattern, code):
            for replacement in replacements:
                yield match.start(), match.end(), replacement
    for match in _INTEGER.finditer(code):
        for other in {int(match[0]) + 1, max(0, int(match[0]) - 1)} - {int(match[0])}:
            yield match.start(), match.end(), str(other)
