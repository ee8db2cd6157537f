/* The arithmetic that processors reach when nothing has to be loaded. */
#ifndef LK_BENCH_REGISTERS_H
#define LK_BENCH_REGISTERS_H

#include <stdbool.h>
#include <stdint.h>

/* Operations per second of `threads` threads together, for about `seconds`; 0 where there is no loop for the
 * processor. features: lk_cpu_feature bits. */
double lk_bench_register_rate(uint64_t features, int threads, bool bf16, double seconds);

#endif
