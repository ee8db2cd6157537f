#include "core/base/disk_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct header {
    char magic[8];
    uint64_t key, check, bytes; /* the entry's; hash and size of the data that follow */
} header;
static const char MAGIC[8] = {'L', 'K', 'C', 'A', 'C', 'H', 'E', '1'};

lk_status lk_disk_cache_folder(lk_context *context, char **out) {
    const char *own = getenv("LORIKEET_CACHE_DIR"), *general = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    *out = NULL;
    if (own != NULL && own[0] != '\0') {
        *out = lk_strdup(context, own);
    } else if (general != NULL && general[0] != '\0') {
        *out = lk_path_join(context, general, "lorikeet");
    } else if (home != NULL && home[0] != '\0') {
        *out = lk_path_join(context, home, ".cache/lorikeet");
    } else {
        return LK_OK;
    }
    return *out != NULL ? LK_OK : lk_out_of_memory(context, 0, "the path of the cache");
}

/* NULL: there is no cache, or no memory, which comes to the same. */
static char *path_of(lk_context *context, const char *kind, uint64_t key, char **folder) {
    char name[64];
    snprintf(name, sizeof name, "%.32s-%016llx.bin", kind, (unsigned long long)key);
    return lk_disk_cache_folder(context, folder) == LK_OK && *folder != NULL ? lk_path_join(context, *folder, name)
                                                                             : NULL;
}

static bool is_sound(const lk_mapping *file, uint64_t key, lk_disk_cache_entry *out) {
    header found;
    if (file->size < sizeof found) {
        return false;
    }
    memcpy(&found, file->data, sizeof found);
    *out = (lk_disk_cache_entry){file->data + sizeof found, file->size - sizeof found, *file};
    return memcmp(found.magic, MAGIC, sizeof MAGIC) == 0 && found.key == key && found.bytes == out->bytes &&
           found.check == lk_hash64(out->data, out->bytes, key);
}

bool lk_disk_cache_open(lk_context *context, const char *kind, uint64_t key, lk_disk_cache_entry *out) {
    char *folder, *path = path_of(context, kind, key, &folder);
    lk_mapping file;
    bool found = false;
    if (path != NULL && lk_path_is_file(path) && lk_mapping_open(context, path, &file) == LK_OK) {
        found = is_sound(&file, key, out);
        if (!found) {
            lk_log(context, LK_LOG_DEBUG, "%s is damaged; it will be made again", path);
            lk_mapping_close(&file);
        }
    }
    lk_free(context, path);
    lk_free(context, folder);
    return found;
}

void lk_disk_cache_close(lk_disk_cache_entry *entry) {
    lk_mapping_close(&entry->file);
}

static lk_status write_entry(lk_context *context, const char *path, uint64_t key, const void *data, size_t bytes) {
    header head = {.key = key, .check = lk_hash64(data, bytes, key), .bytes = bytes};
    memcpy(head.magic, MAGIC, sizeof MAGIC);
    lk_atomic_file *file;
    LK_TRY(lk_atomic_file_open(context, path, &file));
    lk_status status = lk_atomic_file_write(file, &head, sizeof head);
    if (status == LK_OK) {
        status = lk_atomic_file_write(file, data, bytes);
    }
    if (status != LK_OK) {
        lk_atomic_file_abort(file);
        return status;
    }
    return lk_atomic_file_commit(file);
}

void lk_disk_cache_store(lk_context *context, const char *kind, uint64_t key, const void *data, size_t bytes) {
    char *folder, *path = path_of(context, kind, key, &folder);
    if (path != NULL &&
        (lk_make_directories(context, folder) != LK_OK || write_entry(context, path, key, data, bytes) != LK_OK)) {
        lk_log(context, LK_LOG_DEBUG, "%s programs are not kept on disk: %s", kind, lk_error_message(context));
    }
    lk_free(context, path);
    lk_free(context, folder);
}
