// A fiber: a thread of control with its own stack that runs until it hands over. One CUDA thread is one fiber.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#if defined(__x86_64__) && !defined(SIMULATOR_UCONTEXT)
#define SIMULATOR_OWN_SWITCH
#else
#include <ucontext.h>
#endif

constexpr size_t kStackBytes = 256 << 10;

#ifdef SIMULATOR_OWN_SWITCH
// Saves the registers that a callee must keep, swaps stacks, restores. (swapcontext makes two system calls: 10 x slower.)
extern "C" void simulator_switch(void** save, void* to);
asm(".text\n"
    ".hidden simulator_switch\n"
    ".globl simulator_switch\n"
    ".type simulator_switch,@function\n"
    "simulator_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size simulator_switch, .-simulator_switch\n");

struct Context {
  void* stack_pointer;

  void prepare(unsigned char* stack, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + kStackBytes);
    *--top = nullptr;                                 // where entry() would return to: it never does
    *--top = reinterpret_cast<void*>(entry);          // what `ret` jumps to; the stack is then 8 below a multiple of 16
    for (int i = 0; i < 6; ++i) *--top = nullptr;     // the six saved registers; rbp = 0 ends a walk over the frames
    stack_pointer = top;
  }
  void switch_to(Context& other) { simulator_switch(&stack_pointer, other.stack_pointer); }
};
#else
struct Context {
  ucontext_t context;

  void prepare(unsigned char* stack, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
  void switch_to(Context& other) { swapcontext(&context, &other.context); }
};
#endif

// Address space for `count` stacks; pages come into being when they are touched.
inline unsigned char* reserve_stacks(unsigned count) {
  void* memory = mmap(nullptr, kStackBytes * count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) abort();
  return static_cast<unsigned char*>(memory);
}
