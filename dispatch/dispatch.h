/* From a graph to something that runs: which devices there are, which kernel runs each node and why, where every tensor
 * lies, and the replay. */
#ifndef LK_DISPATCH_DISPATCH_H
#define LK_DISPATCH_DISPATCH_H

#include "core/graph/ops.h"
#include "lorikeet_backend.h"

#define LK_BACKEND(name) extern const lk_backend lk_backend_##name;
#include "dispatch/backends.def"
#undef LK_BACKEND

/* ---- what is known not to work (deny.c, deny.def) ---- */

typedef struct lk_denial {
    const char *backend, *device, *what, *reason; /* device, what: patterns */
} lk_denial;
const lk_denial *lk_denials(int *count);
/* Why `what` (a kernel's name, a feature's name, or "device") is not to be used on a device; NULL: nothing is known. */
const char *lk_denied(const lk_device_caps *caps, const char *what);
/* The same for any list, whatever the environment says. */
const char *lk_denied_by(const lk_denial *rows, int count, const lk_device_caps *caps, const char *what);

/* ---- selection (select.c): a pure function of the rows, the device's description and the node ---- */

enum { LK_MAX_CANDIDATES = 32 };

typedef struct lk_candidate {
    const lk_kernel *kernel;
    double seconds; /* estimated; of refused candidates 0 */
    bool tuned;     /* seconds was measured */
    bool refused;
    lk_refusal why;
} lk_candidate;

typedef struct lk_selection {
    const lk_kernel *kernel; /* NULL: no row of the backend supports the node */
    double seconds;
    const char *rule; /* "override", "tuned", "cost": what decided */
    bool tuned;       /* seconds was measured, whatever decided */
} lk_selection;

/* What may steer the choice besides the estimated costs. */
typedef struct lk_preferences {
    const char *override; /* comma-separated kernel names (LK_KERNELS); the first that supports a node is taken */
    /* Any of these may be NULL. A measured time for this kernel on this node, or a negative number. */
    double (*tuned)(void *user, const lk_device_caps *caps, const lk_kernel *kernel, const lk_node *node);
    /* Whether a kernel that supports the node may be used there: the deny list, and what has failed its check. */
    bool (*allows)(void *user, const lk_device_caps *caps, const lk_kernel *kernel, lk_refusal *why);
    /* Checks a kernel that was chosen, when it is first used on the device; where it is not sound, allows() refuses it
     * from then on. A failure of the device is a status. */
    lk_status (*check)(void *user, lk_device *device, const lk_kernel *kernel, const lk_node *node, bool *sound);
    void *user;
} lk_preferences;

/* candidates (capacity LK_MAX_CANDIDATES, may be NULL) receives every row of the op with the verdict on it. */
lk_selection lk_select(const lk_kernel *rows, int num_rows, const lk_device_caps *caps, const lk_node *node,
                       const lk_preferences *preferences, lk_candidate *candidates, int *num_candidates);

/* ---- the memory plan (plan_memory.c): pure ---- */

typedef struct lk_plan_item {
    size_t bytes;
    int32_t first, last; /* the commands between which it must not be overwritten, inclusive */
    int32_t shares;      /* the item whose place it takes over (in place), or -1 */
    size_t offset;       /* out */
} lk_plan_item;

/* Places the items so that no two that live at the same time overlap; *total is the arena's size and *lower_bound the
 * largest sum of what lives at one time. */
lk_status lk_plan_memory(lk_context *context, lk_plan_item *items, int32_t count, size_t *total, size_t *lower_bound);

/* ---- variables (variables.c) ---- */

/* home NULL: variables are described but have no storage, for planning without loading. */
lk_status lk_variables_create(lk_context *context, lk_device *home, lk_variables **out);
void lk_variables_destroy(lk_variables *variables); /* before the device is closed, after the programs */
/* name and purpose are copied; zeroed storage on the home device. */
lk_status lk_variables_add(lk_variables *variables, const char *name, lk_role role, const char *purpose, lk_dtype dtype,
                           int rank, const int64_t *shape, lk_variable **out);
/* The same with the bytes of the host, which stay valid (a mapped file), shared where the device can. */
lk_status lk_variables_wrap(lk_variables *variables, const char *name, lk_role role, const char *purpose,
                            lk_dtype dtype, int rank, const int64_t *shape, const void *host, lk_variable **out);
lk_variable *lk_variables_find(const lk_variables *variables, const char *name); /* NULL if there is none */
int32_t lk_variables_count(const lk_variables *variables);
lk_variable *lk_variables_at(const lk_variables *variables, int32_t index);
lk_status lk_variable_upload(lk_variable *variable, const void *host);
lk_status lk_variable_download(lk_variable *variable, void *host);
void *lk_variable_map(lk_variable *variable); /* NULL unless the home device's memory is the host's */
lk_buffer *lk_variable_buffer(const lk_variable *variable);
lk_device *lk_variable_home(const lk_variable *variable);

/* ---- programs (program.c): a compiled graph ---- */

typedef struct lk_program lk_program;

typedef struct lk_program_options {
    const lk_preferences *preferences; /* NULL: none */
    lk_device *const *devices;         /* in order of preference; the variables' home first, the reference last */
    int num_devices;
    bool plan_only; /* choose and plan, but allocate nothing on a device: for `lorikeet plan` */
} lk_program_options;

/* Optimizes and takes over the graph (also on failure), which must not be changed any more. */
lk_status lk_program_compile(lk_context *context, lk_graph *graph, const lk_program_options *options, lk_program **out);
void lk_program_destroy(lk_program *program);
lk_status lk_program_run(lk_program *program);
/* Copies a tensor marked as output out of the last run. */
lk_status lk_program_read(lk_program *program, const lk_tensor *tensor, void *host, size_t bytes);
const lk_graph *lk_program_graph(const lk_program *program);
lk_context *lk_program_context(const lk_program *program);

typedef struct lk_program_memory {
    size_t arena_bytes;       /* intermediates and scratch, over all devices */
    size_t lower_bound_bytes; /* the most that lives at one time */
} lk_program_memory;
lk_program_memory lk_program_memory_of(const lk_program *program);

/* What a run is estimated to take, and of it the copies between devices. */
typedef struct lk_program_estimate {
    double seconds;         /* with the copies; of what was measured, the measured time */
    double untuned_seconds; /* as if nothing had been measured */
    double copy_seconds;
    bool measured; /* every kernel */
    size_t copied_bytes;
    int32_t copies;
} lk_program_estimate;
lk_program_estimate lk_program_estimate_of(const lk_program *program);

typedef struct lk_placement {
    const lk_node *node;
    const lk_device *device;
    const lk_kernel *kernel;
    double estimated_seconds, measured_seconds; /* measured: of the last profiled run; 0 before */
    const char *rule;
    bool tuned; /* estimated_seconds was measured by `lorikeet tune` */
} lk_placement;
int32_t lk_program_num_commands(const lk_program *program);
lk_placement lk_program_placement(const lk_program *program, int32_t index);
/* Runs once with the time of each command taken. */
lk_status lk_program_profile(lk_program *program);
/* What each candidate row said about a command's node on its device. */
int lk_program_candidates(const lk_program *program, int32_t index, lk_candidate candidates[LK_MAX_CANDIDATES]);
/* Runs command by command and names the first node that makes a value that is not finite; NULL: none does. Slow. */
lk_status lk_program_find_not_finite(lk_program *program, const lk_node **out);

#endif
