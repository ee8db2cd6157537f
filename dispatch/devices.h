/* Which devices there are. */
#ifndef LK_DISPATCH_DEVICES_H
#define LK_DISPATCH_DEVICES_H

#include "core/base/json.h"
#include "dispatch/dispatch.h"

enum { LK_MAX_LISTED = 16, LK_DEVICE_LABEL = 32 };

/* What a backend finds, without the features that the deny list takes away. */
lk_status lk_devices_of(lk_context *context, const lk_backend *backend, lk_device_caps *caps, int capacity, int *count);
/* "opencl:1" */
void lk_device_label(const lk_device_caps *caps, char label[LK_DEVICE_LABEL]);
/* Changes with all that what was measured or checked on a device depends on: the device, its driver, our kernels. */
uint64_t lk_device_identity(const lk_device_caps *caps);
/* Whether an item stands in a comma-separated list; NULL is an empty one. */
bool lk_list_has(const char *list, const char *item);
/* What `auto` may take, in the order of the backends: up to LK_MAX_LISTED. passed_over (may be NULL) receives
 * "; not vulkan:0: why" for each that it must not. */
lk_status lk_devices_for_auto(lk_context *context, const char *exclude, lk_text *passed_over, lk_device_caps *out,
                              int *count);

#endif
