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
constexpr unsigned kPayloadBytes = 8;  // what a lane brings to a warp operation; matrix fragments will need 64
constexpr size_t kSharedArena = 256 << 10;
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
enum MeetingKind { kSyncWarp, kShuffle, kBallot, kMatch };
enum State { kReady, kAtBarrier, kAtMeeting, kReturned };

struct AsyncCopy {
  unsigned char* destination;
  const unsigned char* source;
  unsigned bytes, total, group;
};
struct Fiber {
  Context context;
  void** frame;  // frame pointer at the last hand-over
  uint3 index;
  unsigned number;  // in the block
  State state;
  unsigned copy_group;
  std::vector<AsyncCopy> copies;
  unsigned char received[32][kPayloadBytes];
};
struct Meeting {
  unsigned mask, arrived, bytes;
  MeetingKind kind;
  unsigned char posts[32][kPayloadBytes];
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
uint64_t random_state;
uint32_t slice_left;
uintptr_t interrupted_at;  // set by the watchdog

struct Barrier {
  unsigned waiting, votes, line;
  int vote;  // -1: none
  int result;
} barrier;

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
  unsigned at_barrier = 0, at_meeting = 0;
  for (unsigned i = 0; i < threads; ++i) {
    at_barrier += fibers[i].state == kAtBarrier;
    at_meeting += fibers[i].state == kAtMeeting;
  }
  const Fiber* stuck = at_meeting ? find_fiber(kAtMeeting) : find_fiber(kAtBarrier);
  report_waiting(*stuck, "divergence", "nobody can go on: %u threads wait at a block barrier, %u at a warp operation, %u have returned",
                 at_barrier, at_meeting, threads - at_barrier - at_meeting);
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

void check_history(Region& region, const unsigned char* p, size_t bytes, AccessKind access, bool shared, uintptr_t pc) {
  Cell* cells = region.cells + (p - region.begin);
  const bool uninitialized_matters = shared && access != kWrite && launch->checks & kCheckUninitialized;
  Warp& warp = warp_of(*current);
  const Observer observer{block_number * threads + current->number, block_number, threads, warp_count, current->number % 32,
                          current->number / 32, block_synchronized, &warp.clocks, now, static_cast<uint32_t>(pc - image.base)};
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
  block_synchronized = ++now;
  ready_count = 0;
  alive = threads;
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
    fiber.context.prepare(stacks + i * kStackBytes, thread_body);
    make_ready(fiber);
  }
}

void run_block() {
  while (alive && !launch->failed) {
    if (!ready_count) return report_deadlock();
    current = &next_fiber();
    slice_left = kSlice;
    main_context.switch_to(current->context);
    launch->steps += kSlice - slice_left + 1;
    if (launch->steps > launch->step_limit)
      report_waiting(*current, "endless", "the launch did not end within %llu steps", static_cast<unsigned long long>(launch->step_limit));
    current = nullptr;
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
// (Matrix loads and products will be further kinds, each with its own payload.)
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
  memcpy(meeting->posts[lane], post, bytes);
  meeting->arrived |= 1u << lane;
  current->state = kAtMeeting;
  if (meeting->arrived == mask) {
    meeting->arrived = 0;
    if (kind == kSyncWarp) warp.clocks.synchronize(mask, ++now);
    Fiber* lanes = &fibers[current->number & ~31u];
    for (unsigned i = 0; i < 32; ++i) {
      if (!(mask >> i & 1)) continue;
      memcpy(lanes[i].received, meeting->posts, sizeof meeting->posts);
      make_ready(lanes[i]);
    }
  }
  hand_over();
}

uint64_t received_from(unsigned lane) {
  uint64_t bits;
  memcpy(&bits, current->received[lane], sizeof bits);
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
  dynamic_shared = watched(shared_arena, launch->dynamic_shared, true);
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
unsigned char* simulator_dynamic_shared() { return shared_arena; }

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
