// Philox4x32-10 on the device: the words of lamella.Generator, bit for bit (backend/philox.py). Word 4 b + i of the stream
// `key` is output i of counter b. A place in the stream is given as its counter and the word in it, because word numbers
// reach 2^66. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
#pragma once

__device__ inline uint4 philox4x32(unsigned long long counter, unsigned long long key) {
  unsigned c0 = (unsigned)counter, c1 = (unsigned)(counter >> 32), c2 = 0, c3 = 0;
  unsigned k0 = (unsigned)key, k1 = (unsigned)(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = __umulhi(c0, 0xD2511F53u), low0 = c0 * 0xD2511F53u;
    const unsigned high1 = __umulhi(c2, 0xCD9E8D57u), low1 = c2 * 0xCD9E8D57u;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

// Where a launch's words begin: word `skip` (0 … 3) of `counter`. Made on the host by stream_place of _launch.py.
struct Stream {
  unsigned long long key, counter;
  int skip;
};

// Words first, first + 1, … of the stream, counted from its beginning: for N neighbouring elements.
template <int N> __device__ inline void stream_words(const Stream& stream, long long first, unsigned (&words)[N]) {
  const unsigned long long place = (unsigned long long)first + stream.skip;
  const unsigned long long counter = stream.counter + (place >> 2);
  const int skip = (int)(place & 3);
  constexpr int kCounters = (N + 6) / 4;  // that N words can reach into
  unsigned drawn[4 * kCounters];
#pragma unroll
  for (int c = 0; c < kCounters; ++c) {
    const uint4 four = 4 * c < skip + N ? philox4x32(counter + c, stream.key) : uint4{0, 0, 0, 0};
    drawn[4 * c] = four.x;
    drawn[4 * c + 1] = four.y;
    drawn[4 * c + 2] = four.z;
    drawn[4 * c + 3] = four.w;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {  // selections instead of an index, so that the words stay in registers
    words[i] = drawn[i];
#pragma unroll
    for (int s = 1; s < 4; ++s)
      if (skip == s && i + s < 4 * kCounters) words[i] = drawn[i + s];
  }
}
