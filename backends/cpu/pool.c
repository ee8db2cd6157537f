/* One 64-bit word carries both the number of the current section (high half) and the tasks not yet claimed (low half).
 * A thread claims a task by decrementing it with compare-and-swap, so a thread that comes late - it slept, or was
 * preempted - can never take a task of a section that it has not seen, and nobody has to wait for it: the section is
 * over when its tasks are. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "backends/cpu/pool.h"

/* How often a waiting thread looks before it sleeps: some 50 microseconds, about what sleeping and waking cost. */
enum { SPINS = 2000, CACHE_LINE = 64 };

typedef struct worker {
    pthread_t thread;
    lk_pool *pool;
    int index;
} worker;

struct lk_pool {
    lk_context *context;
    const lk_topology *topology;
    worker *workers; /* threads - 1 of them */
    int threads, started;

    /* the section; written by the caller while no task is unfinished */
    lk_pool_function function;
    void *argument;

    _Alignas(CACHE_LINE) _Atomic uint64_t unclaimed;  /* section << 32 | tasks */
    _Alignas(CACHE_LINE) _Atomic uint32_t unfinished; /* tasks of the section that have not returned */
    _Alignas(CACHE_LINE) atomic_int sleepers;         /* workers inside, or about to enter, the wait for `wake` */
    atomic_bool caller_sleeps, stop;
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
};

static inline void pause_briefly(void) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    __builtin_ia32_pause();
#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
    __asm__ volatile("isb");
#endif
}

/* Does tasks of the current section until none is left to claim. */
static void work(lk_pool *pool, int worker_index) {
    uint64_t seen = atomic_load_explicit(&pool->unclaimed, memory_order_acquire);
    while ((uint32_t)seen != 0) {
        if (!atomic_compare_exchange_weak_explicit(&pool->unclaimed, &seen, seen - 1, memory_order_acquire,
                                                   memory_order_acquire)) {
            continue;
        }
        /* Claimed, so the section cannot end before this task does, and its fields stand still. */
        pool->function(pool->argument, (int)(uint32_t)(seen - 1), worker_index);
        if (atomic_fetch_sub(&pool->unfinished, 1) == 1 && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->mutex);
        }
        seen = atomic_load_explicit(&pool->unclaimed, memory_order_acquire);
    }
}

static bool has_work(lk_pool *pool) {
    return (uint32_t)atomic_load(&pool->unclaimed) != 0 || atomic_load(&pool->stop);
}

static void *worker_main(void *argument) {
    worker *self = argument;
    lk_pool *pool = self->pool;
    if (pool->topology != NULL) {
        lk_topology_bind(pool->topology, self->index);
    }
    while (!atomic_load(&pool->stop)) {
        work(pool, self->index);
        for (int i = 0; i < SPINS && !has_work(pool); i++) {
            pause_briefly();
        }
        if (has_work(pool)) {
            continue;
        }
        pthread_mutex_lock(&pool->mutex);
        atomic_fetch_add(&pool->sleepers, 1);
        while (!has_work(pool)) {
            pthread_cond_wait(&pool->wake, &pool->mutex);
        }
        atomic_fetch_sub(&pool->sleepers, 1);
        pthread_mutex_unlock(&pool->mutex);
    }
    return NULL;
}

void lk_pool_run(lk_pool *pool, lk_pool_function function, void *argument, int tasks) {
    if (pool->threads == 1 || tasks <= 1) {
        for (int task = 0; task < tasks; task++) {
            function(argument, task, 0);
        }
        return;
    }
    pool->function = function;
    pool->argument = argument;
    atomic_store(&pool->unfinished, (uint32_t)tasks);
    uint64_t section = (atomic_load(&pool->unclaimed) >> 32) + 1;
    /* Sequentially consistent, as are the accesses to `sleepers`: either a worker sees the tasks before it sleeps, or
     * the worker is seen here and woken. */
    atomic_store(&pool->unclaimed, section << 32 | (uint32_t)tasks);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->mutex);
    }
    work(pool, 0);
    for (int i = 0; i < SPINS && atomic_load(&pool->unfinished) != 0; i++) {
        pause_briefly();
    }
    if (atomic_load(&pool->unfinished) != 0) {
        pthread_mutex_lock(&pool->mutex);
        atomic_store(&pool->caller_sleeps, true);
        while (atomic_load(&pool->unfinished) != 0) {
            pthread_cond_wait(&pool->done, &pool->mutex);
        }
        atomic_store(&pool->caller_sleeps, false);
        pthread_mutex_unlock(&pool->mutex);
    }
}

lk_status lk_pool_create(lk_context *context, int threads, const lk_topology *topology, lk_pool **out) {
    *out = NULL;
    lk_pool *pool = lk_alloc_aligned(context, sizeof *pool);
    worker *workers = lk_calloc(context, (size_t)threads, sizeof *workers);
    if (pool == NULL || workers == NULL) {
        lk_free(context, workers);
        lk_free_aligned(context, pool);
        return lk_out_of_memory(context, sizeof *pool + (size_t)threads * sizeof *workers, "the thread pool");
    }
    *pool = (lk_pool){.context = context, .topology = topology, .workers = workers, .threads = threads};
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    for (; pool->started < threads - 1; pool->started++) {
        worker *self = &workers[pool->started];
        *self = (worker){.pool = pool, .index = pool->started + 1};
        if (pthread_create(&self->thread, NULL, worker_main, self) != 0) {
            int running = pool->started + 1;
            lk_pool_destroy(pool);
            return lk_fail(context, LK_STATUS_UNAVAILABLE, "cannot start thread %d of %d", running + 1, threads);
        }
    }
    *out = pool;
    return LK_OK;
}

void lk_pool_destroy(lk_pool *pool) {
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->started; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    lk_free(pool->context, pool->workers);
    lk_free_aligned(pool->context, pool);
}

int lk_pool_threads(const lk_pool *pool) {
    return pool->threads;
}
