/* A cache file: a header, then offsets, ids, labels and classes as they lie in memory. */
#include <string.h>

#include "core/text/dataset_internal.h"

typedef struct cache_header {
    char magic[8];
    uint32_t byte_order;
    uint32_t version; /* of this layout and of what tokenising means */
    uint64_t key;
    uint64_t rows, tokens, cut, dropped;
    uint32_t has_labels, has_classes;
    uint64_t hash; /* of this header with 0 here, and of all that follows */
} cache_header;

static const char magic[8] = {'L', 'K', 'D', 'A', 'T', 'A', '\r', '\n'};
_Static_assert(sizeof(cache_header) == 72, "the header has no padding, and arrays behind it are aligned");
enum { BYTE_ORDER_MARK = 0x01020304, VERSION = 1, PARTS = 4 };

typedef struct part {
    const void *data;
    size_t size;
} part;

/* The parts of the file after the header, in order; false when sizes overflow. */
static bool list_parts(const cache_header *header, const lk_dataset_arrays *arrays, part parts[PARTS]) {
    uint64_t limit = SIZE_MAX / 64;
    if (header->rows >= limit || header->tokens >= limit) {
        return false;
    }
    size_t rows = (size_t)header->rows, tokens = (size_t)header->tokens;
    parts[0] = (part){arrays->offsets, (rows + 1) * sizeof *arrays->offsets};
    parts[1] = (part){arrays->ids, tokens * sizeof *arrays->ids};
    parts[2] = (part){arrays->labels, header->has_labels ? tokens * sizeof *arrays->labels : 0};
    parts[3] = (part){arrays->classes, header->has_classes ? rows * sizeof *arrays->classes : 0};
    return true;
}

static uint64_t hash_file(cache_header header, const part parts[PARTS]) {
    header.hash = 0; /* the header has no padding */
    uint64_t hash = lk_hash64(&header, sizeof header, 0);
    for (int i = 0; i < PARTS; i++) {
        hash = lk_hash64(parts[i].size > 0 ? parts[i].data : "", parts[i].size, hash);
    }
    return hash;
}

static bool offsets_ascend(const lk_dataset_arrays *arrays, uint64_t tokens) {
    for (uint64_t i = 0; i < arrays->rows; i++) {
        if (arrays->offsets[i] > arrays->offsets[i + 1]) {
            return false;
        }
    }
    return arrays->offsets[0] == 0 && arrays->offsets[arrays->rows] == tokens;
}

static bool use_mapping(const lk_mapping *mapping, uint64_t key, lk_dataset_arrays *out) {
    cache_header header;
    if (mapping->size < sizeof header) {
        return false;
    }
    memcpy(&header, mapping->data, sizeof header);
    part parts[PARTS];
    *out = (lk_dataset_arrays){0};
    if (memcmp(header.magic, magic, sizeof magic) != 0 || header.byte_order != BYTE_ORDER_MARK ||
        header.version != VERSION || header.key != key || header.rows == 0 || !list_parts(&header, out, parts)) {
        return false;
    }
    size_t at = sizeof header;
    for (int i = 0; i < PARTS; i++) {
        if (parts[i].size > mapping->size - at) {
            return false;
        }
        parts[i].data = mapping->data + at;
        at += parts[i].size;
    }
    if (at != mapping->size || hash_file(header, parts) != header.hash) {
        return false;
    }
    *out = (lk_dataset_arrays){.rows = header.rows,
                               .offsets = parts[0].data, /* aligned: mappings begin at a page, the header is 72 bytes */
                               .ids = parts[1].data,
                               .labels = header.has_labels ? parts[2].data : NULL,
                               .classes = header.has_classes ? parts[3].data : NULL,
                               .cut = header.cut,
                               .dropped = header.dropped};
    return offsets_ascend(out, header.tokens);
}

void lk_dataset_cache_read(lk_context *context, const char *path, uint64_t key, lk_mapping *mapping,
                           lk_dataset_arrays *out, bool *found) {
    *found = false;
    *mapping = (lk_mapping){0};
    if (!lk_path_is_file(path)) {
        return;
    }
    *found = lk_mapping_open(context, path, mapping) == LK_OK && use_mapping(mapping, key, out);
    if (!*found) {
        lk_log(context, LK_LOG_WARNING, "%s is damaged or of another version: it is made anew", path);
        lk_mapping_close(mapping);
        *out = (lk_dataset_arrays){0};
    }
}

lk_status lk_dataset_cache_write(lk_context *context, const char *path, uint64_t key, const lk_dataset_arrays *arrays) {
    cache_header header = {.byte_order = BYTE_ORDER_MARK,
                           .version = VERSION,
                           .key = key,
                           .rows = arrays->rows,
                           .tokens = arrays->offsets[arrays->rows],
                           .cut = arrays->cut,
                           .dropped = arrays->dropped,
                           .has_labels = arrays->labels != NULL,
                           .has_classes = arrays->classes != NULL};
    memcpy(header.magic, magic, sizeof magic);
    part parts[PARTS];
    if (!list_parts(&header, arrays, parts)) {
        return lk_fail(context, LK_STATUS_INTERNAL, "%s: too large", path);
    }
    header.hash = hash_file(header, parts);
    lk_atomic_file *file;
    LK_TRY(lk_atomic_file_open(context, path, &file));
    lk_status status = lk_atomic_file_write(file, &header, sizeof header);
    for (int i = 0; i < PARTS && status == LK_OK; i++) {
        status = lk_atomic_file_write(file, parts[i].data, parts[i].size);
    }
    if (status != LK_OK) {
        lk_atomic_file_abort(file);
        return status;
    }
    return lk_atomic_file_commit(file);
}
