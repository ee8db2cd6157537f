#include <string.h>

#include "dispatch/dispatch.h"

typedef struct storage {
    lk_variables *owner;
    lk_buffer *buffer;
} storage;

struct lk_variables {
    lk_context *context;
    lk_device *home;
    lk_arena arena;
    lk_variable **items;
    int32_t count, capacity;
};

lk_status lk_variables_create(lk_context *context, lk_device *home, lk_variables **out) {
    *out = lk_calloc(context, 1, sizeof **out);
    if (*out == NULL) {
        return lk_out_of_memory(context, sizeof **out, "variables");
    }
    (*out)->context = context;
    (*out)->home = home;
    lk_arena_init(&(*out)->arena, context);
    return LK_OK;
}

lk_buffer *lk_variable_buffer(const lk_variable *variable) {
    return ((const storage *)variable->storage)->buffer;
}

lk_device *lk_variable_home(const lk_variable *variable) {
    return ((const storage *)variable->storage)->owner->home;
}

void lk_variables_destroy(lk_variables *variables) {
    if (variables != NULL) {
        for (int32_t i = 0; i < variables->count && variables->home != NULL; i++) {
            variables->home->backend->free(variables->home, lk_variable_buffer(variables->items[i]));
        }
        lk_free(variables->context, variables->items);
        lk_arena_free(&variables->arena);
        lk_free(variables->context, variables);
    }
}

static lk_status describe(lk_variables *variables, const char *name, lk_role role, const char *purpose, lk_dtype dtype,
                          int rank, const int64_t *shape, lk_variable **out) {
    lk_context *context = variables->context;
    *out = NULL;
    if (lk_variables_find(variables, name) != NULL) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "two variables are called %s", name);
    }
    int64_t elements;
    size_t bytes;
    if (rank < 1 || rank > LK_MAX_RANK || !lk_shape_elements(shape, rank, &elements) ||
        !lk_dtype_size(dtype, elements, &bytes)) {
        return lk_fail(context, LK_STATUS_INVALID_ARGUMENT, "the shape of %s is not allowed", name);
    }
    lk_variable *variable = lk_arena_alloc(&variables->arena, sizeof *variable);
    storage *own = lk_arena_alloc(&variables->arena, sizeof *own);
    char *name_copy = lk_arena_printf(&variables->arena, "%s", name);
    char *purpose_copy = lk_arena_printf(&variables->arena, "%s", purpose);
    if (!variable || !own || !name_copy || !purpose_copy) {
        return lk_out_of_memory(context, sizeof *variable, name);
    }
    if (variables->count == variables->capacity) {
        int32_t capacity = LK_MAX(64, 2 * variables->capacity);
        lk_variable **items = lk_realloc(context, variables->items, (size_t)capacity, sizeof(lk_variable *));
        if (items == NULL) {
            return lk_out_of_memory(context, (size_t)capacity * sizeof(lk_variable *), "variables");
        }
        variables->items = items;
        variables->capacity = capacity;
    }
    own->owner = variables;
    *variable = (lk_variable){.name = name_copy,
                              .role = role,
                              .dtype = dtype,
                              .rank = rank,
                              .shape = {1, 1, 1, 1},
                              .bytes = bytes,
                              .purpose = purpose_copy,
                              .storage = own};
    memcpy(variable->shape, shape, (size_t)rank * sizeof *shape);
    *out = variable;
    return LK_OK;
}

static lk_status keep(lk_variables *variables, lk_variable *variable, lk_status status, lk_variable **out) {
    if (status != LK_OK) {
        *out = NULL;
        return lk_fail_within(variables->context, status, "%s", variable->name);
    }
    variables->items[variables->count++] = variable;
    *out = variable;
    return LK_OK;
}

lk_status lk_variables_add(lk_variables *variables, const char *name, lk_role role, const char *purpose, lk_dtype dtype,
                           int rank, const int64_t *shape, lk_variable **out) {
    lk_variable *variable;
    *out = NULL;
    LK_TRY(describe(variables, name, role, purpose, dtype, rank, shape, &variable));
    storage *own = variable->storage;
    lk_device *home = variables->home;
    return keep(variables, variable, home ? home->backend->alloc(home, variable->bytes, &own->buffer) : LK_OK, out);
}

lk_status lk_variables_wrap(lk_variables *variables, const char *name, lk_role role, const char *purpose,
                            lk_dtype dtype, int rank, const int64_t *shape, const void *host, lk_variable **out) {
    lk_variable *variable;
    *out = NULL;
    LK_TRY(describe(variables, name, role, purpose, dtype, rank, shape, &variable));
    storage *own = variable->storage;
    lk_device *home = variables->home;
    lk_status status = home ? home->backend->wrap(home, host, variable->bytes, &own->buffer) : LK_OK;
    if (status == LK_STATUS_UNSUPPORTED) {
        status = home->backend->alloc(home, variable->bytes, &own->buffer);
        if (status == LK_OK) {
            status = home->backend->upload(home, own->buffer, 0, host, variable->bytes);
            if (status != LK_OK) {
                home->backend->free(home, own->buffer);
            }
        }
    }
    return keep(variables, variable, status, out);
}

lk_variable *lk_variables_find(const lk_variables *variables, const char *name) {
    for (int32_t i = 0; i < variables->count; i++) {
        if (strcmp(variables->items[i]->name, name) == 0) {
            return variables->items[i];
        }
    }
    return NULL;
}

int32_t lk_variables_count(const lk_variables *variables) {
    return variables->count;
}

lk_variable *lk_variables_at(const lk_variables *variables, int32_t index) {
    return index >= 0 && index < variables->count ? variables->items[index] : NULL;
}

lk_status lk_variable_upload(lk_variable *variable, const void *host) {
    lk_device *home = lk_variable_home(variable);
    return home->backend->upload(home, lk_variable_buffer(variable), 0, host, variable->bytes);
}

lk_status lk_variable_download(lk_variable *variable, void *host) {
    lk_device *home = lk_variable_home(variable);
    return home->backend->download(home, lk_variable_buffer(variable), 0, host, variable->bytes);
}

void *lk_variable_map(lk_variable *variable) {
    return lk_variable_home(variable)->backend->map(lk_variable_buffer(variable));
}
