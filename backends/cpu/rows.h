/* Kernels that do the same to many rows or elements: one function over a range, and a line that runs it on all threads.
 */
#ifndef LK_CPU_ROWS_H
#define LK_CPU_ROWS_H

#include "backends/cpu/cpu.h"

typedef void (*lk_cpu_part)(const lk_cpu_call *call, lk_range range, void *memory);

typedef struct lk_cpu_rows_job {
    const lk_cpu_call *call;
    lk_cpu_part part;
    int64_t items, grain;
    int tasks;
} lk_cpu_rows_job;

static inline void lk_cpu_rows_task(void *argument, int task, int worker) {
    const lk_cpu_rows_job *job = argument;
    lk_range range = lk_split(job->items, job->grain, job->tasks, task);
    if (range.begin < range.end) {
        job->part(job->call, range, lk_cpu_worker_memory(job->call, worker));
    }
}

/* `bytes` is the memory traffic of one item; parts are multiples of `grain` items. */
static inline void lk_cpu_run_rows(const lk_cpu_call *call, int64_t items, int64_t grain, double bytes,
                                   lk_cpu_part part) {
    int tasks = lk_cpu_tasks(call, (items + grain - 1) / grain, bytes * (double)items);
    lk_cpu_rows_job job = {call, part, items, grain, tasks};
    lk_pool_run(call->pool, lk_cpu_rows_task, &job, tasks);
}

#endif
