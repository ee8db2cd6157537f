/* A thread pool for many short parallel sections. */
#ifndef LK_CPU_POOL_H
#define LK_CPU_POOL_H

#include "dispatch/topology.h"

typedef struct lk_pool lk_pool;

/* Does task number `task` (0 <= task < tasks). `worker` (0 <= worker < threads) picks scratch memory. Which worker gets
 * which task is not defined: results must depend on the task alone. */
typedef void (*lk_pool_function)(void *argument, int task, int worker);

/* Starts threads - 1 threads; the caller of lk_pool_run is the remaining one. With a topology (which must outlive the
 * pool) the started threads are bound to cores 1, 2, ...; the calling thread is left alone, since it is not ours. */
lk_status lk_pool_create(lk_context *context, int threads, const lk_topology *topology, lk_pool **out);
void lk_pool_destroy(lk_pool *pool); /* NULL is allowed */
int lk_pool_threads(const lk_pool *pool);
/* Runs all tasks and returns when they are done. Allocates nothing, cannot fail, and may not be nested. */
void lk_pool_run(lk_pool *pool, lk_pool_function function, void *argument, int tasks);

/* The part [begin, end) of `count` items that task number `task` of `tasks` does, in multiples of `grain` but for the
 * end: contiguous, in order, and the same for every run. */
typedef struct lk_range {
    int64_t begin, end;
} lk_range;
static inline lk_range lk_split(int64_t count, int64_t grain, int tasks, int task) {
    int64_t grains = (count + grain - 1) / grain;
    int64_t begin = grains * task / tasks * grain, end = grains * (task + 1) / tasks * grain;
    return (lk_range){LK_MIN(begin, count), LK_MIN(end, count)};
}

#endif
