#include <check.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "backends/cpu/pool.h"
#include "tests/common/runner.h"

static lk_context *context;

static void setup(void) {
    ck_assert_int_eq(lk_context_create(NULL, &context), LK_OK);
}

static void teardown(void) {
    lk_context_destroy(context);
}

typedef struct counts {
    atomic_int runs[64];
    atomic_int total, bad_worker;
    int threads;
} counts;

static void count_task(void *argument, int task, int worker) {
    counts *self = argument;
    atomic_fetch_add(&self->runs[task], 1);
    atomic_fetch_add(&self->total, 1);
    if (worker < 0 || worker >= self->threads) {
        atomic_fetch_add(&self->bad_worker, 1);
    }
}

/* Many short sections one after the other: a late thread must neither repeat nor lose a task. */
START_TEST(test_every_task_runs_exactly_once) {
    for (int threads = 1; threads <= 5; threads++) {
        lk_pool *pool;
        ck_assert_int_eq(lk_pool_create(context, threads, NULL, &pool), LK_OK);
        ck_assert_int_eq(lk_pool_threads(pool), threads);
        for (int round = 0; round < 2000; round++) {
            counts seen = {.threads = threads};
            int tasks = round % 65;
            lk_pool_run(pool, count_task, &seen, tasks);
            ck_assert_int_eq(atomic_load(&seen.total), tasks);
            ck_assert_int_eq(atomic_load(&seen.bad_worker), 0);
            for (int i = 0; i < 64; i++) {
                ck_assert_int_eq(atomic_load(&seen.runs[i]), i < tasks ? 1 : 0);
            }
        }
        lk_pool_destroy(pool);
    }
}
END_TEST

static void slow_task(void *argument, int task, int worker) {
    (void)worker;
    double until = lk_seconds() + 0.002;
    while (lk_seconds() < until) {
    }
    ((int *)argument)[task]++;
}

/* Tasks longer than a waiting thread spins: threads go to sleep and must be woken, on both sides. */
START_TEST(test_sleeping_threads_wake_up) {
    lk_pool *pool;
    ck_assert_int_eq(lk_pool_create(context, 3, NULL, &pool), LK_OK);
    int runs[5] = {0};
    for (int round = 0; round < 20; round++) {
        lk_pool_run(pool, slow_task, runs, 5);
        slow_task(runs, 0, 0);
    }
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(runs[i], i == 0 ? 40 : 20);
    }
    lk_pool_destroy(pool);
    lk_pool_destroy(NULL);
}
END_TEST

START_TEST(test_ranges_cover_everything_once) {
    for (int64_t count = 0; count < 200; count += 7) {
        for (int tasks = 1; tasks < 12; tasks++) {
            for (int64_t grain = 1; grain <= 64; grain *= 4) {
                int64_t next = 0;
                for (int task = 0; task < tasks; task++) {
                    lk_range range = lk_split(count, grain, tasks, task);
                    ck_assert_int_eq(range.begin, next);
                    ck_assert_int_ge(range.end, range.begin);
                    ck_assert(range.end % grain == 0 || range.end == count);
                    next = range.end;
                }
                ck_assert_int_eq(next, count);
            }
        }
    }
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("pool");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_every_task_runs_exactly_once);
    tcase_add_test(tests, test_sleeping_threads_wake_up);
    tcase_add_test(tests, test_ranges_cover_everything_once);
    return run_case("pool", tests);
}
