/* What drivers compile, kept on disk from run to run. A file is found by a hash of all that its content depends on; one
 * that is not exactly what was expected counts as absent, and files are written whole or not at all. */
#ifndef LK_CORE_BASE_DISK_CACHE_H
#define LK_CORE_BASE_DISK_CACHE_H

#include "core/base/base.h"

typedef struct lk_disk_cache_entry {
    const uint8_t *data;
    size_t bytes;
    lk_mapping file;
} lk_disk_cache_entry;

/* LORIKEET_CACHE_DIR, else XDG_CACHE_HOME/lorikeet, else ~/.cache/lorikeet. lk_free it; NULL: there is none. */
lk_status lk_disk_cache_folder(lk_context *context, char **out);
/* False where there is no such file, or it is damaged; else lk_disk_cache_close ends it. `kind`: "opencl" */
bool lk_disk_cache_open(lk_context *context, const char *kind, uint64_t key, lk_disk_cache_entry *out);
void lk_disk_cache_close(lk_disk_cache_entry *entry);
/* A cache that cannot be written costs time at the next start, nothing else: failures are logged only. */
void lk_disk_cache_store(lk_context *context, const char *kind, uint64_t key, const void *data, size_t bytes);

#endif
