// Executes a CUDA kernel on the CPU: one fiber per thread, block after block, in an order made to bring bugs to light.
//
// The kernel is compiled with -fsanitize=thread, but the functions which that instrumentation calls are ours (at the
// end of this file): they see each load and store and check its bounds, alignment, initialisation and ordering.
// This file itself is built without instrumentation. One launch runs at a time in a process; the caller holds a lock.
#include "runtime.h"

#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "fiber.h"
#include "race.h"

namespace {

constexpr unsigned kMaxThreads = 1024, kMaxWarps = 32, kFrames = 16;
constexpr unsigned kPayloadBytes = 24;  // the most that a lane brings to a warp operation: its part of a matrix product
constexpr size_t kSharedArena = 256 << 10;
constexpr size_t kSharedOffset = 128;  // dynamic shared memory is aligned to 128 bytes, and by intent to no more
constexpr unsigned kWarpgroup = 128;   // threads
constexpr uint32_t kSlice = 1 << 16;  // basic blocks that a thread runs before the others get a turn (spin-waits end)
enum Checks : uint32_t { kCheckRaces = 1, kCheckUninitialized = 2, kShuffleOrder = 4 };

}  // namespace

// ---- the request of one launch, filled in by module.py -------------------------------------------------------------
extern "C" {
struct SimulatorBuffer {
  unsigned char* begin;
  size_t bytes;
  uint32_t writable, argument;
};
struct SimulatorLaunch {
  void (*call)(void**);
  void** arguments;
  void* (*touch_shared)();
  uint32_t grid[3], block[3];
  size_t dynamic_shared;
  SimulatorBuffer* buffers;
  size_t buffer_count;
  uint64_t seed, step_limit;
  uint32_t checks;
  // what comes back
  uint32_t failed, has_thread, block_at[3], thread_at[3];
  uint64_t image_base, image_begin, image_end;
  uint64_t frames[kFrames], other_pc;
  uint64_t accesses, switches, steps;
  char kind[32], message[512];
};
}

namespace {

// ---- state of the launch -------------------------------------------------------------------------------------------
enum MeetingKind { kSyncWarp, kShuffle, kBallot, kMatch, kLoadMatrices, kLoadTransposed, kMultiply, kProduct };
enum State { kReady, kAtBarrier, kAtMeeting, kAtMbarrier, kAtNamedBarrier, kAtProduct, kReturned };

struct AsyncCopy {
  unsigned char* destination;
  const unsigned char* source;
  unsigned bytes, total, group;
};
struct Product {  // wgmma: 64 x columns += (64 x 16) (16 x columns), the left operand in registers or shared memory
  uint64_t a, b;
  float* d;                   // this thread's own, as what it has of the left operand; the rest all threads have in common
  const unsigned* registers;  // nullptr: descriptor a
  unsigned fragment[4];       // what they held at the issue
  unsigned columns, group;
  simulator_format format;
  int transposed_b, adds;
  bool same(const Product& o) const {
    return a == o.a && b == o.b && !registers == !o.registers && columns == o.columns && group == o.group &&
           format == o.format && transposed_b == o.transposed_b && adds == o.adds;
  }
};
struct Accumulator {  // what d will hold when the last product on it has ended
  float* d;
  unsigned count;
  float values[128];
};
struct Fiber {
  Context context;
  void** frame;  // frame pointer at the last hand-over
  uint3 index;
  unsigned number;  // in the block
  State state;
  unsigned copy_group;
  std::vector<AsyncCopy> copies;
  unsigned char received[32 * kPayloadBytes];  // packed: lane i's post begins at i times the operation's bytes
  const uint64_t* mbarrier;                    // waited for
  unsigned named_barrier;                      // likewise
  int vote;                                    // what came out there
  bool product_fence;
  uint32_t proxy_fence, init_fence;  // times of the last ones
  unsigned product_group, product_groups_left;
  std::vector<Product> products;
  std::vector<Accumulator> accumulators;
};
struct Meeting {
  unsigned mask, arrived, bytes;
  MeetingKind kind;
  unsigned char posts[32 * kPayloadBytes];
};
struct Warp {
  Meeting meetings[8];
  LaneClocks clocks;
  std::vector<unsigned> ready;
  uint64_t priority;
};
struct Region {  // memory whose history is kept, one cell a byte
  unsigned char* begin;
  size_t bytes;
  Cell* cells;
  bool contains(const unsigned char* p) const { return p >= begin && p < begin + bytes; }
};
struct Image {
  uintptr_t base, begin, end;
  unsigned char* shared;
  size_t shared_bytes;
};

struct Mbarrier {
  uint64_t* at;
  unsigned count, pending;             // arrivals of one phase; those still to come
  int64_t bytes;                       // that copies still have to bring
  unsigned phase;
  std::vector<uint32_t> joined, told;  // what arrivals so far have reported; what the last completed phase tells
  unsigned initialiser;                // a thread, and when it was that
  uint32_t when;
};
struct TileCopy {  // by the copy engine: a box of an array, or bytes in a row, which are a box of one axis
  unsigned char* destination;
  simulator_tensor_map map;
  uint64_t* mbarrier;
  int corner[4];
  unsigned thread;    // in the block
  uint32_t when, pc;  // of the issue

  size_t row_bytes() const { return map.box[0] * map.item_bytes; }
  size_t rows() const { return map.box[1] * map.box[2] * map.box[3]; }
  size_t bytes() const { return row_bytes() * rows(); }

  // The part of the box's row r that the array has: its bytes and how many bytes lie before it; none where it has none.
  struct Part {
    unsigned char* from;
    size_t bytes, before;
  };
  Part part(size_t r) const {
    const int64_t first = std::max(0, corner[0]), end = std::min<int64_t>(map.lengths[0], corner[0] + static_cast<int64_t>(map.box[0]));
    Part found{reinterpret_cast<unsigned char*>(map.base) + first * map.item_bytes, 0, 0};
    for (int axis = 1; axis < 4; ++axis) {
      const int64_t at = corner[axis] + static_cast<int64_t>(r % map.box[axis]);
      r /= map.box[axis];
      if (at < 0 || at >= static_cast<int64_t>(map.lengths[axis])) return found;
      found.from += at * map.strides[axis - 1];
    }
    if (first < end) found.bytes = (end - first) * map.item_bytes, found.before = (first - corner[0]) * map.item_bytes;
    return found;
  }
};

Fiber* fibers;
unsigned char* stacks;
alignas(1024) unsigned char shared_arena[kSharedArena];
Warp warps[kMaxWarps];
Context main_context;
SimulatorLaunch* launch;
Fiber* current;  // nullptr outside kernel code
uint3 block_index;
dim3 block_size, grid_size;
unsigned block_number, threads, warp_count, alive, ready_count;
uint32_t now, block_synchronized;
Image image;
Region dynamic_shared, static_shared;
std::vector<Region> global_memory;
std::vector<Mbarrier> mbarriers;
std::vector<TileCopy> tile_copies;  // under way
std::vector<uint32_t> heard;        // [i * threads + j]: see Observer::heard; empty until the block has an mbarrier
uint64_t random_state;
uint32_t slice_left;
uintptr_t interrupted_at;  // set by the watchdog

struct Barrier {
  unsigned waiting, votes, line;
  int vote;  // -1: none
  int result;
} barrier;

struct NamedBarrier {
  unsigned count, waiting;
  int vote;
} named_barriers[16];

uint64_t random_bits() {  // xorshift64
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

Warp& warp_of(const Fiber& fiber) { return warps[fiber.number / 32]; }

unsigned existing_lanes(unsigned warp) {
  const unsigned count = std::min(32u, threads - warp * 32);
  return count == 32 ? ~0u : (1u << count) - 1;
}

bool deliver_a_tile();
bool finish_a_warpgroup();
void share_what_was_heard(unsigned lanes);
void need_shared(const void* address, size_t bytes, const char* what);

// ---- scheduling ----------------------------------------------------------------------------------------------------
// A random warp runs as far ahead of the others as it can get: that is what shows a missing barrier. Which warp leads
// is drawn anew at each barrier of the block. Within a warp the lanes go in random order.
void make_ready(Fiber& fiber) {
  fiber.state = kReady;
  warp_of(fiber).ready.push_back(fiber.number);
  ++ready_count;
}

void draw_priorities() {
  for (unsigned w = 0; w < warp_count; ++w) warps[w].priority = launch->checks & kShuffleOrder ? random_bits() : w;
}

Fiber& next_fiber() {
  Warp* first = nullptr;
  for (unsigned w = 0; w < warp_count; ++w)
    if (!warps[w].ready.empty() && (!first || warps[w].priority < first->priority)) first = &warps[w];
  auto& ready = first->ready;
  const size_t k = launch->checks & kShuffleOrder ? random_bits() % ready.size() : 0;
  const unsigned number = ready[k];
  ready.erase(ready.begin() + k);
  --ready_count;
  return fibers[number];
}

__attribute__((noinline)) void hand_over() {
  ++launch->switches;
  current->frame = static_cast<void**>(__builtin_frame_address(0));
  current->context.switch_to(main_context);
}

// ---- reports -------------------------------------------------------------------------------------------------------
void keep_frames(const Fiber& fiber, void** frame) {
  auto inside = [&](void** p) {
    auto* stack = stacks + fiber.number * kStackBytes;
    return reinterpret_cast<unsigned char*>(p) >= stack && reinterpret_cast<unsigned char*>(p + 2) <= stack + kStackBytes;
  };
  unsigned i = 0;
  if (interrupted_at) launch->frames[i++] = interrupted_at + 1;  // as if it were a return address
  for (; i < kFrames && inside(frame); ++i) {
    launch->frames[i] = reinterpret_cast<uint64_t>(frame[1]);
    frame = static_cast<void**>(frame[0]);
  }
}

void report(const Fiber* fiber, void** frame, const char* kind, const char* format, va_list values) {
  if (launch->failed) return;
  launch->failed = 1;
  snprintf(launch->kind, sizeof launch->kind, "%s", kind);
  vsnprintf(launch->message, sizeof launch->message, format, values);
  launch->block_at[0] = block_index.x, launch->block_at[1] = block_index.y, launch->block_at[2] = block_index.z;
  if (!fiber) return;
  launch->has_thread = 1;
  launch->thread_at[0] = fiber->index.x, launch->thread_at[1] = fiber->index.y, launch->thread_at[2] = fiber->index.z;
  keep_frames(*fiber, frame);
}

// Reports on a thread that is not running: one that waits for others in vain.
void report_waiting(const Fiber& fiber, const char* kind, const char* format, ...) {
  va_list values;
  va_start(values, format);
  report(&fiber, fiber.frame, kind, format, values);
  va_end(values);
}

const Fiber* find_fiber(State state) {
  for (unsigned i = 0; i < threads; ++i)
    if (fibers[i].state == state) return &fibers[i];
  return nullptr;
}

void report_deadlock() {
  unsigned count[kReturned + 1] = {};
  for (unsigned i = 0; i < threads; ++i) ++count[fibers[i].state];
  const Fiber* stuck = nullptr;
  for (State state : {kAtMbarrier, kAtProduct, kAtNamedBarrier, kAtMeeting, kAtBarrier})
    if (!stuck) stuck = find_fiber(state);
  char more[200] = "";
  if (count[kAtMbarrier] + count[kAtProduct])
    snprintf(more, sizeof more, ", %u at an mbarrier, %u at a wait for products", count[kAtMbarrier], count[kAtProduct]);
  if (count[kAtNamedBarrier]) snprintf(more + strlen(more), sizeof more - strlen(more), ", %u at a named barrier", count[kAtNamedBarrier]);
  for (const Mbarrier& m : mbarriers)
    if (stuck->state == kAtMbarrier && m.at == stuck->mbarrier)
      snprintf(more + strlen(more), sizeof more - strlen(more), " (which lacks %u arrivals and %lld bytes)", m.pending, static_cast<long long>(m.bytes));
  report_waiting(*stuck, "divergence", "nobody can go on: %u threads wait at a block barrier, %u at a warp operation%s, %u have returned",
                 count[kAtBarrier], count[kAtMeeting], more, count[kReturned]);
}

// ---- memory --------------------------------------------------------------------------------------------------------
const char* verb(AccessKind kind) { return kind == kRead ? "read" : kind == kWrite ? "write" : "atomic operation"; }

void describe_address(char* text, size_t size, const unsigned char* p) {
  auto offset_in = [&](const Region& region) { return static_cast<ptrdiff_t>(p - region.begin); };
  if (!p) {
    snprintf(text, size, "a null pointer");
  } else if (p >= shared_arena && p < shared_arena + kSharedArena) {
    if (dynamic_shared.contains(p)) snprintf(text, size, "byte %zd of dynamic shared memory", offset_in(dynamic_shared));
    else snprintf(text, size, "byte %zd of dynamic shared memory, which has %zu", offset_in(dynamic_shared), dynamic_shared.bytes);
  } else if (static_shared.contains(p)) {
    snprintf(text, size, "a __shared__ variable");
  } else if (p >= stacks && p < stacks + kStackBytes * kMaxThreads) {
    snprintf(text, size, "a local variable of another thread");
  } else {
    const SimulatorBuffer* nearest = nullptr;
    ptrdiff_t nearest_distance = 0;
    for (size_t i = 0; i < launch->buffer_count; ++i) {
      const SimulatorBuffer& b = launch->buffers[i];
      const ptrdiff_t distance = p < b.begin ? b.begin - p : p >= b.begin + b.bytes ? p - (b.begin + b.bytes) + 1 : 0;
      if (!nearest || distance < nearest_distance) nearest = &b, nearest_distance = distance;
    }
    if (!nearest) snprintf(text, size, "address %p", static_cast<const void*>(p));
    else if (p < nearest->begin) snprintf(text, size, "%zd bytes before argument %u, which has %zu bytes", nearest_distance, nearest->argument, nearest->bytes);
    else snprintf(text, size, "byte %zd of argument %u, which has %zu bytes", static_cast<ptrdiff_t>(p - nearest->begin), nearest->argument, nearest->bytes);
  }
}

[[noreturn]] void fail_access(const char* kind, AccessKind access, const unsigned char* p, size_t bytes) {
  char place[160];
  describe_address(place, sizeof place, p);
  simulator_fail(kind, "%s of %zu bytes at %s", verb(access), bytes, place);
}

[[noreturn]] void fail_race(AccessKind access, const unsigned char* p, size_t bytes, const Party& other, bool other_wrote) {
  char place[160], who[96];
  describe_address(place, sizeof place, p);
  const unsigned number = other.number();
  switch (other.level()) {
    case Party::kThread:
      snprintf(who, sizeof who, "thread %u of block %u", number % threads, number / threads);
      break;
    case Party::kWarp:
      snprintf(who, sizeof who, "several lanes of warp %u of block %u", number % warp_count, number / warp_count);
      break;
    case Party::kBlock:
      snprintf(who, sizeof who, "several warps of block %u", number);
      break;
    case Party::kGrid:
      snprintf(who, sizeof who, "several blocks");
  }
  launch->other_pc = image.base + other.pc;
  simulator_fail("race", "%s of %zu bytes at %s is not ordered with the %s by %s", verb(access), bytes, place,
                 !other_wrote ? "read" : other.atomic() ? "atomic operation" : "write", who);
}

Observer observer_at(uintptr_t pc) {
  return {block_number * threads + current->number, block_number, threads, warp_count, current->number % 32,
          current->number / 32, block_synchronized, &warp_of(*current).clocks,
          heard.empty() ? nullptr : &heard[current->number * threads], now, static_cast<uint32_t>(pc - image.base)};
}

void check_history(Region& region, const unsigned char* p, size_t bytes, AccessKind access, bool shared, uintptr_t pc) {
  Cell* cells = region.cells + (p - region.begin);
  const bool uninitialized_matters = shared && access != kWrite && launch->checks & kCheckUninitialized;
  const Observer observer = observer_at(pc);
  // Nearly always all bytes have one history.
  const bool alike = bytes == 1 || memcmp(cells, cells + 1, (bytes - 1) * sizeof(Cell)) == 0;
  for (size_t i = 0; i < (alike ? 1 : bytes); ++i) {
    if (uninitialized_matters && !cells[i].write.who) fail_access("uninitialised", access, p + i, bytes);
    if (launch->checks & kCheckRaces) {
      if (const Party* other = observer.visit(cells[i], access)) fail_race(access, p + i, bytes, *other, other == &cells[i].write);
    } else if (access != kRead) {
      cells[i].write = observer.self();
    }
  }
  if (alike)
    for (size_t i = 1; i < bytes; ++i) cells[i] = cells[0];
}

void check_access(const void* address, size_t bytes, AccessKind access, bool aligned, void* return_address) {
  if (!current || !bytes) return;
  const auto* p = static_cast<const unsigned char*>(address);
  const auto* stack = stacks + current->number * kStackBytes;
  if (p >= stack && p < stack + kStackBytes) return;
  const auto pc = reinterpret_cast<uintptr_t>(return_address);
  ++launch->accesses;
  if (aligned && reinterpret_cast<uintptr_t>(p) & (bytes - 1)) fail_access("misaligned", access, p, bytes);
  for (Region& region : global_memory) {
    if (!region.contains(p)) continue;
    if (p + bytes > region.begin + region.bytes) fail_access("out of bounds", access, region.begin + region.bytes, bytes);
    if (access != kRead) {
      bool writable = false;
      for (size_t i = 0; i < launch->buffer_count && !writable; ++i) {
        const SimulatorBuffer& b = launch->buffers[i];
        writable = b.writable && p >= b.begin && p + bytes <= b.begin + b.bytes;
      }
      if (!writable) fail_access("read-only", access, p, bytes);
    }
    if (launch->checks & kCheckRaces) check_history(region, p, bytes, access, false, pc);
    return;
  }
  for (Region* region : {&dynamic_shared, &static_shared}) {
    if (!region->contains(p)) continue;
    if (p + bytes > region->begin + region->bytes) fail_access("out of bounds", access, region->begin + region->bytes, bytes);
    return check_history(*region, p, bytes, access, true, pc);
  }
  const auto number = reinterpret_cast<uintptr_t>(p);
  if (number >= image.begin && number < image.end) return;  // constants and __device__ variables
  fail_access("out of bounds", access, p, bytes);
}

// ---- mbarriers and the copies that report to them ------------------------------------------------------------------
Mbarrier& mbarrier_at(uint64_t* p, void* pc) {
  check_access(p, sizeof *p, kAtomic, true, pc);
  for (Mbarrier& m : mbarriers)
    if (m.at == p) return m;
  simulator_fail("asynchrony", "an mbarrier is used that nobody has initialised");
}

void join(uint32_t* into, const uint32_t* from) {
  for (unsigned j = 0; j < threads; ++j) into[j] = std::max(into[j], from[j]);
}

void share_what_was_heard(unsigned lanes) {
  if (heard.empty()) return;
  uint32_t* first = &heard[(current->number & ~31u) * threads];
  std::vector<uint32_t> all(threads);
  for (unsigned i = 0; i < 32; ++i)
    if (lanes >> i & 1) join(all.data(), first + i * threads);
  for (unsigned i = 0; i < 32; ++i)
    if (lanes >> i & 1) join(first + i * threads, all.data());
}

// What a thread knows to be done before now: its own accesses, and those that others have told it of.
void tell(const Fiber& fiber, uint32_t* into) {
  join(into, &heard[fiber.number * threads]);
  const unsigned first = fiber.number & ~31u;
  for (unsigned j = first; j < std::min(first + 32, threads); ++j)
    into[j] = std::max(into[j], warp_of(fiber).clocks.seen[fiber.number % 32][j % 32]);
  into[fiber.number] = ++now;
}

void complete_if_due(Mbarrier& m) {
  if (m.pending || m.bytes) return;
  ++m.phase;
  m.pending = m.count;
  m.told = m.joined;
  for (unsigned i = 0; i < threads; ++i)
    if (fibers[i].state == kAtMbarrier && fibers[i].mbarrier == m.at) make_ready(fibers[i]);
}

// The 128-byte swizzle: address bits 7 to 9 change bits 4 to 6.
uintptr_t swizzled(uintptr_t address) { return address ^ (address >> 7 & 7) << 4; }

void deliver(const TileCopy& copy) {
  unsigned char line[1024];
  const size_t row_bytes = copy.row_bytes();
  const auto begin = reinterpret_cast<uintptr_t>(copy.destination);
  for (size_t r = 0; r < copy.rows(); ++r) {
    const TileCopy::Part part = copy.part(r);
    for (size_t at = 0; at < row_bytes; at += sizeof line) {  // only bytes in a row, which no box limits, are more than one line
      const size_t bytes = std::min(sizeof line, row_bytes - at);
      memset(line, 0, bytes);  // also what lies outside of the array
      if (part.bytes) memcpy(line + part.before, part.from + at, std::min(bytes, part.bytes));
      for (size_t i = 0; i < bytes; i += 16) {
        const uintptr_t to = begin + r * row_bytes + at + i;
        memcpy(reinterpret_cast<void*>(copy.map.swizzle ? swizzled(to) : to), line + i, 16);
      }
    }
  }
  for (Region* region : {&dynamic_shared, &static_shared}) {
    if (!region->contains(copy.destination)) continue;
    Cell cell = {Party::make(Party::kThread, block_number * threads + copy.thread, copy.when, copy.pc), {}};
    cell.write.who |= Party::kEngineFlag;
    std::fill_n(region->cells + (copy.destination - region->begin), copy.bytes(), cell);
  }
}

// A copy begins: its destination is garbage from here on.
void issue(TileCopy copy, unsigned alignment, void* pc) {
  const Mbarrier& m = mbarrier_at(copy.mbarrier, pc);
  if (fibers[m.initialiser].init_fence <= m.when)
    simulator_fail("asynchrony", "a copy reports to an mbarrier that thread %u initialised without mbarrier_init_fence() after it", m.initialiser);
  copy.when = now++;
  copy.pc = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(pc) - image.base);
  if (reinterpret_cast<uintptr_t>(copy.destination) & (alignment - 1)) fail_access("misaligned", kWrite, copy.destination, alignment);
  need_shared(copy.destination, copy.bytes(), "the copy of a tile");
  check_access(copy.destination, copy.bytes(), kWrite, false, pc);
  for (size_t r = 0; r < copy.rows(); ++r) {
    const TileCopy::Part part = copy.part(r);
    check_access(part.from, part.bytes, kRead, false, pc);
  }
  memset(copy.destination, 0xff, copy.bytes());
  for (Region* region : {&dynamic_shared, &static_shared})  // uninitialised again until the data arrive
    if (region->contains(copy.destination)) memset(static_cast<void*>(region->cells + (copy.destination - region->begin)), 0, copy.bytes() * sizeof(Cell));
  tile_copies.push_back(copy);
}

// One of the copies that somebody waits for, drawn at random. Called when nobody can go on: the latest legal moment.
bool deliver_a_tile() {
  std::vector<size_t> awaited;
  for (size_t i = 0; i < tile_copies.size(); ++i)
    for (unsigned t = 0; t < threads; ++t)
      if (fibers[t].state == kAtMbarrier && fibers[t].mbarrier == tile_copies[i].mbarrier) {
        awaited.push_back(i);
        break;
      }
  if (awaited.empty()) return false;
  const size_t k = awaited[launch->checks & kShuffleOrder ? random_bits() % awaited.size() : 0];
  const TileCopy copy = tile_copies[k];
  tile_copies.erase(tile_copies.begin() + k);
  deliver(copy);
  for (Mbarrier& m : mbarriers) {
    if (m.at != copy.mbarrier) continue;
    m.bytes -= copy.bytes();
    m.joined[copy.thread] = std::max(m.joined[copy.thread], copy.when + 1);
    complete_if_due(m);
  }
  return ready_count || deliver_a_tile();
}

// ---- the life of a block -------------------------------------------------------------------------------------------
void release_barrier() {
  block_synchronized = ++now;
  const unsigned votes = barrier.votes;
  barrier.result = barrier.vote == kVoteAnd ? votes == threads : barrier.vote == kVoteOr ? votes != 0 : static_cast<int>(votes);
  barrier.waiting = barrier.votes = 0;
  draw_priorities();
  for (unsigned i = 0; i < threads; ++i)
    if (fibers[i].state == kAtBarrier) make_ready(fibers[i]);
}

void wait_at_barrier(int line, int vote, int predicate) {
  if (alive < threads) simulator_fail("divergence", "%u of the block's %u threads have returned before this barrier", threads - alive, threads);
  if (!barrier.waiting) {
    barrier.line = line;
    barrier.vote = vote;
  } else if (barrier.line != static_cast<unsigned>(line) || barrier.vote != vote) {
    simulator_fail("divergence", "threads of one block wait at different barriers: this one and the one of line %u", barrier.line);
  }
  barrier.votes += predicate != 0;
  current->state = kAtBarrier;
  if (++barrier.waiting == threads) release_barrier();
  hand_over();
}

void thread_body() {
  launch->call(launch->arguments);
  if (!current->copies.empty()) simulator_copy_wait(0);
  current->state = kReturned;
  --alive;
  if (const Fiber* waiting = barrier.waiting ? find_fiber(kAtBarrier) : nullptr)
    report_waiting(*waiting, "divergence", "waits at a block barrier which thread %u will not reach: it has returned", current->number);
  hand_over();
  abort();  // nobody resumes a thread that has returned
}

void start_block(unsigned number) {
  block_number = number;
  block_index = {number % grid_size.x, number / grid_size.x % grid_size.y, number / (grid_size.x * grid_size.y)};
  for (Region* region : {&dynamic_shared, &static_shared}) {
    if (!region->bytes) continue;
    memset(region->begin, 0xff, region->bytes);  // NaN in every floating-point format
    memset(static_cast<void*>(region->cells), 0, region->bytes * sizeof(Cell));
  }
  barrier = {};
  for (auto& named : named_barriers) named = {};
  block_synchronized = ++now;
  ready_count = 0;
  alive = threads;
  mbarriers.clear();
  tile_copies.clear();
  heard.clear();
  for (unsigned w = 0; w < warp_count; ++w) {
    for (auto& meeting : warps[w].meetings) meeting.mask = meeting.arrived = 0;
    warps[w].clocks.reset(now);
    warps[w].ready.clear();
  }
  draw_priorities();
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.number = i;
    fiber.index = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
    fiber.copy_group = 0;
    fiber.copies.clear();
    fiber.product_fence = false;
    fiber.proxy_fence = fiber.init_fence = 0;
    fiber.product_group = 0;
    fiber.products.clear();
    fiber.accumulators.clear();
    fiber.context.prepare(stacks + i * kStackBytes, thread_body);
    make_ready(fiber);
  }
}

void run_block() {
  while (alive && !launch->failed) {
    if (!ready_count && !deliver_a_tile() && !finish_a_warpgroup()) {
      if (!launch->failed) report_deadlock();
      return;
    }
    current = &next_fiber();
    slice_left = kSlice;
    main_context.switch_to(current->context);
    launch->steps += kSlice - slice_left + 1;
    if (launch->steps > launch->step_limit)
      report_waiting(*current, "endless", "the launch did not end within %llu steps", static_cast<unsigned long long>(launch->step_limit));
    current = nullptr;
  }
  if (!launch->failed && !tile_copies.empty()) {
    const TileCopy& copy = tile_copies.front();
    report_waiting(fibers[copy.thread], "asynchrony", "the block has ended and nobody waited for a copy of %zu bytes to shared memory",
                   copy.bytes());
  }
}

// A thread that has run long enough lets the others go on: what it waits for in a loop may come from them.
void end_of_slice() {
  warp_of(*current).priority = ~0ull;
  make_ready(*current);
  hand_over();
}

// ---- warp operations -----------------------------------------------------------------------------------------------
// Each lane that `mask` names posts `bytes`; when the last has come, current->received holds what each lane posted.
void meet(unsigned mask, MeetingKind kind, const void* post, unsigned bytes) {
  Warp& warp = warp_of(*current);
  const unsigned lane = current->number % 32, exist = existing_lanes(current->number / 32);
  if (!(mask >> lane & 1)) simulator_fail("warp mask", "mask %08x does not name the calling lane %u", mask, lane);
  if (mask & ~exist && mask != ~0u) simulator_fail("warp mask", "mask %08x names lanes that the block does not have", mask);
  mask &= exist;
  Meeting* meeting = nullptr;
  for (Meeting& m : warp.meetings) {
    if (m.arrived && m.mask == mask) meeting = &m;
    else if (m.arrived && m.mask >> lane & 1) simulator_fail("warp mask", "other lanes wait for lane %u with mask %08x, it comes with mask %08x", lane, m.mask, mask);
  }
  for (Meeting& m : warp.meetings)
    if (!meeting && !m.arrived) meeting = &m;
  if (!meeting) simulator_fail("warp mask", "more than 8 different masks are waited for in one warp");
  if (!meeting->arrived) {
    meeting->mask = mask;
    meeting->kind = kind;
    meeting->bytes = bytes;
  } else if (meeting->kind != kind || meeting->bytes != bytes) {
    simulator_fail("divergence", "lanes of one warp wait at different warp operations");
  }
  if (bytes) memcpy(meeting->posts + lane * bytes, post, bytes);
  meeting->arrived |= 1u << lane;
  current->state = kAtMeeting;
  if (meeting->arrived == mask) {
    meeting->arrived = 0;
    if (kind == kSyncWarp) {
      warp.clocks.synchronize(mask, ++now);
      share_what_was_heard(mask);
    }
    Fiber* lanes = &fibers[current->number & ~31u];
    for (unsigned i = 0; i < 32; ++i) {
      if (!(mask >> i & 1)) continue;
      memcpy(lanes[i].received, meeting->posts, 32 * bytes);
      make_ready(lanes[i]);
    }
  }
  hand_over();
}

// ---- matrix operations ---------------------------------------------------------------------------------------------
void need_whole_warp() {
  if (existing_lanes(current->number / 32) != ~0u) simulator_fail("divergence", "a matrix operation needs a warp of 32 threads");
}

void need_shared(const void* address, size_t bytes, const char* what) {
  const auto* p = static_cast<const unsigned char*>(address);
  if (!dynamic_shared.contains(p) && !static_shared.contains(p)) {
    char place[160];
    describe_address(place, sizeof place, p);
    simulator_fail("out of bounds", "%s of %zu bytes is at home in shared memory, this is %s", what, bytes, place);
  }
}

float to_float(unsigned bits, simulator_format format) {
  if (format == kFormatHalf) return simulator_half_to_float(static_cast<uint16_t>(bits));
  if (format == kFormatBfloat16) return simulator_bfloat16_to_float(static_cast<uint16_t>(bits));
  float value;
  bits &= ~0x1fffu;  // tensor cores do not look at the low 13 bits
  memcpy(&value, &bits, 4);
  return value;
}

// Where a wgmma descriptor says that 16 bytes (8 elements) of an operand lie. Operands begin at a multiple of 1024 bytes,
// but for a step along the swizzled 128 bytes; strides count in units of 16 bytes.
const unsigned char* described(uint64_t descriptor, uintptr_t offset) {
  const uintptr_t start = (descriptor & 0x3fff) << 4;
  if (descriptor >> 62 != 1) simulator_fail("asynchrony", "of a descriptor's layouts only the 128-byte swizzle is known here");
  if (start & 0x380) simulator_fail("misaligned", "the operand of a wgmma begins at shared address %zu, which is no multiple of 1024", start);
  return shared_arena + swizzled(start + offset);
}
const unsigned char* operand_chunk(uint64_t descriptor, unsigned row, unsigned half) {  // k innermost
  return described(descriptor, row / 8 * ((descriptor >> 32 & 0x3fff) << 4) + row % 8 * 128 + half * 16);
}
const unsigned char* transposed_chunk(uint64_t descriptor, unsigned k, unsigned eighth) {  // columns innermost, 64 a panel
  return described(descriptor, eighth / 8 * ((descriptor >> 16 & 0x3fff) << 4) + k / 8 * ((descriptor >> 32 & 0x3fff) << 4) + k % 8 * 128 + eighth % 8 * 16);
}

// A wgmma reads for its whole warpgroup and until its wait, so its reads join nobody's history: what overwrites them
// too early shows in the numbers.
void check_operand(const unsigned char* p, uintptr_t pc) {
  if (p + 16 > dynamic_shared.begin + dynamic_shared.bytes || p < dynamic_shared.begin) fail_access("out of bounds", kRead, p, 16);
  const Observer observer = observer_at(pc);
  for (unsigned i = 0; i < 16; ++i) {
    const Party& writer = dynamic_shared.cells[p - dynamic_shared.begin + i].write;
    if (!writer.who) fail_access("uninitialised", kRead, p + i, 16);
    if (launch->checks & kCheckRaces && !observer.ordered(writer)) fail_race(kRead, p + i, 16, writer, true);
    if (writer.by_engine() || writer.level() != Party::kThread) continue;
    const unsigned author = writer.number() % threads;
    if (std::max(fibers[author].proxy_fence, current->proxy_fence) <= writer.when)
      simulator_fail("asynchrony", "a wgmma reads what thread %u stored without async_proxy_fence() after it", author);
  }
}

// What a warpgroup waits for, computed as late as may be: when all its threads wait and nobody else can go on.
void finish_products(Fiber* group) {
  const Fiber& first = group[0];
  for (unsigned t = 1; t < kWarpgroup; ++t) {
    const Fiber& other = group[t];
    const bool alike = other.product_groups_left == first.product_groups_left && other.product_group == first.product_group &&
                       std::equal(first.products.begin(), first.products.end(), other.products.begin(), other.products.end(),
                                  [](const Product& x, const Product& y) { return x.same(y); });
    if (!alike) return report_waiting(other, "divergence", "the threads of one warpgroup wait for different products");
  }
  size_t done = 0;
  while (done < first.products.size() && first.products[done].group + first.product_groups_left < first.product_group) ++done;
  std::vector<double> a(64 * 16), b(256 * 16);
  for (size_t k = 0; k < done; ++k) {
    const Product& product = first.products[k];
    for (unsigned t = 0; t < kWarpgroup; ++t)
      if (const Product& own = group[t].products[k]; own.registers && memcmp(own.registers, own.fragment, sizeof own.fragment))
        return report_waiting(group[t], "asynchrony", "the registers of a wgmma's left operand were changed before the wait for it");
    auto value = [&](const unsigned char* chunk, unsigned i) {
      uint16_t bits;
      memcpy(&bits, chunk + 2 * i, 2);
      return to_float(bits, product.format);
    };
    for (unsigned row = 0; row < 64; ++row)
      for (unsigned e = 0; e < 16; ++e) {
        if (!product.registers) {
          a[row * 16 + e] = value(operand_chunk(product.a, row, e / 8), e % 8);
        } else {  // each warp has 16 rows, as the left operand of mma.m16n8k16
          const Fiber& fiber = group[row / 16 * 32 + row % 8 * 4 + e % 8 / 2];
          a[row * 16 + e] = to_float(fiber.products[k].fragment[row % 16 / 8 + e / 8 * 2] >> 16 * (e & 1) & 0xffff, product.format);
        }
      }
    for (unsigned n = 0; n < product.columns; ++n)
      for (unsigned e = 0; e < 16; ++e)
        b[n * 16 + e] = product.transposed_b ? value(transposed_chunk(product.b, e, n / 8), n % 8) : value(operand_chunk(product.b, n, e / 8), e % 8);
    for (unsigned t = 0; t < kWarpgroup; ++t) {
      Fiber& fiber = group[t];
      for (Accumulator& accumulator : fiber.accumulators) {
        if (accumulator.d != fiber.products[k].d) continue;
        for (unsigned i = 0; i < accumulator.count; ++i) {
          const unsigned row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + t % 4 * 2 + i % 2;
          double sum = product.adds ? accumulator.values[i] : 0.;
          for (unsigned e = 0; e < 16; ++e) sum += a[row * 16 + e] * b[column * 16 + e];
          accumulator.values[i] = static_cast<float>(sum);
        }
      }
    }
  }
  for (unsigned t = 0; t < kWarpgroup; ++t) {
    Fiber& fiber = group[t];
    fiber.products.erase(fiber.products.begin(), fiber.products.begin() + done);
    for (size_t i = fiber.accumulators.size(); i-- > 0;) {
      const Accumulator& accumulator = fiber.accumulators[i];
      if (std::any_of(fiber.products.begin(), fiber.products.end(), [&](const Product& p) { return p.d == accumulator.d; })) continue;
      memcpy(accumulator.d, accumulator.values, accumulator.count * sizeof(float));
      fiber.accumulators.erase(fiber.accumulators.begin() + i);
    }
  }
}

bool finish_a_warpgroup() {
  for (unsigned first = 0; first + kWarpgroup <= threads; first += kWarpgroup) {
    Fiber* group = &fibers[first];
    if (!std::all_of(group, group + kWarpgroup, [](const Fiber& fiber) { return fiber.state == kAtProduct; })) continue;
    finish_products(group);
    if (launch->failed) return false;
    for (unsigned t = 0; t < kWarpgroup; ++t) make_ready(group[t]);
    return true;
  }
  return false;
}

uint64_t received_from(unsigned lane) {
  uint64_t bits;
  memcpy(&bits, current->received + lane * sizeof bits, sizeof bits);
  return bits;
}

// ---- the watchdog --------------------------------------------------------------------------------------------------
// Steps are counted where a basic block begins. A loop whose body is empty (`while (!flag);` with a flag that is not
// volatile) has no such place: a signal that comes after each half second of this thread's own time finds it.
constexpr int kWatchdogSignal = 50;  // a real-time signal that neither libc nor Python uses
uint64_t progress_seen;

void on_watchdog(int, siginfo_t*, void* context) {
  if (!current) return;
  const uint64_t progress = launch->steps + launch->accesses + launch->switches + (kSlice - slice_left) + 1;
  if (progress != progress_seen) {
    progress_seen = progress;
    return;
  }
#if defined(__x86_64__)
  interrupted_at = static_cast<uintptr_t>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#else
  (void)context;
#endif
  simulator_fail("endless", "a loop without an effect does not end");
}

class Watchdog {
 public:
  Watchdog() {
    progress_seen = 0;
    interrupted_at = 0;
    struct sigaction action = {};
    action.sa_sigaction = on_watchdog;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART;  // NODEFER: the handler may never return
    sigaction(kWatchdogSignal, &action, &previous_);
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = kWatchdogSignal;
    event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
    running_ = timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer_) == 0;
    const itimerspec interval = {{0, 500000000}, {0, 500000000}};
    if (running_) timer_settime(timer_, 0, &interval, nullptr);
  }
  ~Watchdog() {
    if (running_) timer_delete(timer_);
    sigaction(kWatchdogSignal, &previous_, nullptr);
  }

 private:
  struct sigaction previous_;
  timer_t timer_;
  bool running_;
};

// ---- what the loader knows: where the kernel's code lies, and where its __shared__ (thread-local) variables --------
int find_image(dl_phdr_info* info, size_t, void* wanted) {
  uintptr_t begin = ~uintptr_t(0), end = 0;
  size_t shared_bytes = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type == PT_LOAD) {
      begin = std::min<uintptr_t>(begin, info->dlpi_addr + header.p_vaddr);
      end = std::max<uintptr_t>(end, info->dlpi_addr + header.p_vaddr + header.p_memsz);
    }
    if (header.p_type == PT_TLS) shared_bytes = header.p_memsz;
  }
  const auto address = reinterpret_cast<uintptr_t>(wanted);
  if (address < begin || address >= end) return 0;
  auto* shared = static_cast<unsigned char*>(info->dlpi_tls_data);
  image = {info->dlpi_addr, begin, end, shared, shared ? shared_bytes : 0};
  return 1;
}

Region watched(unsigned char* begin, size_t bytes, bool keep_history) {
  // calloc: pages of history that no access touches cost nothing
  return {begin, bytes, bytes && keep_history ? static_cast<Cell*>(calloc(bytes, sizeof(Cell))) : nullptr};
}

// Arrays may overlap (in-place use, views): memory that hangs together has one history.
void watch_global_memory() {
  std::vector<SimulatorBuffer> buffers(launch->buffers, launch->buffers + launch->buffer_count);
  std::sort(buffers.begin(), buffers.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
  global_memory.clear();
  for (const auto& buffer : buffers) {
    if (!buffer.bytes) continue;
    if (!global_memory.empty() && buffer.begin < global_memory.back().begin + global_memory.back().bytes) {
      Region& last = global_memory.back();
      last.bytes = std::max<size_t>(last.bytes, buffer.begin + buffer.bytes - last.begin);
    } else {
      global_memory.push_back({buffer.begin, buffer.bytes, nullptr});
    }
  }
  for (Region& region : global_memory) region = watched(region.begin, region.bytes, launch->checks & kCheckRaces);
}

}  // namespace

extern "C" {

void simulator_launch(SimulatorLaunch* request) {
  if (!fibers) {
    fibers = new Fiber[kMaxThreads]();
    stacks = reserve_stacks(kMaxThreads);
  }
  launch = request;
  void* anchor = launch->touch_shared();  // brings this thread's copy of the __shared__ variables into being
  (void)anchor;
  dl_iterate_phdr(find_image, reinterpret_cast<void*>(launch->call));
  launch->image_base = image.base;
  launch->image_begin = image.begin;
  launch->image_end = image.end;
  grid_size = dim3(launch->grid[0], launch->grid[1], launch->grid[2]);
  block_size = dim3(launch->block[0], launch->block[1], launch->block[2]);
  threads = block_size.x * block_size.y * block_size.z;
  warp_count = (threads + 31) / 32;
  now = 0;
  random_state = (launch->seed + 1) * 0x9E3779B97F4A7C15ull | 1;
  dynamic_shared = watched(shared_arena + kSharedOffset, launch->dynamic_shared, true);
  static_shared = watched(image.shared, image.shared_bytes, true);
  watch_global_memory();

  std::vector<unsigned> order(static_cast<size_t>(grid_size.x) * grid_size.y * grid_size.z);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<unsigned>(i);
  if (launch->checks & kShuffleOrder)
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_bits() % i]);
  Watchdog watchdog;
  for (unsigned number : order) {
    start_block(number);
    run_block();
    if (launch->failed) break;
  }
  free(dynamic_shared.cells);
  free(static_shared.cells);
  for (Region& region : global_memory) free(region.cells);
}

// ---- runtime.h -----------------------------------------------------------------------------------------------------
uint3 simulator_thread_index() { return current->index; }
uint3 simulator_block_index() { return block_index; }
dim3 simulator_block_size() { return block_size; }
dim3 simulator_grid_size() { return grid_size; }
unsigned simulator_lane() { return current->number % 32; }
unsigned simulator_existing_lanes() { return existing_lanes(current->number / 32); }
unsigned char* simulator_dynamic_shared() { return shared_arena + kSharedOffset; }

void simulator_fail(const char* kind, const char* format, ...) {
  va_list values;
  va_start(values, format);
  report(current, static_cast<void**>(__builtin_frame_address(0)), kind, format, values);
  va_end(values);
  hand_over();
  abort();  // nobody resumes a thread that has failed
}

void simulator_barrier(int line) { wait_at_barrier(line, -1, 0); }

int simulator_barrier_vote(int line, simulator_vote vote, int predicate) {
  wait_at_barrier(line, vote, predicate);
  return barrier.result;
}

void simulator_sync_warp(unsigned mask) { meet(mask, kSyncWarp, nullptr, 0); }

uint64_t simulator_shuffle(unsigned mask, uint64_t bits, unsigned source_lane) {
  meet(mask, kShuffle, &bits, sizeof bits);
  if (!(mask >> source_lane & 1)) simulator_fail("warp mask", "shuffle reads lane %u, which mask %08x does not name", source_lane, mask);
  if (!(simulator_existing_lanes() >> source_lane & 1)) simulator_fail("warp mask", "shuffle reads lane %u, which the block does not have", source_lane);
  return received_from(source_lane);
}

unsigned simulator_ballot(unsigned mask, int predicate) {
  const uint64_t bit = predicate != 0;
  meet(mask, kBallot, &bit, sizeof bit);
  unsigned lanes = 0;
  for (unsigned i = 0; i < 32; ++i)
    if (mask & simulator_existing_lanes() & 1u << i) lanes |= static_cast<unsigned>(received_from(i)) << i;
  return lanes;
}

unsigned simulator_match(unsigned mask, uint64_t bits) {
  meet(mask, kMatch, &bits, sizeof bits);
  unsigned lanes = 0;
  for (unsigned i = 0; i < 32; ++i)
    if (mask & simulator_existing_lanes() & 1u << i && received_from(i) == bits) lanes |= 1u << i;
  return lanes;
}

void simulator_read(const void* p, size_t n) { check_access(p, n, kRead, true, __builtin_return_address(0)); }
void simulator_write(const void* p, size_t n) { check_access(p, n, kWrite, true, __builtin_return_address(0)); }
void simulator_atomic(const void* p, size_t n) { check_access(p, n, kAtomic, true, __builtin_return_address(0)); }

void simulator_copy_async(void* destination, const void* source, unsigned bytes, unsigned total) {
  void* pc = __builtin_return_address(0);
  check_access(destination, total, kWrite, true, pc);
  if (bytes && reinterpret_cast<uintptr_t>(source) & (total - 1)) fail_access("misaligned", kRead, static_cast<const unsigned char*>(source), total);
  check_access(source, bytes, kRead, false, pc);
  memset(destination, 0xff, total);
  current->copies.push_back({static_cast<unsigned char*>(destination), static_cast<const unsigned char*>(source), bytes, total, current->copy_group});
}
void simulator_copy_commit() { ++current->copy_group; }
void simulator_copy_wait(unsigned groups_left) {
  auto& copies = current->copies;
  size_t done = 0;
  for (; done < copies.size() && copies[done].group + groups_left < current->copy_group; ++done) {
    const AsyncCopy& copy = copies[done];
    check_access(copy.destination, copy.total, kWrite, true, __builtin_return_address(0));
    memcpy(copy.destination, copy.source, copy.bytes);
    memset(copy.destination + copy.bytes, 0, copy.total - copy.bytes);
  }
  copies.erase(copies.begin(), copies.begin() + done);
}

void simulator_load_matrices(unsigned* result, const void* row, int transposed) {
  need_whole_warp();
  if (reinterpret_cast<uintptr_t>(row) & 15) fail_access("misaligned", kRead, static_cast<const unsigned char*>(row), 16);
  need_shared(row, 16, "ldmatrix");
  check_access(row, 16, kRead, true, __builtin_return_address(0));
  meet(~0u, transposed ? kLoadTransposed : kLoadMatrices, row, 16);
  const unsigned lane = current->number % 32, major = lane / 4, minor = lane % 4 * 2;
  for (unsigned m = 0; m < 4; ++m) {
    uint16_t pair[2];
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned r = transposed ? minor + i : major, column = transposed ? major : minor + i;
      memcpy(&pair[i], current->received + (m * 8 + r) * 16 + column * 2, 2);
    }
    memcpy(&result[m], pair, 4);
  }
}

// The sum is rounded once here; tensor cores round and cut in ways of their own, so compare with a tolerance.
void simulator_multiply(float* d, const unsigned* a, const unsigned* b, simulator_format format) {
  need_whole_warp();
  unsigned post[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  meet(~0u, kMultiply, post, sizeof post);
  const bool wide = format == kFormatTf32;
  const unsigned depth = wide ? 8 : 16, run = wide ? 4 : 8;  // elements of k in one register's run
  // Lane 4 * i + j holds, of row (or column) i, the elements k with k mod run in j's part; registers go on by the run.
  auto element = [&](unsigned i, unsigned k, unsigned first_register, unsigned step) {
    const unsigned lane = i % 8 * 4 + (wide ? k % run : k % run / 2);
    unsigned bits;
    memcpy(&bits, current->received + lane * sizeof post + 4 * (first_register + k / run * step), 4);
    return wide ? to_float(bits, format) : to_float(bits >> 16 * (k & 1) & 0xffff, format);
  };
  const unsigned lane = current->number % 32;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    double sum = d[i];
    for (unsigned k = 0; k < depth; ++k) sum += static_cast<double>(element(row, k, row / 8, 2)) * element(column, k, 4, 1);
    d[i] = static_cast<float>(sum);
  }
}

unsigned simulator_shared_address(const void* address) {
  const auto* p = static_cast<const unsigned char*>(address);
  if (p < shared_arena || p >= shared_arena + kSharedArena)
    simulator_fail("asynchrony", "an address in dynamic shared memory is needed: the simulator gives static variables no shared address");
  return static_cast<unsigned>(p - shared_arena);
}

void simulator_mbarrier_init(uint64_t* barrier, unsigned count) {
  need_shared(barrier, sizeof *barrier, "mbarrier");
  check_access(barrier, sizeof *barrier, kWrite, true, __builtin_return_address(0));
  if (!count) simulator_fail("asynchrony", "an mbarrier needs at least one arrival");
  if (heard.empty()) heard.assign(static_cast<size_t>(threads) * threads, 0);
  Mbarrier fresh{barrier, count, count, 0, 0, std::vector<uint32_t>(threads), std::vector<uint32_t>(threads), current->number, ++now};
  for (Mbarrier& m : mbarriers)
    if (m.at == barrier) {
      m = fresh;
      return;
    }
  mbarriers.push_back(fresh);
}

void simulator_mbarrier_arrive(uint64_t* barrier, unsigned expected_bytes) {
  Mbarrier& m = mbarrier_at(barrier, __builtin_return_address(0));
  if (!m.pending) simulator_fail("asynchrony", "more arrivals than the %u that the mbarrier was initialised for", m.count);
  --m.pending;
  m.bytes += expected_bytes;
  tell(*current, m.joined.data());
  complete_if_due(m);
}

void simulator_mbarrier_wait(uint64_t* barrier, unsigned parity) {
  if ((mbarrier_at(barrier, __builtin_return_address(0)).phase & 1) == (parity & 1)) {
    current->state = kAtMbarrier;
    current->mbarrier = barrier;
    hand_over();
  }
  join(&heard[current->number * threads], mbarrier_at(barrier, __builtin_return_address(0)).told.data());
}

void simulator_copy_tile(void* destination, const void* map, uint64_t* barrier, unsigned rank, const int* corner) {
  TileCopy copy{static_cast<unsigned char*>(destination), {}, barrier, {}, current->number, 0, 0};
  memcpy(&copy.map, map, sizeof copy.map);
  if (copy.map.magic != kTensorMapMagic) simulator_fail("asynchrony", "the copy of a tile needs what make_tensor_map gives");
  if (copy.map.rank != rank) simulator_fail("asynchrony", "the copy of a tile of %u axes needs a map of as many, this one has %u", rank, static_cast<unsigned>(copy.map.rank));
  std::copy_n(corner, rank, copy.corner);
  issue(copy, 128, __builtin_return_address(0));
}

void simulator_copy_bulk(void* destination, const void* source, unsigned bytes, uint64_t* barrier) {
  if ((reinterpret_cast<uintptr_t>(source) | bytes) & 15)
    simulator_fail("misaligned", "a bulk copy needs a source and a length that are multiples of 16, got %p and %u", source, bytes);
  simulator_tensor_map map{kTensorMapMagic, reinterpret_cast<uint64_t>(source), 1, 0, 1, {bytes, 1, 1, 1}, {}, {bytes, 1, 1, 1}};
  issue({static_cast<unsigned char*>(destination), map, barrier, {}, current->number, 0, 0}, 16, __builtin_return_address(0));
}

int simulator_named_barrier(unsigned id, unsigned count, int predicate) {
  if (id < 1 || id > 15) simulator_fail("divergence", "a named barrier is one of 1 to 15 (0 is that of the block), got %u", id);
  if (!count || count % 32 || count > threads) simulator_fail("divergence", "a named barrier is for whole warps of the block, got %u threads", count);
  NamedBarrier& named = named_barriers[id];
  if (heard.empty()) heard.assign(static_cast<size_t>(threads) * threads, 0);
  if (!named.waiting) {
    named.count = count;
    named.vote = 0;
  } else if (named.count != count) {
    simulator_fail("divergence", "others wait at named barrier %u for %u threads, this one for %u", id, named.count, count);
  }
  named.vote |= predicate != 0;
  current->state = kAtNamedBarrier;
  current->named_barrier = id;
  if (++named.waiting == count) {
    std::vector<uint32_t> told(threads);
    auto waits = [&](const Fiber& fiber) { return fiber.state == kAtNamedBarrier && fiber.named_barrier == id; };
    for (unsigned i = 0; i < threads; ++i)
      if (waits(fibers[i])) tell(fibers[i], told.data());
    for (unsigned i = 0; i < threads; ++i) {
      if (!waits(fibers[i])) continue;
      join(&heard[i * threads], told.data());
      fibers[i].vote = named.vote;
      make_ready(fibers[i]);
    }
    named.waiting = 0;
  }
  hand_over();
  return current->vote;
}

void simulator_proxy_fence() { current->proxy_fence = ++now; }

void simulator_init_fence() { current->init_fence = ++now; }

void simulator_product_fence() { current->product_fence = true; }

void simulator_product(float* d, unsigned columns, const unsigned* registers, uint64_t a, uint64_t b, simulator_format format,
                       int transposed_b, int adds) {
  need_whole_warp();
  if (threads % kWarpgroup) simulator_fail("asynchrony", "wgmma needs whole warpgroups of 128 threads, the block has %u threads", threads);
  if (!current->product_fence) simulator_fail("asynchrony", "the first wgmma of a thread, and the first after a wait, needs wgmma_fence() before it");
  if (columns % 8 || columns > 256) simulator_fail("asynchrony", "a wgmma has 8, 16 … 256 columns, got %u", columns);
  const uint64_t post[2] = {a, b};
  meet(~0u, kProduct, post, sizeof post);
  for (unsigned i = 1; i < 32; ++i)
    if (memcmp(current->received, current->received + i * sizeof post, sizeof post)) simulator_fail("divergence", "the lanes of one warp bring different descriptors to a wgmma");
  const unsigned t = current->number % kWarpgroup;
  const auto pc = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  if (!registers) check_operand(operand_chunk(a, t / 2, t % 2), pc);
  for (unsigned i = t; i < 2 * columns; i += kWarpgroup)
    check_operand(transposed_b ? transposed_chunk(b, i % 16, i / 16) : operand_chunk(b, i / 2, i % 2), pc);
  Product product{a, b, d, registers, {}, columns, current->product_group, format, transposed_b, adds};
  if (registers) memcpy(product.fragment, registers, sizeof product.fragment);
  current->products.push_back(product);
  const unsigned count = columns / 2;
  for (const Accumulator& accumulator : current->accumulators)
    if (accumulator.d == d) return;
  Accumulator accumulator{d, count, {}};
  memcpy(accumulator.values, d, count * sizeof *d);
  current->accumulators.push_back(accumulator);
  memset(static_cast<void*>(d), 0xff, count * sizeof *d);
}

void simulator_product_commit() { ++current->product_group; }

// A wgmma is the work of four warps: none gets past the wait before the other three have come.
void simulator_product_wait(unsigned groups_left) {
  current->product_groups_left = groups_left;
  current->product_fence = false;
  current->state = kAtProduct;
  if (threads % kWarpgroup) simulator_fail("asynchrony", "wgmma needs whole warpgroups of 128 threads, the block has %u threads", threads);
  hand_over();
}

uint16_t simulator_float_to_half(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return 0x7fff;                       // NaN, as the device has it
  if (magnitude >= 0x477ff000) return sign | 0x7c00;               // rounds to 65536 or more: infinity
  if (magnitude < 0x33000001) return sign;                         // at most half of the smallest subnormal
  const int exponent = static_cast<int>(magnitude >> 23) - 127;
  const uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
  const int drop = exponent < -14 ? -1 - exponent : 13;            // bits that do not fit
  uint32_t kept = mantissa >> drop;
  const uint32_t rest = mantissa & ((1u << drop) - 1), half = 1u << (drop - 1);
  kept += rest > half || (rest == half && kept & 1);
  return sign | (exponent < -14 ? kept : (static_cast<uint32_t>(exponent + 14) << 10) + kept);
}
float simulator_half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3ff;
  float value;
  if (exponent == 0) {
    value = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -value : value;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | mantissa << 13;
  memcpy(&value, &bits, 4);
  return value;
}
uint16_t simulator_float_to_bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float simulator_bfloat16_to_float(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, 4);
  return value;
}

// ---- what -fsanitize=thread calls ----------------------------------------------------------------------------------
#define HOOK(NAME, BYTES, KIND, ALIGNED) \
  void __tsan_##NAME##BYTES(void* p) { check_access(p, BYTES, KIND, ALIGNED, __builtin_return_address(0)); }
#define HOOKS(BYTES)                       \
  HOOK(read, BYTES, kRead, true)           \
  HOOK(write, BYTES, kWrite, true)         \
  HOOK(unaligned_read, BYTES, kRead, false) \
  HOOK(unaligned_write, BYTES, kWrite, false) \
  HOOK(volatile_read, BYTES, kRead, true)  \
  HOOK(volatile_write, BYTES, kWrite, true)
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)
void __tsan_read_range(void* p, size_t n) { check_access(p, n, kRead, false, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t n) { check_access(p, n, kWrite, false, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}

// ---- what -fsanitize-coverage=trace-pc calls, once per basic block -------------------------------------------------
void __sanitizer_cov_trace_pc() {
  if (current && --slice_left == 0) end_of_slice();
}

// ---- what -fsanitize=bounds,alignment,… calls ----------------------------------------------------------------------
struct SourceLine {
  const char* file;
  unsigned line, column;
};
struct TypeMismatch {
  SourceLine where;
  const void* type;
  unsigned char log_alignment, kind;
};
void __ubsan_handle_out_of_bounds(void*, uintptr_t index) {
  simulator_fail("out of bounds", "index %zd lies outside its array", static_cast<ptrdiff_t>(index));
}
void __ubsan_handle_type_mismatch_v1(TypeMismatch* data, uintptr_t p) {
  char place[160];
  describe_address(place, sizeof place, reinterpret_cast<const unsigned char*>(p));
  simulator_fail("misaligned", "access to %s must be aligned to %u bytes", place, 1u << data->log_alignment);
}
void __ubsan_handle_shift_out_of_bounds(void*, uintptr_t, uintptr_t count) {
  simulator_fail("overflow", "shift by %zd bits", static_cast<ptrdiff_t>(count));
}
void __ubsan_handle_divrem_overflow(void*, uintptr_t, uintptr_t divisor) {
  simulator_fail("overflow", "integer division by %zd", static_cast<ptrdiff_t>(divisor));
}
void __ubsan_handle_add_overflow(void*, uintptr_t, uintptr_t) { simulator_fail("overflow", "signed addition overflows"); }
void __ubsan_handle_sub_overflow(void*, uintptr_t, uintptr_t) { simulator_fail("overflow", "signed subtraction overflows"); }
void __ubsan_handle_mul_overflow(void*, uintptr_t, uintptr_t) { simulator_fail("overflow", "signed multiplication overflows"); }
void __ubsan_handle_negate_overflow(void*, uintptr_t) { simulator_fail("overflow", "signed negation overflows"); }
}
