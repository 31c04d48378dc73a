// Philox4x32-10: four random words from a counter and a key, the same bits as backend/philox.py gives. The words of stream
// `key` are numbered: word 4 b + i is output i of counter b.
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the constants and the round are theirs.
#pragma once

struct Words { unsigned at[4]; };

__device__ inline Words philox(unsigned long long counter, unsigned long long key) {
  unsigned c0 = (unsigned)counter, c1 = (unsigned)(counter >> 32), c2 = 0, c3 = 0;
  unsigned k0 = (unsigned)key, k1 = (unsigned)(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    const unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Words first … first + N - 1, where first = 4 * counter + skip + i for an i that is a multiple of 4 (any i where N is 1).
// skip < 4 is the same for all threads.
template <int N> __device__ inline void philox_words(
    unsigned (&words)[N], unsigned long long counter, int skip, unsigned long long i, unsigned long long key) {
  if (N == 1) {
    const unsigned long long word = skip + i;
    const Words drawn = philox(counter + word / 4, key);
    const int which = (int)(word % 4);
    words[0] = which < 2 ? (which == 0 ? drawn.at[0] : drawn.at[1]) : (which == 2 ? drawn.at[2] : drawn.at[3]);
  } else {
    Words drawn = philox(counter + i / 4, key);
#pragma unroll
    for (int part = 0; part < N; part += 4) {
      const Words next = skip > 0 || part + 4 < N ? philox(counter + i / 4 + part / 4 + 1, key) : drawn;
#pragma unroll
      for (int j = 0; j < 4; ++j) {  // constant indices: neither array leaves the registers
        const unsigned by1 = j + 1 < 4 ? drawn.at[(j + 1) % 4] : next.at[(j + 1) % 4];
        const unsigned by2 = j + 2 < 4 ? drawn.at[(j + 2) % 4] : next.at[(j + 2) % 4];
        const unsigned by3 = j + 3 < 4 ? drawn.at[(j + 3) % 4] : next.at[(j + 3) % 4];
        words[part + j] = skip == 0 ? drawn.at[j] : skip == 1 ? by1 : skip == 2 ? by2 : by3;
      }
      drawn = next;
    }
  }
}

// Where a launch's words begin: word `skip` (0 … 3) of `counter`. Made on the host by stream_place of _launch.py.
struct Stream {
  unsigned long long key, counter;
  int skip;
};

// Words first, first + 1, … of the stream, counted from its beginning, for N neighbouring elements and any `first`.
template <int N> __device__ inline void stream_words(const Stream& stream, long long first, unsigned (&words)[N]) {
  const unsigned long long place = (unsigned long long)first + stream.skip;
  const int skip = (int)(place % 4);
  constexpr int kCounters = (N + 6) / 4;  // that N words can reach into
  unsigned drawn[4 * kCounters];
#pragma unroll
  for (int c = 0; c < kCounters; ++c) {
    const Words four = 4 * c < skip + N ? philox(stream.counter + place / 4 + c, stream.key) : Words{};
#pragma unroll
    for (int j = 0; j < 4; ++j) drawn[4 * c + j] = four.at[j];
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {  // selections instead of an index, so that the words stay in registers
    words[i] = drawn[i];
#pragma unroll
    for (int s = 1; s < 4; ++s)
      if (skip == s && i + s < 4 * kCounters) words[i] = drawn[i + s];
  }
}
