/* The CPU as a backend: its description, buffers in the host's memory, and the table of methods. */
#define _DEFAULT_SOURCE /* madvise */
#include <stdio.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "backends/cpu/device.h"

enum { MAX_THREADS = 1024, HUGE_PAGE = 2 << 20 };

/* Floating-point operations per cycle and core: two multiply-adds of a vector. */
static double flops_per_cycle(uint64_t features) {
    if ((features & LK_CPU_AVX512_FEATURES) == LK_CPU_AVX512_FEATURES) {
        return 48.0; /* processors differ: 32 or 64 */
    }
    if ((features & LK_CPU_AVX2_FEATURES) == LK_CPU_AVX2_FEATURES) {
        return 32.0;
    }
    return features & LK_CPU_BIT(NEON) ? 16.0 : 8.0;
}

/* How much faster products of bf16 are; 0: not made in bf16. */
static double flops_ratio_16(uint64_t features) {
    if ((features & LK_CPU_AMXBF16_FEATURES) == LK_CPU_AMXBF16_FEATURES) {
        return 16.0; /* an estimate: 32 by the instructions, less by what memory delivers */
    }
    return features & LK_CPU_PAIR_FEATURES ? 2.0 : 0.0;
}

static lk_status describe(lk_context *context, const lk_topology *topology, lk_device_caps *caps) {
    const lk_topology_info *info = lk_topology_get(topology);
    uint64_t features;
    LK_TRY(lk_cpu_features_probe(context, &features));
    *caps = (lk_device_caps){.struct_size = sizeof *caps,
                             .backend = "cpu",
                             .is_cpu = true,
                             .host_memory = true,
                             .features = features,
                             .threads = info->cores,
                             .l1_bytes = info->l1_bytes,
                             .l2_bytes = info->l2_bytes,
                             .l3_bytes = info->l3_bytes,
                             .subgroup_size = 1,
                             .max_group_size = 1,
                             .memory_bytes = info->memory_bytes,
                             .max_buffer_bytes = SIZE_MAX,
                             .bandwidth = 2e10 * info->numa_nodes,
                             .launch_seconds = 2e-6};
    caps->flops_f32 = 3e9 * flops_per_cycle(features) * caps->threads;
    caps->flops_16 = flops_ratio_16(features) * caps->flops_f32;
    snprintf(caps->name, sizeof caps->name, "%s", info->name);
    size_t used = 0;
    for (int i = 0; i < LK_CPU_FEATURE_COUNT && used < sizeof caps->driver; i++) {
        if (features >> i & 1) {
            used += (size_t)snprintf(caps->driver + used, sizeof caps->driver - used, "%s%s", used ? " " : "",
                                     lk_cpu_feature_name(i));
        }
    }
    return LK_OK;
}

static lk_status probe(lk_context *context, lk_device_caps *caps, int capacity, int *count) {
    *count = 0;
    lk_topology *topology;
    LK_TRY(lk_topology_create(context, &topology));
    lk_device_caps found;
    lk_status status = describe(context, topology, &found);
    lk_topology_destroy(topology);
    LK_TRY(status);
    *count = 1;
    if (capacity > 0) {
        caps[0] = found;
    }
    return LK_OK;
}

static void close_device(lk_device *device) {
    if (device != NULL) {
        lk_cpu_device *self = (lk_cpu_device *)device;
        lk_pool_destroy(self->pool);
        lk_free_aligned(device->context, self->worker_memory);
        lk_free(device->context, self);
    }
}

/* caps may be a description with features taken away; it is never given more than the processor has. */
static lk_status open_device(lk_context *context, const lk_device_caps *caps, const lk_device_options *options,
                             lk_device **out) {
    *out = NULL;
    int threads = caps->threads;
    if (options != NULL && options->struct_size >= sizeof *options && options->threads != 0) {
        threads = options->threads;
    }
    if (threads < 1 || threads > MAX_THREADS) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "threads is %d, expected 1 to %d", threads, MAX_THREADS);
    }
    uint64_t features;
    LK_TRY(lk_cpu_features_probe(context, &features));
    lk_cpu_device *self = lk_calloc(context, 1, sizeof *self);
    if (self == NULL) {
        return lk_out_of_memory(context, sizeof *self, "the device");
    }
    self->device = (lk_device){&lk_backend_cpu, context, *caps};
    self->device.caps.features &= features;
    self->device.caps.flops_f32 *= (double)threads / LK_MAX(caps->threads, 1);
    self->device.caps.flops_16 *= (double)threads / LK_MAX(caps->threads, 1);
    self->device.caps.threads = threads;
    size_t bytes = (size_t)threads * LK_CPU_WORKER_BYTES;
    self->worker_memory = lk_alloc_aligned(context, bytes);
    lk_status status = self->worker_memory != NULL ? lk_pool_create(context, threads, NULL, &self->pool)
                                                   : lk_out_of_memory(context, bytes, "the workers' memory");
    if (status != LK_OK) {
        close_device(&self->device);
        return status;
    }
    *out = &self->device;
    return LK_OK;
}

/* ---- buffers ---- */

typedef struct zero_job {
    char *bytes;
    size_t size;
    int tasks;
} zero_job;

static void zero_part(void *argument, int task, int worker) {
    (void)worker;
    const zero_job *job = argument;
    lk_range range = lk_split((int64_t)job->size, 4096, job->tasks, task);
    memset(job->bytes + range.begin, 0, (size_t)(range.end - range.begin));
}

/* Large pages save address translations where a product walks over many rows. Only advice: it may be refused. */
static void advise(char *bytes, size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    uintptr_t start = ((uintptr_t)bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE, end = (uintptr_t)bytes + size;
    if (end > start && end - start >= HUGE_PAGE) {
        madvise(bytes + (start - (uintptr_t)bytes), (end - start) / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    }
#else
    (void)bytes;
    (void)size;
#endif
}

/* Zeroed by all threads, so that on a machine with several memories the pages are spread over them. */
static lk_status alloc_buffer(lk_device *device, size_t bytes, lk_buffer **out) {
    LK_TRY(lk_host_alloc(device, bytes, out));
    char *memory = (*out)->bytes;
    advise(memory, bytes);
    lk_pool *pool = ((lk_cpu_device *)device)->pool;
    zero_job job = {memory, bytes, bytes >= HUGE_PAGE ? lk_pool_threads(pool) : 1};
    lk_pool_run(pool, zero_part, &job, job.tasks);
    return LK_OK;
}

static const char *const features[] = {
#define LK_CPU_FEATURE(NAME, name) #name,
#include "lorikeet/cpu_features.def"
#undef LK_CPU_FEATURE
    NULL};

const lk_backend lk_backend_cpu = {
    .abi_version = LK_BACKEND_ABI_VERSION,
    .struct_size = sizeof(lk_backend),
    .name = "cpu",
    .summary = "the host's processor, with the vector instructions it has",
    .features = features,
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .kernels = lk_cpu_kernels,
    .alloc = alloc_buffer,
    .wrap = lk_host_wrap,
    .free = lk_host_free,
    .map = lk_host_map,
    .upload = lk_host_upload,
    .download = lk_host_download,
    .compile = lk_cpu_compile,
    .release = lk_cpu_release,
    .run = lk_cpu_run_commands,
    .wait = lk_cpu_wait,
};
