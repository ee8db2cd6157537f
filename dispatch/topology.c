#define _POSIX_C_SOURCE 200809L
#include <hwloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dispatch/topology.h"

struct lk_topology {
    lk_context *context;
    hwloc_topology_t hwloc;
    hwloc_bitmap_t *cores; /* one set per usable physical core: its usable hardware threads */
    lk_topology_info info;
};

/* Reads the first line of a small file; false if there is none. */
static bool read_line(const char *path, char *line, int size) {
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    bool read = fgets(line, size, file) != NULL;
    fclose(file);
    return read;
}

/* The cgroup's CPU quota in whole cores, rounded up; 0: none. Containers limit CPU time this way, not by affinity. */
static int cgroup_cores(void) {
    char line[64];
    double quota = 0, period = 0;
    if (read_line("/sys/fs/cgroup/cpu.max", line, sizeof line)) {
        if (sscanf(line, "%lf %lf", &quota, &period) != 2) { /* "max 100000" */
            return 0;
        }
    } else if (read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", line, sizeof line)) {
        quota = strtod(line, NULL);
        period = read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", line, sizeof line) ? strtod(line, NULL) : 0;
    }
    return quota > 0 && period > 0 ? (int)LK_MIN(ceil(quota / period), 65536.0) : 0;
}

static size_t memory_bytes(size_t page) {
    long pages = sysconf(_SC_PHYS_PAGES);
    size_t bytes = pages > 0 ? (size_t)pages * page : 0;
    char line[64];
    if (read_line("/sys/fs/cgroup/memory.max", line, sizeof line) ||
        read_line("/sys/fs/cgroup/memory/memory.limit_in_bytes", line, sizeof line)) {
        char *end;
        unsigned long long limit = strtoull(line, &end, 10);
        if (end != line && limit > 0 && (bytes == 0 || limit < bytes)) {
            bytes = (size_t)limit;
        }
    }
    return bytes;
}

static size_t cache_bytes(hwloc_topology_t hwloc, hwloc_obj_type_t type) {
    hwloc_obj_t cache = hwloc_get_obj_by_type(hwloc, type, 0);
    return cache != NULL && cache->attr != NULL ? (size_t)cache->attr->cache.size : 0;
}

/* Collects the cores that have a hardware thread in `allowed`. Where hwloc knows no cores, its threads count as such.
 */
static lk_status collect_cores(lk_topology *topology, hwloc_const_bitmap_t allowed) {
    hwloc_obj_type_t type = HWLOC_OBJ_CORE;
    int count = hwloc_get_nbobjs_by_type(topology->hwloc, type);
    if (count <= 0) {
        type = HWLOC_OBJ_PU;
        count = LK_MAX(hwloc_get_nbobjs_by_type(topology->hwloc, type), 0);
    }
    topology->cores = lk_calloc(topology->context, (size_t)count + 1, sizeof(hwloc_bitmap_t));
    if (topology->cores == NULL) {
        return lk_out_of_memory(topology->context, (size_t)count * sizeof(hwloc_bitmap_t), "the list of cores");
    }
    for (int i = 0; i < count; i++) {
        hwloc_obj_t core = hwloc_get_obj_by_type(topology->hwloc, type, (unsigned)i);
        if (!hwloc_bitmap_intersects(core->cpuset, allowed)) {
            continue;
        }
        hwloc_bitmap_t set = hwloc_bitmap_dup(core->cpuset);
        if (set == NULL) {
            return lk_out_of_memory(topology->context, sizeof(void *), "a set of hardware threads");
        }
        hwloc_bitmap_and(set, set, allowed);
        topology->cores[topology->info.cores++] = set;
    }
    return LK_OK;
}

static lk_status describe(lk_topology *topology) {
    lk_topology_info *info = &topology->info;
    hwloc_topology_t hwloc = topology->hwloc;
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    if (allowed == NULL) {
        return lk_out_of_memory(topology->context, sizeof(void *), "a set of hardware threads");
    }
    if (hwloc_get_cpubind(hwloc, allowed, HWLOC_CPUBIND_PROCESS) != 0 || hwloc_bitmap_iszero(allowed)) {
        hwloc_bitmap_copy(allowed, hwloc_topology_get_allowed_cpuset(hwloc));
    }
    lk_status status = collect_cores(topology, allowed);
    info->logical = LK_MAX(hwloc_bitmap_weight(allowed), 1);
    hwloc_bitmap_free(allowed);
    LK_TRY(status);

    int quota = cgroup_cores();
    info->cores = LK_MAX(info->cores, 1);
    if (quota > 0) {
        info->cores = LK_MIN(info->cores, quota);
        info->logical = LK_MIN(info->logical, quota);
    }
    info->packages = LK_MAX(hwloc_get_nbobjs_by_type(hwloc, HWLOC_OBJ_PACKAGE), 1);
    info->numa_nodes = LK_MAX(hwloc_get_nbobjs_by_type(hwloc, HWLOC_OBJ_NUMANODE), 1);
    info->l1_bytes = cache_bytes(hwloc, HWLOC_OBJ_L1CACHE);
    info->l2_bytes = cache_bytes(hwloc, HWLOC_OBJ_L2CACHE);
    info->l3_bytes = cache_bytes(hwloc, HWLOC_OBJ_L3CACHE);
    long page = sysconf(_SC_PAGESIZE);
    info->page_bytes = page > 0 ? (size_t)page : 4096;
    info->memory_bytes = memory_bytes(info->page_bytes);
    hwloc_obj_t package = hwloc_get_obj_by_type(hwloc, HWLOC_OBJ_PACKAGE, 0);
    const char *model = package != NULL ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    snprintf(info->name, sizeof info->name, "%s", model != NULL ? model : "CPU");
    return LK_OK;
}

lk_status lk_topology_create(lk_context *context, lk_topology **out) {
    *out = NULL;
    lk_topology *topology = lk_calloc(context, 1, sizeof *topology);
    if (topology == NULL) {
        return lk_out_of_memory(context, sizeof *topology, "the topology");
    }
    topology->context = context;
    if (hwloc_topology_init(&topology->hwloc) != 0) {
        lk_free(context, topology);
        return lk_fail(context, LK_STATUS_UNAVAILABLE, "hwloc cannot be initialised");
    }
    lk_status status = LK_OK;
    if (hwloc_topology_load(topology->hwloc) != 0) {
        status = lk_fail(context, LK_STATUS_UNAVAILABLE, "hwloc cannot read this machine's topology");
    }
    if (status == LK_OK) {
        status = describe(topology);
    }
    if (status != LK_OK) {
        lk_topology_destroy(topology);
        return status;
    }
    *out = topology;
    return LK_OK;
}

void lk_topology_destroy(lk_topology *topology) {
    if (topology == NULL) {
        return;
    }
    for (hwloc_bitmap_t *core = topology->cores; core != NULL && *core != NULL; core++) {
        hwloc_bitmap_free(*core);
    }
    lk_free(topology->context, topology->cores);
    hwloc_topology_destroy(topology->hwloc);
    lk_free(topology->context, topology);
}

const lk_topology_info *lk_topology_get(const lk_topology *topology) {
    return &topology->info;
}

bool lk_topology_bind(const lk_topology *topology, int core) {
    int count = 0;
    while (topology->cores[count] != NULL) {
        count++;
    }
    return count > 0 && core >= 0 &&
           hwloc_set_cpubind(topology->hwloc, topology->cores[core % count], HWLOC_CPUBIND_THREAD) == 0;
}
