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

enum { PER_TENSOR = 3 }; /* the value and its two moments */

static lk_variable *state_variable(const lk_trainer *trainer, int32_t index) {
    int32_t tensor = index / PER_TENSOR, count = PER_TENSOR * lk_adapter_num_trained(trainer->adapter);
    if (index >= count) {
        return trainer->adapter->states[index - count];
    }
    switch (index % PER_TENSOR) {
    case 0:
        return lk_adapter_trained_at(trainer->adapter, tensor)->value;
    case 1:
        return trainer->first[tensor];
    default:
        return trainer->second[tensor];
    }
}

static int32_t num_state(const lk_trainer *trainer) {
    return PER_TENSOR * lk_adapter_num_trained(trainer->adapter) + trainer->adapter->num_states;
}

void lk_train_state_free(lk_context *context, lk_train_state *state) {
    lk_free_aligned(context, state->block);
    *state = (lk_train_state){0};
}

/* Into a block that may be there already. */
static lk_status download_state(lk_trainer *trainer, lk_train_state *out) {
    if (out->block == NULL) {
        for (int32_t i = 0; i < num_state(trainer); i++) {
            out->bytes += state_variable(trainer, i)->bytes;
        }
        out->block = lk_alloc_aligned(trainer->context, out->bytes);
        if (out->block == NULL) {
            return lk_out_of_memory(trainer->context, out->bytes, "a copy of the state");
        }
    }
    char *cursor = out->block;
    for (int32_t i = 0; i < num_state(trainer); i++) {
        LK_TRY(lk_variable_download(state_variable(trainer, i), cursor));
        cursor += state_variable(trainer, i)->bytes;
    }
    out->step = trainer->step;
    out->micro_batches = trainer->micro_batches;
    out->place = lk_batch_iterator_state(trainer->iterator);
    return LK_OK;
}

lk_status lk_trainer_renew_copy(lk_trainer *trainer) {
    static const double share = 0.02; /* of the time */
    double now = lk_seconds();
    if (!trainer->options.keep_copy || trainer->num_parts > 0 || /* several adapters: there are no checkpoints of it */
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

static lk_status write_tensors(lk_trainer *trainer, const char *path, const char *block) {
    int32_t count = num_state(trainer);
    lk_stored_tensor *tensors = lk_calloc(trainer->context, (size_t)count, sizeof *tensors);
    if (tensors == NULL) {
        return lk_out_of_memory(trainer->context, (size_t)count * sizeof *tensors, "a checkpoint");
    }
    for (int32_t i = 0; i < count; i++) {
        const lk_variable *variable = state_variable(trainer, i);
        tensors[i] =
            (lk_stored_tensor){.name = variable->name, .dtype = variable->dtype, .rank = variable->rank, .data = block};
        memcpy(tensors[i].shape, variable->shape, sizeof tensors[i].shape);
        block += variable->bytes;
    }
    lk_status status = lk_safetensors_write(trainer->context, path, tensors, (size_t)count, NULL, NULL, NULL);
    lk_free(trainer->context, tensors);
    return status;
}

/* What must be the same when the run goes on, or NULL when memory is out. JSON has no 64-bit unsigned numbers: seeds
 * are texts. */
static json_t *settings_of(const lk_trainer *trainer) {
    const lk_train_options *options = &trainer->options;
    const lk_data_options *data = &trainer->data->options;
    char seed[24], data_seed[24];
    snprintf(seed, sizeof seed, "%" PRIu64, options->seed);
    snprintf(data_seed, sizeof data_seed, "%" PRIu64, data->seed);
    lk_dataset_info info = lk_dataset_get_info(trainer->data->dataset);
    json_t *settings = json_object();
    const struct {
        const char *name;
        json_t *value;
    } rows[] = {
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
        {"seed", json_string(seed)},
        {"projection_prng_key", json_integer((json_int_t)trainer->adapter->config.projection_prng_key)}, /* of VeRA */
        {"dropout", json_real((double)trainer->adapter->dropout)},
        {"batch", json_integer(data->batch)},
        {"seq", json_integer(data->seq)},
        {"pack", json_boolean(data->pack)},
        {"shuffle", json_boolean(data->shuffle)},
        {"data_seed", json_string(data_seed)},
        {"samples", json_integer(info.samples)},
        {"data_tokens", json_integer(info.tokens)},
    };
    for (size_t i = 0; i < LK_COUNT(rows); i++) {
        if (json_object_set_new(settings, rows[i].name, rows[i].value) != 0) { /* NULL too: out of memory */
            json_decref(settings);
            settings = NULL;
        }
    }
    return settings;
}

static void hash_text(const char *block, size_t bytes, char out[24]) {
    snprintf(out, 24, "%016" PRIx64, lk_hash64(block, bytes, 0));
}

static lk_status save(lk_trainer *trainer, const char *tensors, const char *json, const lk_train_state *state) {
    char hash[24];
    hash_text(state->block, state->bytes, hash);
    LK_TRY(write_tensors(trainer, tensors, state->block));
    json_t *root =
        json_pack("{s:i, s:I, s:I, s:I, s:I, s:s, s:o}", "format_version", 1, "step", (json_int_t)state->step,
                  "micro_batches", (json_int_t)state->micro_batches, "epoch", (json_int_t)state->place.epoch,
                  "position", (json_int_t)state->place.position, "state_hash", hash, "settings", settings_of(trainer));
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
    if (trainer->num_parts > 0) {
        return lk_fail(trainer->context, LK_STATUS_UNSUPPORTED, "%s: there are no checkpoints of mixed training",
                       folder);
    }
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

static lk_status check_settings(lk_trainer *trainer, const char *path, const json_t *saved) {
    json_t *own = settings_of(trainer);
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

static lk_status read_tensors(lk_trainer *trainer, const char *path, char *block) {
    lk_safetensors *file;
    LK_TRY(lk_safetensors_open(trainer->context, path, &file));
    lk_status status = LK_OK;
    for (int32_t i = 0; i < num_state(trainer) && status == LK_OK; i++) {
        const lk_variable *variable = state_variable(trainer, i);
        const lk_stored_tensor *stored;
        LK_TRY_GOTO(lk_safetensors_find(file, variable->name, &stored), done);
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
        LK_TRY(lk_variable_upload(state_variable(trainer, i), block));
        block += state_variable(trainer, i)->bytes;
    }
    return lk_adapter_finish(trainer->adapter); /* what depends on tensors that are not trained */
}

static lk_status load(lk_trainer *trainer, const char *folder, const char *path, const json_t *root) {
    int64_t version = 0, step = 0, micro_batches = 0, epoch = 0, position = 0;
    const char *hash = "";
    json_t *settings;
    lk_context *context = trainer->context;
    LK_TRY(lk_json_get_int(context, path, root, "format_version", true, 1, 1, &version));
    LK_TRY(lk_json_get_int(context, path, root, "step", true, 0, INT64_MAX, &step));
    LK_TRY(lk_json_get_int(context, path, root, "micro_batches", true, 0, INT64_MAX, &micro_batches));
    LK_TRY(lk_json_get_int(context, path, root, "epoch", true, 0, INT64_MAX, &epoch));
    LK_TRY(lk_json_get_int(context, path, root, "position", true, 0, INT64_MAX, &position));
    LK_TRY(lk_json_get_string(context, path, root, "state_hash", true, &hash));
    LK_TRY(lk_json_get_object(context, path, root, "settings", true, &settings));
    LK_TRY(check_settings(trainer, path, settings));
    size_t bytes = 0;
    for (int32_t i = 0; i < num_state(trainer); i++) {
        bytes += state_variable(trainer, i)->bytes;
    }
    checkpoint_paths paths = {0};
    char *block = lk_alloc_aligned(context, bytes);
    lk_status status = block ? make_paths(trainer, folder, step, &paths) : lk_out_of_memory(context, bytes, folder);
    if (status == LK_OK) {
        status = read_tensors(trainer, paths.tensors, block);
    }
    char found[24];
    if (status == LK_OK) {
        hash_text(block, bytes, found);
        if (strcmp(found, hash) != 0) {
            status = lk_fail(context, LK_STATUS_FORMAT, "%s: its content does not belong to %s (hash %s, expected %s)",
                             paths.tensors, path, found, hash);
        }
    }
    const lk_batch_state place = {(uint64_t)epoch, position};
    if (status == LK_OK) { /* checked in full: only now does anything change */
        status = lk_batch_iterator_restore(trainer->iterator, &place);
    }
    if (status == LK_OK) {
        status = upload_state(trainer, block);
    }
    if (status == LK_OK) {
        trainer->step = step;
        trainer->micro_batches = micro_batches;
        lk_train_state_free(context, &trainer->copy); /* of another run */
    }
    lk_free_aligned(context, block);
    free_paths(trainer, &paths);
    return status;
}

lk_status lk_trainer_load_checkpoint(lk_trainer *trainer, const char *folder) {
    if (trainer->num_parts > 0) {
        return lk_fail(trainer->context, LK_STATUS_UNSUPPORTED, "%s: there are no checkpoints of mixed training",
                       folder);
    }
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
