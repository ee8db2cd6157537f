/* A program for people and for programs that read JSON. */
#ifndef LK_DISPATCH_EXPLAIN_H
#define LK_DISPATCH_EXPLAIN_H

#include <jansson.h>

#include "dispatch/dispatch.h"

/* Nodes of one op that are alike (shapes, kernel, device) count as one row, in order of time. *out is owned. */
lk_status lk_explain_program(const lk_program *program, const char *title, json_t **out);
/* Bytes that live while each command runs, as arrays by purpose: "saved" from before the command that makes the loss
 * until after it, "forward" and "backward" on one side of it only, "scratch" of the kernels. *out is owned. */
lk_status lk_explain_memory(const lk_program *program, const lk_tensor *loss, json_t **out);
/* The program's object as a table. */
void lk_explain_print(const json_t *explained, lk_text *text);

#endif
