/* Measured times of kernels, kept per device: what `lorikeet tune` writes and selection prefers to estimates. A file
 * tuned-<backend>-<hash>.json in the cache folder (core/base/disk_cache.h) holds those of one device, driver and
 * version of the kernels. */
#ifndef LK_DISPATCH_TUNED_H
#define LK_DISPATCH_TUNED_H

#include "dispatch/dispatch.h"

typedef struct lk_tuned lk_tuned;

/* Reads the device's records. A file that is damaged or another device's is a warning, and then there are none. */
lk_status lk_tuned_load(lk_context *context, const lk_device_caps *caps, lk_tuned **out);
void lk_tuned_destroy(lk_tuned *self); /* NULL is allowed */
int32_t lk_tuned_count(const lk_tuned *self);
/* The measured seconds of a kernel on nodes like this one, or a negative number. */
double lk_tuned_find(const lk_tuned *self, const lk_kernel *kernel, const lk_node *node);
/* Replaces an earlier record. */
lk_status lk_tuned_set(lk_tuned *self, const lk_kernel *kernel, const lk_node *node, double seconds);
/* Whole or not at all. */
lk_status lk_tuned_save(const lk_tuned *self);
const char *lk_tuned_path(const lk_tuned *self); /* "": there is no folder to keep it in */

/* Measures every candidate that is not refused on the node's shapes, with made-up inputs: the shortest of several runs.
 * Sets seconds and tuned; a kernel that fails is refused with the reason. */
lk_status lk_tune_node(lk_device *device, const lk_node *node, lk_candidate *candidates, int count);

#endif
