/* An op as launches of the kernels in shaders/: the half of a row that OpenCL, Vulkan and CUDA share.
 *
 * A row's `run` (cast from lk_record_function) describes the launches of one command into a recorder; the backend makes
 * of each whatever its API replays. Nothing here knows a graphics API. */
#ifndef LK_BACKENDS_SHADERS_LAUNCH_H
#define LK_BACKENDS_SHADERS_LAUNCH_H

#include "core/graph/ops.h"
#include "lorikeet_backend.h"

/* The embedded texts, by file name ("rms_norm.lk", "lk_common.h"); the last has name NULL. */
typedef struct lk_shader_text {
    const char *name, *text;
    size_t size;
} lk_shader_text;
extern const lk_shader_text lk_shader_texts[];
const lk_shader_text *lk_shader_text_find(const char *name); /* NULL if there is none */

enum { LK_LAUNCH_WORDS = 3, LK_LAUNCH_CONSTANTS = 8, LK_LAUNCH_BUFFERS = 10, LK_LAUNCH_PARAMETERS = 32 };

typedef struct lk_launch {
    const char *file, *entry; /* "attention_backward", "attention_backward_dq" */
    struct {
        const char *name, *word; /* "W_TYPE", "bf16": what a macro of the text stands for */
    } words[LK_LAUNCH_WORDS];
    struct {
        const char *name; /* "GROUP" first: the lanes of a group */
        int32_t value;
    } constants[LK_LAUNCH_CONSTANTS];
    lk_binding buffers[LK_LAUNCH_BUFFERS];     /* in the order of the kernel's list; an absent one repeats another */
    uint32_t parameters[LK_LAUNCH_PARAMETERS]; /* in order; floats by their bits */
    int32_t num_words, num_constants, num_buffers, num_parameters;
    int32_t groups[2];
    int32_t first;       /* of a part: its first row of groups, or minus its first group where there is one row only */
    size_t shared_bytes; /* that a native kernel of CUDA asks for; the others declare theirs */
    double seconds;      /* what it is estimated to take */
    int32_t command;     /* which of the recorded commands it belongs to */
    struct lk_recorder *recorder; /* learns of what does not fit; NULL: it is dropped */
} lk_launch;

typedef struct lk_recorder {
    lk_context *context;
    const lk_device_caps *caps;
    lk_launch *launches;
    int32_t count, capacity;
    int32_t command;                    /* that is being recorded */
    double most_seconds;                /* that a submission may take, by estimate; 0: as long as it likes */
    const struct lk_products *products; /* who makes its products; NULL: the dialect's kernels (rows.h) */
    bool by_subgroups;                  /* rows are reduced within subgroups first */
    lk_status status;                   /* of the first failure; later calls do nothing */
} lk_recorder;
typedef void (*lk_record_function)(lk_recorder *recorder, const lk_command *command);

/* What watchdogs leave to one submission: LORIKEET_SUBMIT_MS, else 100 ms, and on processors all the time there is. */
double lk_submit_seconds(const lk_device_caps *caps);
/* Whether what is estimated to take so long may be submitted whole, as calls of libraries are. */
bool lk_fits_submission(const lk_device_caps *caps, double seconds);
void lk_recorder_init(lk_recorder *recorder, lk_context *context, const lk_device_caps *caps);
void lk_recorder_free(lk_recorder *recorder);
/* All launches of a list of commands, in order. Those of a command that is estimated to take longer than a submission
 * may are cut into parts, by rows of groups; that changes no result. */
lk_status lk_record_commands(lk_recorder *recorder, const lk_command *commands, int count);

/* Begins a launch with `group` lanes in each group; the calls below add to it. NULL, which they accept, after a
 * failure. */
lk_launch *lk_launch_begin(lk_recorder *recorder, const char *file, const char *entry, int32_t group);
void lk_launch_word(lk_launch *launch, const char *name, const char *word);
void lk_launch_type(lk_launch *launch, const char *name, lk_dtype dtype); /* the word is the type's name */
void lk_launch_constant(lk_launch *launch, const char *name, int32_t value);
/* A binding without a buffer is replaced by the launch's last one: the kernel is told by a parameter not to use it. */
void lk_launch_buffer(lk_launch *launch, const lk_binding *binding);
void lk_launch_int(lk_launch *launch, int64_t value);
void lk_launch_float(lk_launch *launch, float value);
/* The number of groups; one row that is too long becomes two dimensions (LK_GROUP_INDEX). */
void lk_launch_groups(lk_launch *launch, int64_t count);
void lk_launch_grid(lk_launch *launch, int64_t x, int64_t y);

/* A launch that is given more than it can hold makes the recorder's status an error. */

/* A part of a binding, in bytes. */
lk_binding lk_binding_part(const lk_binding *binding, size_t offset, size_t bytes);

#endif
