/* A checkpoint is a folder: state.safetensors with the adapter's tensors, their moments and the method's state, and
 * checkpoint.json with the step, the place in the data and what must agree for the run to go on bit for bit.
 * checkpoint.json is written last, after the tensors it belongs to, whose hash it holds: a checkpoint that was cut
 * short is not taken for whole.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/adapters/adapter_files.h"
#include "core/base/json.h"
#include "core/formats/safetensors.h"
#include "core/train/trainer.h"

enum { FORMAT_VERSION = 2, PER_TENSOR = 3 }; /* the value and its two moments */

static int32_t num_state_of(const lk_step_part *part) {
    return PER_TENSOR * lk_adapter_num_trained(part->adapter) + part->adapter->num_states;
}

static int32_t num_state(const lk_trainer *trainer) {
    int32_t count = 0;
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        count += num_state_of(&trainer->parts[i]);
    }
    return count;
}

static lk_variable *state_of(const lk_step_part *part, int32_t index) {
    int32_t tensor = index / PER_TENSOR, count = PER_TENSOR * lk_adapter_num_trained(part->adapter);
    if (index >= count) {
        return part->adapter->states[index - count];
    }
    switch (index % PER_TENSOR) {
    case 0:
        return lk_adapter_trained_at(part->adapter, tensor)->value;
    case 1:
        return part->first[tensor];
    default:
        return part->second[tensor];
    }
}

/* `part` may be NULL. */
static lk_variable *state_variable(const lk_trainer *trainer, int32_t index, int32_t *part) {
    int32_t i = 0;
    while (index >= num_state_of(&trainer->parts[i])) {
        index -= num_state_of(&trainer->parts[i++]);
    }
    if (part != NULL) {
        *part = i;
    }
    return state_of(&trainer->parts[i], index);
}

/* In the file: the variable's, after the part's number where there are several. */
static lk_status state_name(const lk_trainer *trainer, int32_t index, lk_text *name) {
    int32_t part;
    const lk_variable *variable = state_variable(trainer, index, &part);
    if (trainer->num_parts > 1) {
        lk_text_printf(name, "%d.", part);
    }
    lk_text_printf(name, "%s", variable->name);
    return lk_text_status(name);
}

void lk_train_state_free(lk_context *context, lk_train_state *state) {
    lk_free_aligned(context, state->block);
    lk_free(context, state->places);
    *state = (lk_train_state){0};
}

static lk_status allocate_state(lk_trainer *trainer, lk_train_state *out) {
    *out = (lk_train_state){0};
    for (int32_t i = 0; i < num_state(trainer); i++) {
        out->bytes += state_variable(trainer, i, NULL)->bytes;
    }
    size_t bytes = out->bytes;
    out->block = lk_alloc_aligned(trainer->context, bytes);
    out->places = lk_calloc(trainer->context, (size_t)trainer->num_parts, sizeof *out->places);
    if (out->block == NULL || out->places == NULL) {
        lk_train_state_free(trainer->context, out);
        return lk_out_of_memory(trainer->context, bytes, "a copy of the state");
    }
    return LK_OK;
}

/* Into a block that may be there already. */
static lk_status download_state(lk_trainer *trainer, lk_train_state *out) {
    if (out->block == NULL) {
        LK_TRY(allocate_state(trainer, out));
    }
    char *cursor = out->block;
    for (int32_t i = 0; i < num_state(trainer); i++) {
        lk_variable *variable = state_variable(trainer, i, NULL);
        LK_TRY(lk_variable_download(variable, cursor));
        cursor += variable->bytes;
    }
    out->step = trainer->step;
    out->micro_batches = trainer->micro_batches;
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        out->places[i] = lk_batch_iterator_state(trainer->parts[i].iterator);
    }
    return LK_OK;
}

lk_status lk_trainer_renew_copy(lk_trainer *trainer) {
    static const double share = 0.02; /* of the time */
    double now = lk_seconds();
    if (!trainer->options.keep_copy ||
        (trainer->copy.block != NULL && share * (now - trainer->copied_at) < trainer->copy_seconds)) {
        return LK_OK;
    }
    LK_TRY(download_state(trainer, &trainer->spare)); /* the copy stays whole if this fails */
    lk_train_state renewed = trainer->spare;
    trainer->spare = trainer->copy;
    trainer->copy = renewed;
    trainer->copied_at = lk_seconds();
    trainer->copy_seconds = trainer->copied_at - now;
    return LK_OK;
}

static bool is_device_failure(lk_status status) {
    return status == LK_STATUS_DEVICE || status == LK_STATUS_OUT_OF_MEMORY;
}

/* From the device, or where it has failed the copy. */
static lk_status take_state(lk_trainer *trainer, lk_train_state *out, const lk_train_state **state) {
    lk_status status = trainer->failed;
    *state = out;
    if (status == LK_OK) {
        status = download_state(trainer, out);
    }
    if (!is_device_failure(status) || trainer->copy.block == NULL) {
        return status == LK_OK || trainer->failed == LK_OK
                   ? status
                   : lk_fail(trainer->context, status, "the device has failed, and no copy of the state was kept");
    }
    *state = &trainer->copy;
    return LK_OK;
}

static lk_status list_tensors(lk_trainer *trainer, lk_arena *arena, const char *block, lk_stored_tensor *tensors) {
    for (int32_t i = 0; i < num_state(trainer); i++) {
        const lk_variable *variable = state_variable(trainer, i, NULL);
        lk_text name;
        lk_text_init(&name, trainer->context);
        lk_status status = state_name(trainer, i, &name);
        const char *kept = status == LK_OK ? lk_arena_printf(arena, "%s", name.data) : NULL;
        lk_text_free(&name);
        if (kept == NULL) {
            return lk_out_of_memory(trainer->context, 0, "a checkpoint");
        }
        tensors[i] = (lk_stored_tensor){.name = kept, .dtype = variable->dtype, .rank = variable->rank, .data = block};
        memcpy(tensors[i].shape, variable->shape, sizeof tensors[i].shape);
        block += variable->bytes;
    }
    return LK_OK;
}

static lk_status write_tensors(lk_trainer *trainer, const char *path, const char *block) {
    size_t count = (size_t)num_state(trainer);
    lk_arena arena;
    lk_arena_init(&arena, trainer->context);
    lk_stored_tensor *tensors = lk_calloc(trainer->context, count, sizeof *tensors);
    lk_status status = tensors != NULL ? list_tensors(trainer, &arena, block, tensors)
                                       : lk_out_of_memory(trainer->context, count * sizeof *tensors, "a checkpoint");
    if (status == LK_OK) {
        status = lk_safetensors_write(trainer->context, path, tensors, count, NULL, NULL, NULL);
    }
    lk_free(trainer->context, tensors);
    lk_arena_free(&arena);
    return status;
}

typedef struct setting {
    const char *name;
    json_t *value; /* owned; NULL: memory is out */
} setting;

/* JSON has no 64-bit unsigned numbers: seeds are texts. */
static json_t *seed_text(uint64_t seed) {
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, seed);
    return json_string(text);
}

static bool add_settings(json_t *to, const setting *rows, size_t count) {
    bool added = true;
    for (size_t i = 0; i < count; i++) { /* all: the values are given away */
        added = json_object_set_new(to, rows[i].name, rows[i].value) == 0 && added;
    }
    return added;
}

static bool add_run(const lk_trainer *trainer, json_t *to) {
    const lk_train_options *options = &trainer->options;
    const setting rows[] = {
        {"learning_rate", json_real(options->learning_rate)},
        {"learning_rate_ratio", json_real(options->learning_rate_ratio)},
        {"beta1", json_real(options->beta1)},
        {"beta2", json_real(options->beta2)},
        {"epsilon", json_real(options->epsilon)},
        {"weight_decay", json_real(options->weight_decay)},
        {"schedule", json_integer(options->schedule)},
        {"warmup_steps", json_integer(options->warmup_steps)},
        /* where the rate does not depend on it, a run may go on for longer than was planned */
        {"total_steps", json_integer(options->schedule == LK_SCHEDULE_CONSTANT ? 0 : options->total_steps)},
        {"gradient_accumulation_steps", json_integer(options->gradient_accumulation_steps)},
        {"max_grad_norm", json_real(options->max_grad_norm)},
        {"seed", seed_text(options->seed)},
        {"adapters", json_integer(trainer->num_parts)},
    };
    return add_settings(to, rows, LK_COUNT(rows));
}

static bool add_part(const lk_step_part *part, json_t *to) {
    const lk_data_options *data = &part->data->options;
    lk_dataset_info info = lk_dataset_get_info(part->data->dataset);
    const setting rows[] = {
        {"projection_prng_key", json_integer((json_int_t)part->adapter->config.projection_prng_key)}, /* of VeRA */
        {"dropout", json_real((double)part->adapter->dropout)},
        {"batch", json_integer(data->batch)},
        {"seq", json_integer(data->seq)},
        {"pack", json_boolean(data->pack)},
        {"shuffle", json_boolean(data->shuffle)},
        {"data_seed", seed_text(data->seed)},
        {"samples", json_integer(info.samples)},
        {"data_tokens", json_integer(info.tokens)},
    };
    return add_settings(to, rows, LK_COUNT(rows));
}

/* What must be the same when the run goes on: of the run, or of one of its parts. NULL: memory is out. */
static json_t *settings_of(const lk_trainer *trainer, const lk_step_part *part) {
    json_t *settings = json_object();
    bool added = settings != NULL && (part != NULL ? add_part(part, settings) : add_run(trainer, settings));
    if (!added) {
        json_decref(settings);
        return NULL;
    }
    return settings;
}

/* Of each part: its place in the data and its settings. */
static json_t *parts_of(const lk_trainer *trainer, const lk_train_state *state) {
    json_t *parts = json_array();
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        json_t *part =
            json_pack("{s:I, s:I, s:o}", "epoch", (json_int_t)state->places[i].epoch, "position",
                      (json_int_t)state->places[i].position, "settings", settings_of(trainer, &trainer->parts[i]));
        if (json_array_append_new(parts, part) != 0) { /* NULL, too */
            json_decref(parts);
            return NULL;
        }
    }
    return parts;
}

static void hash_text(const char *block, size_t bytes, char out[24]) {
    snprintf(out, 24, "%016" PRIx64, lk_hash64(block, bytes, 0));
}

static lk_status save(lk_trainer *trainer, const char *tensors, const char *json, const lk_train_state *state) {
    char hash[24];
    hash_text(state->block, state->bytes, hash);
    LK_TRY(write_tensors(trainer, tensors, state->block));
    json_t *root = json_pack("{s:i, s:I, s:I, s:s, s:o, s:o}", "format_version", FORMAT_VERSION, "step",
                             (json_int_t)state->step, "micro_batches", (json_int_t)state->micro_batches, "state_hash",
                             hash, "settings", settings_of(trainer, NULL), "parts", parts_of(trainer, state));
    if (root == NULL) {
        return lk_out_of_memory(trainer->context, 0, "a checkpoint");
    }
    lk_status status = lk_json_save(trainer->context, json, root);
    json_decref(root);
    return status;
}

typedef struct checkpoint_paths {
    char *tensors, *json;
} checkpoint_paths;

/* The tensors' file carries the step in its name, so that an interrupted save leaves the earlier pair whole. */
static lk_status make_paths(lk_trainer *trainer, const char *folder, int64_t step, checkpoint_paths *out) {
    char name[64];
    snprintf(name, sizeof name, "state-%lld.safetensors", (long long)step);
    out->tensors = lk_path_join(trainer->context, folder, name);
    out->json = lk_path_join(trainer->context, folder, "checkpoint.json");
    return out->tensors && out->json ? LK_OK : lk_out_of_memory(trainer->context, strlen(folder), "a path");
}

static void free_paths(lk_trainer *trainer, checkpoint_paths *paths) {
    lk_free(trainer->context, paths->tensors);
    lk_free(trainer->context, paths->json);
}

static int64_t saved_step(lk_trainer *trainer, const char *path) {
    json_t *root;
    int64_t step = -1;
    if (lk_path_is_file(path) && lk_json_load(trainer->context, path, &root) == LK_OK) {
        (void)lk_json_get_int(trainer->context, path, root, "step", false, 0, INT64_MAX, &step);
        json_decref(root);
    }
    return step;
}

lk_status lk_trainer_save_checkpoint(lk_trainer *trainer, const char *folder) {
    checkpoint_paths paths = {0}, earlier = {0};
    lk_train_state own = {0};
    const lk_train_state *state = NULL;
    lk_status status = take_state(trainer, &own, &state);
    if (status == LK_OK) {
        status = lk_make_directories(trainer->context, folder);
    }
    if (status == LK_OK) {
        status = make_paths(trainer, folder, state->step, &paths);
    }
    int64_t before = status == LK_OK ? saved_step(trainer, paths.json) : -1;
    if (status == LK_OK) {
        status = save(trainer, paths.tensors, paths.json, state);
    }
    if (status == LK_OK && before >= 0 && before != state->step &&
        make_paths(trainer, folder, before, &earlier) == LK_OK) {
        (void)remove(earlier.tensors); /* nothing refers to it any more */
    }
    lk_train_state_free(trainer->context, &own);
    free_paths(trainer, &paths);
    free_paths(trainer, &earlier);
    return status;
}

static lk_status check_settings(lk_trainer *trainer, const char *path, const json_t *saved, json_t *own) {
    if (own == NULL) {
        return lk_out_of_memory(trainer->context, 0, path);
    }
    const char *key;
    json_t *value;
    lk_status status = LK_OK;
    json_object_foreach(own, key, value) {
        json_t *found = json_object_get(saved, key);
        bool same = json_is_number(value)
                        ? json_is_number(found) && json_number_value(value) == json_number_value(found)
                        : json_equal(value, found) != 0;
        if (!same && status == LK_OK) {
            lk_text is;
            lk_text_init(&is, trainer->context);
            lk_json_print(&is, found ? found : json_null(), 0);
            lk_text_printf(&is, " there and ");
            lk_json_print(&is, value, 0);
            status = lk_fail(trainer->context, LK_STATUS_INVALID_ARGUMENT,
                             "%s: \"%s\" is %s here; a run goes on only with the same settings and data", path, key,
                             is.data ? is.data : "different");
            lk_text_free(&is);
        }
    }
    json_decref(own);
    return status;
}

static lk_status find_tensor(lk_trainer *trainer, lk_safetensors *file, int32_t index, const lk_stored_tensor **out) {
    lk_text name;
    lk_text_init(&name, trainer->context);
    lk_status status = state_name(trainer, index, &name);
    status = status == LK_OK ? lk_safetensors_find(file, name.data, out) : status;
    lk_text_free(&name);
    return status;
}

static lk_status read_tensors(lk_trainer *trainer, const char *path, char *block) {
    lk_safetensors *file;
    LK_TRY(lk_safetensors_open(trainer->context, path, &file));
    lk_status status = LK_OK;
    for (int32_t i = 0; i < num_state(trainer) && status == LK_OK; i++) {
        const lk_variable *variable = state_variable(trainer, i, NULL);
        const lk_stored_tensor *stored;
        LK_TRY_GOTO(find_tensor(trainer, file, i, &stored), done);
        LK_TRY_GOTO(lk_stored_tensor_expect_shape(trainer->context, stored, variable->rank, variable->shape), done);
        if (stored->dtype != variable->dtype) {
            status = lk_fail(trainer->context, LK_STATUS_FORMAT, "%s: %s has dtype %s, expected %s", path,
                             variable->name, lk_dtype_name(stored->dtype), lk_dtype_name(variable->dtype));
            goto done;
        }
        memcpy(block, stored->data, variable->bytes);
        block += variable->bytes;
    }
done:
    lk_safetensors_destroy(file);
    return status;
}

static lk_status upload_state(lk_trainer *trainer, const char *block) {
    for (int32_t i = 0; i < num_state(trainer); i++) {
        lk_variable *variable = state_variable(trainer, i, NULL);
        LK_TRY(lk_variable_upload(variable, block));
        block += variable->bytes;
    }
    for (int32_t i = 0; i < trainer->num_parts; i++) { /* what depends on tensors that are not trained */
        LK_TRY(lk_adapter_finish(trainer->parts[i].adapter));
    }
    return LK_OK;
}

/* The parts' settings are checked, and their places read. */
static lk_status read_parts(lk_trainer *trainer, const char *path, const json_t *root, lk_batch_state *places) {
    lk_context *context = trainer->context;
    const json_t *parts = json_object_get(root, "parts");
    if (json_array_size(parts) != (size_t)trainer->num_parts) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: \"parts\" has %zu elements, expected %d", path,
                       json_array_size(parts), trainer->num_parts);
    }
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        const json_t *part = json_array_get(parts, (size_t)i);
        int64_t epoch = 0;
        json_t *settings;
        LK_TRY(lk_json_get_int(context, path, part, "epoch", true, 0, INT64_MAX, &epoch));
        LK_TRY(lk_json_get_int(context, path, part, "position", true, 0,
                               lk_dataset_size(trainer->parts[i].data->dataset) - 1, &places[i].position));
        LK_TRY(lk_json_get_object(context, path, part, "settings", true, &settings));
        LK_TRY(check_settings(trainer, path, settings, settings_of(trainer, &trainer->parts[i])));
        places[i].epoch = (uint64_t)epoch;
    }
    return LK_OK;
}

/* Everything is checked before anything changes. */
static lk_status restore(lk_trainer *trainer, const char *path, const char *tensors, const char *expected,
                         const lk_train_state *state) {
    lk_context *context = trainer->context;
    char found[24];
    LK_TRY(read_tensors(trainer, tensors, state->block));
    hash_text(state->block, state->bytes, found);
    if (strcmp(found, expected) != 0) {
        return lk_fail(context, LK_STATUS_FORMAT, "%s: its content does not belong to %s (hash %s, expected %s)",
                       tensors, path, found, expected);
    }
    for (int32_t i = 0; i < trainer->num_parts; i++) {
        LK_TRY(lk_batch_iterator_restore(trainer->parts[i].iterator, &state->places[i]));
    }
    LK_TRY(upload_state(trainer, state->block));
    trainer->step = state->step;
    trainer->micro_batches = state->micro_batches;
    lk_train_state_free(context, &trainer->copy); /* of another run */
    return LK_OK;
}

static lk_status load(lk_trainer *trainer, const char *folder, const char *path, const json_t *root) {
    int64_t version = 0;
    const char *hash = "";
    json_t *settings;
    lk_train_state state;
    checkpoint_paths paths = {0};
    lk_context *context = trainer->context;
    LK_TRY(lk_json_get_int(context, path, root, "format_version", true, FORMAT_VERSION, FORMAT_VERSION, &version));
    LK_TRY(lk_json_get_string(context, path, root, "state_hash", true, &hash));
    LK_TRY(lk_json_get_object(context, path, root, "settings", true, &settings));
    LK_TRY(check_settings(trainer, path, settings, settings_of(trainer, NULL)));
    LK_TRY(allocate_state(trainer, &state));
    lk_status status = read_parts(trainer, path, root, state.places);
    LK_TRY_GOTO(status, done);
    LK_TRY_GOTO(lk_json_get_int(context, path, root, "step", true, 0, INT64_MAX, &state.step), done);
    LK_TRY_GOTO(lk_json_get_int(context, path, root, "micro_batches", true, 0, INT64_MAX, &state.micro_batches), done);
    LK_TRY_GOTO(make_paths(trainer, folder, state.step, &paths), done);
    LK_TRY_GOTO(restore(trainer, path, paths.tensors, hash, &state), done);
done:
    free_paths(trainer, &paths);
    lk_train_state_free(context, &state);
    return status;
}

lk_status lk_trainer_load_checkpoint(lk_trainer *trainer, const char *folder) {
    char *path = lk_path_join(trainer->context, folder, "checkpoint.json");
    if (path == NULL) {
        return lk_out_of_memory(trainer->context, strlen(folder), "a path");
    }
    json_t *root;
    lk_status status = lk_json_load(trainer->context, path, &root);
    if (status == LK_OK) {
        status = load(trainer, folder, path, root);
        json_decref(root);
    }
    lk_free(trainer->context, path);
    return status;
}
