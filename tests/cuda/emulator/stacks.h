/* Going from one stack to another: a few instructions where it is known how, ucontext elsewhere. */
#ifndef LK_TESTS_CUDA_EMULATOR_STACKS_H
#define LK_TESTS_CUDA_EMULATOR_STACKS_H

#include <cstdint>

enum { STACK_BYTES = 64 * 1024 };

#if defined(__x86_64__)
typedef void *place; /* a stack pointer; the registers that calls keep lie above it */
extern "C" void emulator_switch(place *from, place to);
__asm__(".text\n.globl emulator_switch\n.hidden emulator_switch\nemulator_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n    ret\n");
static inline void place_at(place &lane, char *stack, void (*entry)()) {
    uintptr_t *top = reinterpret_cast<uintptr_t *>(stack + STACK_BYTES);
    *--top = 0; /* so that the entry's stack is aligned as after a call */
    *--top = reinterpret_cast<uintptr_t>(entry);
    for (int i = 0; i < 6; i++) {
        *--top = 0;
    }
    lane = top;
}
static inline void switch_stack(place &from, place &to) {
    emulator_switch(&from, to);
}
#else
#include <ucontext.h>
typedef ucontext_t place;
static inline void place_at(place &lane, char *stack, void (*entry)()) {
    getcontext(&lane);
    lane.uc_stack.ss_sp = stack;
    lane.uc_stack.ss_size = STACK_BYTES;
    lane.uc_link = nullptr;
    makecontext(&lane, entry, 0);
}
static inline void switch_stack(place &from, place &to) {
    swapcontext(&from, &to);
}
#endif

#endif
