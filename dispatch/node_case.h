/* A node with made-up inputs, to run one kernel alone: for checks of kernels and for measuring them. */
#ifndef LK_DISPATCH_NODE_CASE_H
#define LK_DISPATCH_NODE_CASE_H

#include "dispatch/dispatch.h"

typedef struct lk_node_case {
    lk_context *context;
    lk_arena arena;
    lk_node node;
    void **inputs; /* the bytes of each; NULL: absent */
    bool shrunk;
} lk_node_case;

/* How a case's shapes follow from the node's. */
typedef enum lk_case_size {
    LK_CASE_SMALL, /* every extent of 128 or more becomes 64 to 127, the same modulo 64 */
    LK_CASE_ROWS,  /* first extents of more than 128 are divided by a power of two */
    LK_CASE_WHOLE  /* as they are */
} lk_case_size;

/* UNSUPPORTED where the node's shapes cannot be made so. The values are the same for the same node. */
lk_status lk_node_case_make(lk_context *context, const lk_node *like, lk_case_size size, lk_node_case *out);
void lk_node_case_free(lk_node_case *self);

/* A case on a device: buffers, and one kernel compiled for it. */
typedef struct lk_case_run {
    const lk_node_case *of;
    lk_device *device;
    lk_commands *commands;
    lk_binding *inputs, *outputs;
    lk_command command;
} lk_case_run;
/* On failure everything is released. */
lk_status lk_case_run_open(const lk_node_case *of, lk_device *device, const lk_kernel *kernel, lk_case_run *out);
void lk_case_run_close(lk_case_run *self);
/* Uploads the inputs; a node that mutates them needs that before every run. */
lk_status lk_case_run_reset(lk_case_run *self);
/* Runs once. seconds (may be NULL) receives the device's time, or where it takes none, that of the whole call. */
lk_status lk_case_run_once(lk_case_run *self, double *seconds);
/* Compares with the specification. The problem is "" where the kernel is right. */
lk_status lk_case_run_judge(lk_case_run *self, char *problem, size_t capacity);

/* Same op, types and shapes, and the same of the attributes that change a kernel's work. */
uint64_t lk_node_key(const lk_node *node);

#endif
