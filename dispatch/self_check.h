/* Kernels that drivers compile are checked against the specification when a device first uses them, on a small case
 * that is like the node at hand. What was found is kept on disk, under all that it depends on, so that a check is made
 * once per device, driver and version of the kernels. LORIKEET_SELF_CHECK=0: nothing is checked; =always: whatever the
 * disk says. */
#ifndef LK_DISPATCH_SELF_CHECK_H
#define LK_DISPATCH_SELF_CHECK_H

#include "dispatch/dispatch.h"

typedef struct lk_self_check lk_self_check; /* of one device */

/* Reads what is known of the device. */
lk_status lk_self_check_create(lk_context *context, const lk_device_caps *caps, lk_self_check **out);
/* Writes what is new. */
void lk_self_check_destroy(lk_self_check *self); /* NULL is allowed */
/* False, with the reason, where the kernel has failed. */
bool lk_self_check_allows(const lk_self_check *self, const lk_kernel *kernel, lk_refusal *why);
/* Checks the kernel unless that was done for a case of these types and sizes. *sound is false where it computes
 * something else than the specification, or cannot be compiled: a warning says so. A device that fails while it runs
 * is a status. */
lk_status lk_self_check_kernel(lk_self_check *self, lk_device *device, const lk_kernel *kernel, const lk_node *node,
                               bool *sound);
/* How many checks were made, and not found on the disk. */
int lk_self_check_made(const lk_self_check *self);

#endif
