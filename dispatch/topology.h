/* What the host's processor is: cores, caches, memory and instruction sets. */
#ifndef LK_DISPATCH_TOPOLOGY_H
#define LK_DISPATCH_TOPOLOGY_H

#include "core/base/base.h"

enum lk_cpu_feature_index {
#define LK_CPU_FEATURE(NAME, name) LK_CPU_FEATURE_INDEX_##NAME,
#include "lorikeet/cpu_features.def"
#undef LK_CPU_FEATURE
    LK_CPU_FEATURE_COUNT
};

/* One bit each: LK_CPU_AVX2, LK_CPU_FMA, ... Macros and not an enum, since an enum's constants are ints. */
#define LK_CPU_BIT(NAME) (UINT64_C(1) << LK_CPU_FEATURE_INDEX_##NAME)

/* "avx2" for bit 0 and so on; NULL beyond the last. */
const char *lk_cpu_feature_name(int index);
/* Reads a list such as "avx512f,fma" (separators: comma and space) into bits. */
lk_status lk_cpu_features_parse(lk_context *context, const char *list, uint64_t *out);
/* The features of this processor, without those that LORIKEET_CPU_DISABLE (a list as above) names: that is how a test
 * or a user takes instruction sets away. A name that does not exist there is an error. */
lk_status lk_cpu_features_probe(lk_context *context, uint64_t *out);

/* What an x86-64 processor and its operating system say; apart from asking them, so that tests can make processors up.
 */
typedef struct lk_x86_identity {
    uint32_t leaf1_c, leaf7_b, leaf7_c, leaf7_d, leaf7_1_a; /* registers of CPUID; leaf 7 is subleaf 0, leaf7_1 its 1 */
    uint64_t saved;                                         /* XCR0: the registers that are saved; 0: none */
    bool (*permits_tiles)(void); /* asks the system for the tile registers, only if there are any */
} lk_x86_identity;
uint64_t lk_x86_features(const lk_x86_identity *x);

typedef struct lk_topology_info {
    char name[128]; /* the processor, as it calls itself */
    int packages;   /* sockets */
    int numa_nodes;
    int cores;   /* physical cores this process may use: affinity and cgroup quota included; at least 1 */
    int logical; /* the same counted in hardware threads */
    size_t l1_bytes, l2_bytes, l3_bytes; /* data caches; 0: unknown */
    size_t memory_bytes;                 /* of the machine, or of the cgroup where that is less */
    size_t page_bytes;
} lk_topology_info;

typedef struct lk_topology lk_topology;

lk_status lk_topology_create(lk_context *context, lk_topology **out);
void lk_topology_destroy(lk_topology *topology); /* NULL is allowed */
const lk_topology_info *lk_topology_get(const lk_topology *topology);
/* Binds the calling thread to the core-th of the usable physical cores (modulo their number). May be called from any
 * number of threads at once. false where the system refuses, which costs speed at most. */
bool lk_topology_bind(const lk_topology *topology, int core);

#endif
