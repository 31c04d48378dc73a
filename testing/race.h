// Who touched a byte last, and whether that is ordered before what happens now.
//
// Time is a counter that moves at each synchronisation. A block barrier orders everything the block did before it;
// __syncwarp orders what the named lanes did (and what had been ordered before that); an mbarrier orders what the
// arriving threads did before what those do that saw its phase complete; shuffles and votes order nothing;
// blocks are never ordered among themselves. Two atomics never clash; an atomic and a plain access do.
#pragma once
#include <stdint.h>
#include <string.h>

enum AccessKind { kRead, kWrite, kAtomic };

// A party is one thread, or the smallest group that holds several threads whose accesses are not ordered.
struct Party {
  uint32_t who;   // 0: nobody; else atomic << 31 | level << 29 | by a copy engine << 28 | number + 1
  uint32_t when;  // the time of its latest access
  uint32_t pc;    // the instruction of that access, counted from the start of the kernel's image

  static constexpr uint32_t kAtomicFlag = 1u << 31, kEngineFlag = 1u << 28, kNumberMask = (1u << 28) - 1;
  enum Level : uint32_t { kThread, kWarp, kBlock, kGrid };

  static Party make(Level level, uint32_t number, uint32_t when, uint32_t pc) { return {level << 29 | (number + 1), when, pc}; }
  Level level() const { return static_cast<Level>(who >> 29 & 3); }
  uint32_t number() const { return (who & kNumberMask) - 1; }
  bool atomic() const { return who & kAtomicFlag; }
  bool by_engine() const { return who & kEngineFlag; }
};

struct Cell {  // one byte's history
  Party write, read;
};

// What one warp's lanes know of each other: seen[i][j] = accesses of lane j before that time are ordered before lane i.
struct LaneClocks {
  uint32_t seen[32][32];
  uint32_t latest[32];

  void reset(uint32_t now) {
    for (auto& row : seen)
      for (auto& time : row) time = now;
    for (auto& time : latest) time = now;
  }
  void synchronize(uint32_t lanes, uint32_t now) {
    uint32_t joined[32] = {};
    for (int i = 0; i < 32; ++i)
      if (lanes >> i & 1)
        for (int j = 0; j < 32; ++j) joined[j] = joined[j] > seen[i][j] ? joined[j] : seen[i][j];
    for (int i = 0; i < 32; ++i)
      if (lanes >> i & 1) joined[i] = now;
    for (int i = 0; i < 32; ++i)
      if (lanes >> i & 1) {
        memcpy(seen[i], joined, sizeof joined);
        latest[i] = now;
      }
  }
};

// The thread that makes an access, as the race check sees it.
struct Observer {
  uint32_t thread, block;         // numbers in the grid
  uint32_t threads, warps;        // of each block
  uint32_t lane, warp;            // in the block
  uint32_t block_synchronized;    // time of the block's last barrier
  const LaneClocks* clocks;       // of its warp
  const uint32_t* heard;          // by mbarriers: accesses of thread j of the block before heard[j]; nullptr without any
  uint32_t now, pc;

  uint32_t block_of(const Party& party) const {
    return party.level() == Party::kThread ? party.number() / threads : party.level() == Party::kWarp ? party.number() / warps : party.number();
  }
  uint32_t warp_of(const Party& party) const {  // in the block
    return party.level() == Party::kThread ? party.number() % threads / 32 : party.number() % warps;
  }
  bool ordered(const Party& party) const {
    if (!party.who) return true;
    const auto level = party.level();
    if (level == Party::kThread && party.number() == thread) return true;
    if (level == Party::kGrid || block_of(party) != block) return false;
    if (party.when < block_synchronized || (heard && heard_of(party))) return true;
    if (level == Party::kBlock || warp_of(party) != warp) return false;
    return party.when < (level == Party::kThread ? clocks->seen[lane][party.number() % threads % 32] : clocks->latest[lane]);
  }
  // Whether an mbarrier has told this thread of all that the party stands for. Which warps a party of several holds is
  // not kept: those are taken that have told anything since the block's barrier (which may miss, and never cries wolf).
  bool heard_of(const Party& party) const {
    if (party.level() == Party::kThread) return party.when < heard[party.number() % threads];
    const bool one_warp = party.level() == Party::kWarp;
    const uint32_t first = one_warp ? warp_of(party) * 32 : 0, end = one_warp && first + 32 < threads ? first + 32 : threads;
    uint32_t told = 0;
    for (uint32_t j = first; j < end; ++j) {
      if (!one_warp && heard[j] <= block_synchronized) continue;
      if (party.when >= heard[j]) return false;
      ++told;
    }
    return told != 0;
  }
  Party self() const { return Party::make(Party::kThread, thread, now, pc); }
  // The party that stands for `earlier` and this thread. What is ordered before this access needs no further watch.
  Party joined(const Party& earlier) const {
    if (ordered(earlier)) return self();
    if (earlier.level() == Party::kGrid || block_of(earlier) != block) return Party::make(Party::kGrid, 0, now, pc);
    if (earlier.level() == Party::kBlock || warp_of(earlier) != warp) return Party::make(Party::kBlock, block, now, pc);
    return Party::make(Party::kWarp, block * warps + warp, now, pc);
  }
  // Records the access; returns the party it clashes with, or nullptr.
  const Party* visit(Cell& cell, AccessKind kind) const {
    if (!ordered(cell.write) && !(kind == kAtomic && cell.write.atomic())) return &cell.write;
    if (kind == kRead) {
      cell.read = joined(cell.read);
      return nullptr;
    }
    if (!ordered(cell.read)) return &cell.read;
    if (kind == kWrite) {
      cell.write = self();
      cell.read = {};
    } else {
      cell.write = joined(cell.write);
      cell.write.who |= Party::kAtomicFlag;
    }
    return nullptr;
  }
};
