#include "core/formats/stored_tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *lk_shape_format(const int64_t *shape, int rank, char *buffer, size_t size) {
    size_t used = 0;
    snprintf(buffer, size, "[");
    for (int i = 0; i < rank; i++) {
        used = strlen(buffer);
        snprintf(buffer + used, size - used, "%s%" PRId64, i ? ", " : "", shape[i]);
    }
    used = strlen(buffer);
    snprintf(buffer + used, size - used, "]");
    return buffer;
}

lk_status lk_stored_tensor_expect_shape(lk_context *context, const lk_stored_tensor *tensor, int rank,
                                        const int64_t *shape) {
    bool same = tensor->rank == rank;
    for (int i = 0; same && i < rank; i++) {
        same = tensor->shape[i] == shape[i];
    }
    if (!same) {
        char found[LK_SHAPE_TEXT], expected[LK_SHAPE_TEXT];
        return lk_fail(context, LK_STATUS_FORMAT, "%s: tensor %s has shape %s, expected %s", tensor->file, tensor->name,
                       lk_shape_format(tensor->shape, tensor->rank, found, sizeof found),
                       lk_shape_format(shape, rank, expected, sizeof expected));
    }
    return LK_OK;
}

void lk_tensor_table_init(lk_tensor_table *table, lk_context *context) {
    *table = (lk_tensor_table){.context = context};
}

lk_status lk_tensor_table_add(lk_tensor_table *table, const lk_stored_tensor *tensor) {
    if (table->count == table->capacity) {
        size_t capacity = table->capacity ? table->capacity * 2 : 64;
        lk_stored_tensor *grown = lk_realloc(table->context, table->tensors, capacity, sizeof *grown);
        if (grown == NULL) {
            return lk_out_of_memory(table->context, capacity * sizeof *grown, "a list of tensors");
        }
        table->tensors = grown;
        table->capacity = capacity;
    }
    table->tensors[table->count++] = *tensor;
    return LK_OK;
}

/* Sorts positions by name, bottom-up: qsort has no argument through which to reach the tensors. */
static void sort_by_name(const lk_stored_tensor *tensors, size_t *from, size_t *to, size_t count) {
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t start = 0; start < count; start += 2 * width) {
            size_t left = start, middle = LK_MIN(start + width, count), right = middle;
            size_t end = LK_MIN(start + 2 * width, count);
            for (size_t k = start; k < end; k++) {
                bool take_left =
                    left < middle && (right >= end || strcmp(tensors[from[left]].name, tensors[from[right]].name) <= 0);
                to[k] = take_left ? from[left++] : from[right++];
            }
        }
        memcpy(from, to, count * sizeof *from);
    }
}

lk_status lk_tensor_table_seal(lk_tensor_table *table) {
    size_t *order = lk_calloc(table->context, table->count, 2 * sizeof *order);
    if (order == NULL) {
        return lk_out_of_memory(table->context, table->count * 2 * sizeof *order, "an index of tensors");
    }
    for (size_t i = 0; i < table->count; i++) {
        order[i] = i;
    }
    sort_by_name(table->tensors, order, order + table->count, table->count);
    table->by_name = order;
    for (size_t i = 1; i < table->count; i++) {
        const lk_stored_tensor *earlier = &table->tensors[order[i - 1]], *later = &table->tensors[order[i]];
        if (strcmp(earlier->name, later->name) == 0) {
            return lk_fail(table->context, LK_STATUS_FORMAT, "%s: tensor %s is there twice (first in %s)", later->file,
                           later->name, earlier->file);
        }
    }
    return LK_OK;
}

const lk_stored_tensor *lk_tensor_table_lookup(const lk_tensor_table *table, const char *name) {
    size_t low = 0, high = table->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const lk_stored_tensor *tensor = &table->tensors[table->by_name[middle]];
        int order = strcmp(name, tensor->name);
        if (order == 0) {
            return tensor;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

lk_status lk_tensor_table_find(const lk_tensor_table *table, const char *source, const char *name,
                               const lk_stored_tensor **out) {
    *out = NULL;
    const lk_stored_tensor *tensor = lk_tensor_table_lookup(table, name);
    if (tensor == NULL) {
        return lk_fail(table->context, LK_STATUS_NOT_FOUND, "%s: there is no tensor %s", source, name);
    }
    if (tensor->unsupported != NULL) {
        return lk_fail(table->context, LK_STATUS_UNSUPPORTED, "%s: tensor %s has %s, which is not supported",
                       tensor->file, name, tensor->unsupported);
    }
    *out = tensor;
    return LK_OK;
}

void lk_tensor_table_free(lk_tensor_table *table) {
    lk_free(table->context, table->tensors);
    lk_free(table->context, table->by_name);
    *table = (lk_tensor_table){.context = table->context};
}
