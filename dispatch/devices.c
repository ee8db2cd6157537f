#include <stdio.h>
#include <string.h>

#include "dispatch/devices.h"

#include "backends/shaders/launch.h"

lk_status lk_devices_of(lk_context *context, const lk_backend *backend, lk_device_caps *caps, int capacity,
                        int *count) {
    LK_TRY(backend->probe(context, caps, capacity, count));
    for (int i = 0; i < LK_MIN(*count, capacity); i++) {
        for (int bit = 0; backend->features != NULL && backend->features[bit] != NULL; bit++) {
            if (lk_denied(&caps[i], backend->features[bit]) != NULL) {
                caps[i].features &= ~(UINT64_C(1) << bit);
            }
        }
    }
    return LK_OK;
}

void lk_device_label(const lk_device_caps *caps, char label[LK_DEVICE_LABEL]) {
    snprintf(label, LK_DEVICE_LABEL, "%s:%d", caps->backend, (int)caps->index);
}

uint64_t lk_device_identity(const lk_device_caps *caps) {
    uint64_t key = lk_hash64(lk_version(), strlen(lk_version()), 1);
    for (const lk_shader_text *text = lk_shader_texts; text->name != NULL; text++) {
        key = lk_hash64(text->text, text->size, key);
    }
    key = lk_hash64(caps->backend, strlen(caps->backend), key);
    key = lk_hash64(&caps->features, sizeof caps->features, key);
    key = lk_hash64(caps->name, strlen(caps->name), key);
    return lk_hash64(caps->driver, strlen(caps->driver), key);
}

bool lk_list_has(const char *list, const char *item) {
    size_t length = strlen(item);
    for (const char *cursor = list; cursor != NULL && *cursor != '\0';) {
        size_t here = strcspn(cursor, ",");
        if (here == length && memcmp(cursor, item, length) == 0) {
            return true;
        }
        cursor += here + (cursor[here] == ',');
    }
    return false;
}

lk_status lk_devices_for_auto(lk_context *context, const char *exclude, lk_text *passed_over, lk_device_caps *out,
                              int *count) {
    int num_backends;
    const lk_backend *const *backends = lk_backends(&num_backends);
    *count = 0;
    for (int b = 0; b < num_backends; b++) {
        lk_device_caps caps[LK_MAX_LISTED];
        int found = 0;
        if (backends[b]->unasked) {
            continue;
        }
        lk_status status = lk_devices_of(context, backends[b], caps, LK_MAX_LISTED, &found);
        if (status == LK_STATUS_OUT_OF_MEMORY) {
            return status;
        }
        found = status == LK_OK ? found : 0; /* a driver that fails is a device that is not there */
        for (int d = 0; d < LK_MIN(found, (int)LK_MAX_LISTED) && *count < LK_MAX_LISTED; d++) {
            char label[LK_DEVICE_LABEL];
            lk_device_label(&caps[d], label);
            const char *denied = lk_list_has(exclude, label) ? "it was excluded" : lk_denied(&caps[d], "device");
            if (denied == NULL) {
                out[(*count)++] = caps[d];
            } else if (passed_over != NULL) {
                lk_text_printf(passed_over, "; not %s: %s", label, denied);
            }
        }
    }
    return LK_OK;
}
