/* Buffers in the host's own memory, for the backends that compute there. */
#ifndef LK_HOST_BUFFER_H
#define LK_HOST_BUFFER_H

#include "lorikeet_backend.h"

struct lk_buffer {
    char *bytes;
    size_t size;
    bool wrapped; /* the bytes are somebody else's */
};

/* What lk_backend wants of its members of the same names; lk_host_alloc leaves the bytes as they come, so that a
 * backend can clear them in its own way. */
lk_status lk_host_alloc(lk_device *device, size_t bytes, lk_buffer **out);
lk_status lk_host_wrap(lk_device *device, const void *host, size_t bytes, lk_buffer **out);
void lk_host_free(lk_device *device, lk_buffer *buffer);
void *lk_host_map(lk_buffer *buffer);
lk_status lk_host_upload(lk_device *device, lk_buffer *buffer, size_t offset, const void *host, size_t bytes);
lk_status lk_host_download(lk_device *device, lk_buffer *buffer, size_t offset, void *host, size_t bytes);

/* NULL for a tensor that is absent. */
static inline char *lk_host_bytes(const lk_binding *binding) {
    return binding->buffer != NULL ? binding->buffer->bytes + binding->offset : NULL;
}

#endif
