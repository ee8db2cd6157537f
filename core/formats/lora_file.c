#include "core/formats/lora_file.h"

#include <stdlib.h>
#include <string.h>

#include "core/formats/dequantize.h"

void lk_lora_file_init(lk_lora_file *file, lk_context *context) {
    *file = (lk_lora_file){.context = context};
    lk_arena_init(&file->arena, context);
}

void lk_lora_file_free(lk_lora_file *file) {
    lk_free(file->context, file->modules);
    lk_arena_free(&file->arena);
    *file = (lk_lora_file){.context = file->context};
    lk_arena_init(&file->arena, file->context);
}

lk_status lk_lora_file_module(lk_lora_file *file, const char *path, lk_lora_module **out) {
    for (size_t i = file->count; i-- > 0;) { /* the one before is likely */
        if (strcmp(file->modules[i].path, path) == 0) {
            *out = &file->modules[i];
            return LK_OK;
        }
    }
    if (file->count == file->capacity) {
        size_t capacity = LK_MAX((size_t)64, 2 * file->capacity);
        lk_lora_module *grown = lk_realloc(file->context, file->modules, capacity, sizeof *grown);
        if (grown == NULL) {
            return lk_out_of_memory(file->context, capacity * sizeof *grown, "an adapter");
        }
        file->modules = grown;
        file->capacity = capacity;
    }
    const char *copy = lk_arena_printf(&file->arena, "%s", path);
    if (copy == NULL) {
        return lk_out_of_memory(file->context, strlen(path), "an adapter");
    }
    *out = &file->modules[file->count++];
    **out = (lk_lora_module){.path = copy, .scale = 1.0};
    return LK_OK;
}

lk_status lk_lora_file_alloc(lk_lora_file *file, int64_t rows, int64_t columns, float **out) {
    const int64_t shape[] = {rows, columns};
    int64_t elements;
    size_t bytes;
    if (!lk_shape_elements(shape, 2, &elements) || !lk_mul_size((size_t)elements, sizeof **out, &bytes)) {
        return lk_fail(file->context, LK_STATUS_INVALID_ARGUMENT, "a matrix of %lld by %lld is too large",
                       (long long)rows, (long long)columns);
    }
    *out = lk_arena_alloc(&file->arena, LK_MAX(bytes, (size_t)1));
    return *out != NULL ? LK_OK : lk_out_of_memory(file->context, bytes, "an adapter");
}

lk_status lk_lora_file_read(lk_lora_file *file, const lk_stored_tensor *stored, bool transposed, int64_t *rows,
                            int64_t *columns, float **out) {
    lk_context *context = file->context;
    if (stored->unsupported != NULL || !lk_can_dequantize(stored->dtype)) {
        return lk_fail(context, LK_STATUS_UNSUPPORTED, "%s: tensor %s: %s cannot be read", stored->file, stored->name,
                       stored->unsupported ? stored->unsupported : lk_dtype_name(stored->dtype));
    }
    const int64_t one = stored->rank == 1 ? 1 : 0;
    int64_t first = stored->rank > 0 ? stored->shape[0] : 0, second = one ? 1 : stored->shape[1];
    int64_t found[] = {transposed ? second : first, transposed ? first : second};
    bool fits = stored->rank >= 1 && stored->rank <= 2 && found[0] > 0 && found[1] > 0 &&
                (*rows < 0 || *rows == found[0]) && (*columns < 0 || *columns == found[1]);
    if (!fits) {
        char shape[LK_SHAPE_TEXT];
        return lk_fail(context, LK_STATUS_FORMAT, "%s: tensor %s has the shape %s, which does not fit the others",
                       stored->file, stored->name, lk_shape_format(stored->shape, stored->rank, shape, sizeof shape));
    }
    *rows = found[0];
    *columns = found[1];
    float *values;
    LK_TRY(lk_lora_file_alloc(file, first, second, &values));
    LK_TRY(lk_convert(context, stored->dtype, stored->data, LK_DTYPE_F32, values, first * second));
    *out = values;
    if (!transposed) {
        return LK_OK;
    }
    LK_TRY(lk_lora_file_alloc(file, *rows, *columns, out));
    for (int64_t r = 0; r < *rows; r++) {
        for (int64_t c = 0; c < *columns; c++) {
            (*out)[r * *columns + c] = values[c * *rows + r];
        }
    }
    return LK_OK;
}

/* "layers.10" behind "layers.9". */
static int compare_paths(const void *left, const void *right) {
    const char *a = ((const lk_lora_module *)left)->path, *b = ((const lk_lora_module *)right)->path;
    while (*a != '\0' && *b != '\0') {
        size_t digits_a = strspn(a, "0123456789"), digits_b = strspn(b, "0123456789");
        if (digits_a > 0 && digits_b > 0 && digits_a != digits_b) {
            return digits_a < digits_b ? -1 : 1;
        }
        if (*a != *b) {
            break;
        }
        a++;
        b++;
    }
    return (unsigned char)*a - (unsigned char)*b;
}

lk_status lk_lora_file_finish(lk_lora_file *file, const char *source) {
    if (file->count == 0) {
        return lk_fail(file->context, LK_STATUS_FORMAT, "%s: no pair of LoRA matrices is in it", source);
    }
    for (size_t i = 0; i < file->count; i++) {
        const lk_lora_module *module = &file->modules[i];
        if (module->a == NULL || module->b == NULL) {
            return lk_fail(file->context, LK_STATUS_FORMAT, "%s: %s has no matrix %s", source, module->path,
                           module->a == NULL ? "A" : "B");
        }
    }
    qsort(file->modules, file->count, sizeof *file->modules, compare_paths);
    return LK_OK;
}

/* ---- what most have ---- */

int64_t lk_lora_file_common_rank(const lk_lora_file *file) {
    size_t most = 0;
    int64_t best = 0;
    for (size_t i = 0; i < file->count; i++) {
        size_t same = 0;
        for (size_t j = 0; j < file->count; j++) {
            same += file->modules[j].rank == file->modules[i].rank;
        }
        if (same > most) {
            most = same;
            best = file->modules[i].rank;
        }
    }
    return best;
}

double lk_lora_file_common_scale(const lk_lora_file *file) {
    size_t most = 0;
    double best = 1.0;
    for (size_t i = 0; i < file->count; i++) {
        size_t same = 0;
        for (size_t j = 0; j < file->count; j++) {
            same += file->modules[j].scale == file->modules[i].scale;
        }
        if (same > most) {
            most = same;
            best = file->modules[i].scale;
        }
    }
    return best;
}

bool lk_lora_file_has_magnitudes(const lk_lora_file *file) {
    bool any = false;
    for (size_t i = 0; i < file->count; i++) {
        any = any || file->modules[i].magnitude != NULL;
    }
    return any;
}
