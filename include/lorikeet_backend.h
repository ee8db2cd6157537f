/* The backend interface: what a device must offer so that graphs run on it. backends/null is the one to copy.
 *
 * A backend probes its devices, opens one, keeps buffers on it, and compiles an ordered list of commands (a node, the
 * kernel chosen for it, and where its tensors lie) into something that is replayed without allocating. Which kernel
 * runs is decided by dispatch/, from the backend's table of kernels, before compile is called. */
#ifndef LORIKEET_BACKEND_H
#define LORIKEET_BACKEND_H

#include "lorikeet_graph.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LK_BACKEND_ABI_VERSION 1

/* What is known about one device: all that selection may depend on, so that tests can make one up. */
typedef struct lk_device_caps {
    size_t struct_size;
    char backend[16];                    /* "cpu" */
    int32_t index;                       /* of the device within its backend */
    char name[128];                      /* as the driver says */
    char driver[128];                    /* driver or library versions; part of the key of tuned records */
    bool is_cpu;                         /* runs on the host's processor (also OpenCL and Vulkan drivers that do) */
    bool host_memory;                    /* buffers can be used by the host directly: map() works */
    uint64_t features;                   /* bits with a meaning of the backend's own (cpu: lk_cpu_feature) */
    int32_t threads;                     /* cpu: threads used; elsewhere: compute units */
    size_t l1_bytes, l2_bytes, l3_bytes; /* data caches, per core, core and package; 0: unknown */
    size_t shared_bytes;                 /* memory shared within a work-group; 0 on the CPU */
    int32_t subgroup_size;               /* 1 on the CPU */
    int32_t max_group_size;              /* invocations per work-group; 1 on the CPU */
    int32_t capability;                  /* CUDA: 10 * major + minor */
    size_t memory_bytes;                 /* of the device (the host's, for the CPU) */
    size_t max_buffer_bytes;             /* largest range one kernel can address; SIZE_MAX: no limit */
    double flops_f32;                    /* estimated peak, operations per second */
    double flops_16;                     /* the same for 16-bit inputs with fp32 sums; 0: none */
    double bandwidth;                    /* estimated, bytes per second */
    double launch_seconds;               /* cost of one command */
} lk_device_caps;

/* Where supports() says why a kernel is refused. */
typedef struct lk_refusal {
    char reason[128];
} lk_refusal;
/* Records the reason as text and refuses. `why` may be NULL. */
LK_API bool lk_refuse(lk_refusal *why, const char *reason);
/* The only way a kernel states a condition: both checks it and records it. */
#define LK_REQUIRE(why, condition, reason)     \
    do {                                       \
        if (!(condition)) {                    \
            return lk_refuse((why), (reason)); \
        }                                      \
    } while (0)

/* One row of a backend's kernels.def. */
typedef struct lk_kernel {
    const char *name; /* "cpu_rms_norm_avx2": unique across backends */
    lk_op op;
    uint64_t required_features;
    bool (*supports)(const lk_device_caps *caps, const lk_node *node, lk_refusal *why); /* NULL: every node of the op */
    double (*cost)(const lk_device_caps *caps, const lk_node *node);    /* estimated seconds on the device */
    size_t (*scratch)(const lk_device_caps *caps, const lk_node *node); /* bytes private to the node; NULL: none */
    int32_t in_place;    /* output 0 may take the memory of this input if that is not needed later; -1: none */
    void (*run)(void);   /* the backend's own entry, cast to and from its type; NULL where a kernel is text */
    const void *variant; /* parameters of the row, of the backend's own type */
} lk_kernel;

typedef struct lk_device lk_device;     /* an open device; each backend derives its own */
typedef struct lk_buffer lk_buffer;     /* memory on it */
typedef struct lk_commands lk_commands; /* a compiled, replayable list */

/* Every backend's lk_device starts with this. */
struct lk_device {
    const struct lk_backend *backend;
    lk_context *context;
    lk_device_caps caps;
};

/* A range of a buffer; buffer NULL: absent. */
typedef struct lk_binding {
    lk_buffer *buffer;
    size_t offset, bytes;
} lk_binding;

typedef struct lk_command {
    const lk_node *node;
    const lk_kernel *kernel;
    const lk_binding *inputs;  /* node->num_inputs of them */
    const lk_binding *outputs; /* node->num_outputs of them */
    lk_binding scratch;
} lk_command;

typedef struct lk_device_options {
    size_t struct_size;
    int32_t threads; /* cpu: 0 = one per physical core that may be used */
} lk_device_options;

/* Offsets that a binding may start at are multiples of this. */
#define LK_BUFFER_ALIGNMENT 256

typedef struct lk_backend {
    uint32_t abi_version;
    size_t struct_size;
    const char *name;
    const char *summary; /* one line for `lorikeet probe` */
    /* The names of the bits of lk_device_caps.features, from bit 0 on, NULL behind the last; NULL: there are none. */
    const char *const *features;
    /* Why no device has a feature (its bit's number) on this machine; NULL: some may. May be NULL. */
    const char *(*absent)(int feature);
    bool by_drivers; /* its kernels are compiled by drivers, which may be wrong: each is checked before it is trusted */
    bool unasked;    /* taken only when it is named: `auto` passes it over */

    /* Describes up to `capacity` devices and sets *count to how many there are. UNAVAILABLE, with a message that says
     * what is missing and how to get it, when there is none. Must work on machines without any driver. */
    lk_status (*probe)(lk_context *context, lk_device_caps *caps, int capacity, int *count);
    lk_status (*open)(lk_context *context, const lk_device_caps *caps, const lk_device_options *options,
                      lk_device **out);
    void (*close)(lk_device *device);

    /* All rows, best first, the portable one of each op last. */
    const lk_kernel *(*kernels)(int *count);

    lk_status (*alloc)(lk_device *device, size_t bytes, lk_buffer **out); /* zeroed */
    /* Uses host memory that stays valid as long as the buffer (a mapped file); UNSUPPORTED where that needs a copy. */
    lk_status (*wrap)(lk_device *device, const void *host, size_t bytes, lk_buffer **out);
    void (*free)(lk_device *device, lk_buffer *buffer); /* NULL is allowed */
    void *(*map)(lk_buffer *buffer);                    /* the bytes, if caps.host_memory; else NULL */

    /* Complete when they return. */
    lk_status (*upload)(lk_device *device, lk_buffer *buffer, size_t offset, const void *host, size_t bytes);
    lk_status (*download)(lk_device *device, lk_buffer *buffer, size_t offset, void *host, size_t bytes);

    /* The commands, their bindings and nodes stay valid and unchanged until release. */
    lk_status (*compile)(lk_device *device, const lk_command *commands, int count, lk_commands **out);
    void (*release)(lk_device *device, lk_commands *commands);
    /* Starts a replay; wait() returns when all of it is done, with a status that names the op that failed.
     * seconds[i], if not NULL, receives the device time of command i at wait(). Neither allocates. */
    lk_status (*run)(lk_device *device, lk_commands *commands, double *seconds);
    lk_status (*wait)(lk_device *device);
} lk_backend;

/* The backends of this build, in the order of dispatch/backends.def. */
LK_API const lk_backend *const *lk_backends(int *count);
LK_API const lk_backend *lk_backend_find(const char *name); /* NULL if there is none */

#ifdef __cplusplus
}
#endif

#endif
