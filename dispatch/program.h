/* The inside of lk_program, shared by compiling (program.c) and running (run.c). */
#ifndef LK_DISPATCH_PROGRAM_H
#define LK_DISPATCH_PROGRAM_H

#include "dispatch/dispatch.h"

enum { LK_MAX_DEVICES = 8 };

/* Where a tensor lies for one device. */
typedef enum lk_residence {
    LK_ABSENT,
    LK_OWN,   /* made there, or a variable at home there */
    LK_ALIAS, /* on another device whose memory both can use */
    LK_COPY   /* copied there when it is needed */
} lk_residence;

typedef struct lk_location {
    lk_residence residence;
    int32_t item; /* in the device's memory plan; -1: a buffer of its own */
    lk_binding binding;
} lk_location;

/* A run is a list of steps: replays of command lists, and copies between devices. */
typedef struct lk_step {
    int32_t device; /* of the replay; -1: a copy */
    int32_t first, count;
    lk_commands *commands;
    const lk_tensor *tensor; /* of a copy */
    int32_t from, to;
} lk_step;

struct lk_program {
    lk_context *context;
    lk_graph *graph;
    lk_preferences preferences;
    bool has_preferences, planned_only;
    lk_arena arena;
    int32_t num_devices;
    lk_device *devices[LK_MAX_DEVICES];
    lk_buffer *arenas[LK_MAX_DEVICES];
    lk_buffer **buffers[LK_MAX_DEVICES]; /* others of the program's own: aliases and copies of weights */
    int32_t num_buffers[LK_MAX_DEVICES];
    lk_program_memory memory;
    int32_t num_commands;
    lk_placement *placements;
    lk_command *commands;
    double *seconds;
    lk_location *locations; /* [tensor * num_devices + device] */
    lk_step *steps;
    int32_t num_steps;
    void *staging; /* for copies between devices that share no memory */
};

static inline lk_location *lk_location_of(const lk_program *program, const lk_tensor *tensor, int32_t device) {
    return &program->locations[(size_t)tensor->id * (size_t)program->num_devices + (size_t)device];
}

/* Copies a tensor's bytes from where device `from` has it to where device `to` has it. */
lk_status lk_program_copy(lk_program *program, const lk_tensor *tensor, int32_t from, int32_t to);
bool lk_devices_share_memory(const lk_device *a, const lk_device *b);

#endif
