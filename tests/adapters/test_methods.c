/* What holds for every method: it trains, merges to what it computes, and comes back from its file as it was. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/adapters/rank_allocator.h"
#include "core/formats/safetensors.h"
#include "tests/adapters/setup.h"
#include "tests/common/runner.h"

static const char *method_at(int index) {
    return lk_adapter_methods()[index];
}

static double difference(const float *a, const float *b, size_t count) {
    double worst = 0.0;
    for (size_t i = 0; i < count; i++) {
        double distance = fabs((double)a[i] - (double)b[i]);
        worst = isfinite(distance) ? fmax(worst, distance) : INFINITY;
    }
    return worst;
}

/* A new adapter does nothing; changed, it does something; merged, the same; the adapter stays as it is, so merging once
 * more gives the same bytes. */
START_TEST(test_merge) {
    setup self;
    size_t count;
    setup_open(&self, "cpu");
    setup_adapt(&self, method_at(_i), 0.1); /* dropout is for training only */
    float *plain = setup_logits(&self, self.model, NULL, &count);
    double start = setup_distance(&self, self.model, self.adapter, plain);
    setup_disturb(&self);
    float *adapted = setup_logits(&self, self.model, self.adapter, &count);
    ck_assert_double_gt(difference(plain, adapted, count), 0.05);
    uint64_t hashes[2];
    for (int i = 0; i < 2; i++) {
        SUCCEEDS(&self, lk_merge(self.model, self.adapter, LK_DTYPE_F32, setup_path(&self, "merged"), NULL, NULL));
        lk_mapping file;
        SUCCEEDS(&self, lk_mapping_open(self.context, setup_path(&self, "merged/model.safetensors"), &file));
        hashes[i] = lk_hash64(file.data, file.size, 0);
        lk_mapping_close(&file);
    }
    ck_assert_uint_eq(hashes[0], hashes[1]);
    lk_model *merged;
    SUCCEEDS(&self, lk_model_load(self.session, setup_path(&self, "merged"), NULL, &merged));
    double worst = setup_distance(&self, merged, NULL, adapted);
    printf("%-10s at the start %.1e  merged %.1e\n", method_at(_i), start, worst);
    ck_assert_double_lt(start, 1e-4);
    ck_assert_double_lt(worst, 1e-4);
    ck_assert_double_eq(setup_distance(&self, self.model, self.adapter, adapted), 0.0);
    ck_assert_double_eq(setup_distance(&self, self.model, NULL, plain), 0.0);
    lk_model_destroy(merged);
    free(plain);
    free(adapted);
    setup_close(&self);
}
END_TEST

/* A tensor that is not finite is not merged, and what was written before stays. */
START_TEST(test_merge_refuses_nan) {
    setup self;
    setup_open(&self, "cpu");
    setup_adapt(&self, method_at(_i), 0.0);
    setup_disturb(&self);
    SUCCEEDS(&self, lk_merge(self.model, self.adapter, LK_DTYPE_F32, setup_path(&self, "merged"), NULL, NULL));
    lk_variable *variable = lk_adapter_trained_at(self.adapter, 0)->value;
    float *values = malloc(variable->bytes);
    SUCCEEDS(&self, lk_variable_download(variable, values));
    values[1] = NAN;
    SUCCEEDS(&self, lk_variable_upload(variable, values));
    free(values);
    ck_assert_int_eq(lk_merge(self.model, self.adapter, LK_DTYPE_F32, setup_path(&self, "merged"), NULL, NULL),
                     LK_STATUS_NUMERIC);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "model.layers.0"));
    lk_model *merged;
    SUCCEEDS(&self, lk_model_load(self.session, setup_path(&self, "merged"), NULL, &merged));
    lk_model_destroy(merged);
    setup_close(&self);
}
END_TEST

static uint64_t hash_of(setup *self, lk_adapter *adapter) {
    uint64_t hash = 0;
    for (int32_t i = 0; i < lk_adapter_num_tensors(adapter); i++) {
        const lk_adapter_tensor *tensor = lk_adapter_tensor_at(adapter, i);
        void *bytes = malloc(tensor->value->bytes);
        SUCCEEDS(self, lk_variable_download(tensor->value, bytes));
        hash = lk_hash64(tensor->name, strlen(tensor->name), lk_hash64(bytes, tensor->value->bytes, hash));
        free(bytes);
    }
    return hash;
}

START_TEST(test_round_trip) {
    setup self;
    size_t count;
    setup_open(&self, "cpu");
    setup_adapt(&self, method_at(_i), 0.1);
    setup_disturb(&self);
    SUCCEEDS(&self, lk_adapter_save(self.adapter, setup_path(&self, "saved")));
    lk_adapter *loaded;
    SUCCEEDS(&self, lk_adapter_load(self.model, setup_path(&self, "saved"), &loaded));
    lk_adapter_info before, after;
    lk_adapter_get_info(self.adapter, &before);
    lk_adapter_get_info(loaded, &after);
    ck_assert_str_eq(before.method, method_at(_i));
    ck_assert_str_eq(after.method, before.method);
    ck_assert_int_eq(after.num_parameters, before.num_parameters);
    ck_assert_int_eq(after.num_modules, before.num_modules);
    ck_assert_uint_eq(hash_of(&self, loaded), hash_of(&self, self.adapter));
    float *expected = setup_logits(&self, self.model, self.adapter, &count);
    ck_assert_double_eq(setup_distance(&self, self.model, loaded, expected), 0.0);
    free(expected);
    lk_adapter_destroy(loaded);
    setup_close(&self);
}
END_TEST

/* ---- files that do not fit ---- */

typedef enum damage { LACKS, HAS_MORE, WRONG_SHAPE, NUM_DAMAGES } damage;

/* Rewrites the saved tensors with one of them left out, added or flattened; returns that one's name. */
static const char *damage_file(setup *self, damage kind) {
    static char name[256];
    lk_safetensors *file;
    SUCCEEDS(self, lk_safetensors_open(self->context, setup_path(self, "saved/adapter_model.safetensors"), &file));
    size_t count = lk_safetensors_count(file), kept = 0;
    lk_stored_tensor *tensors = calloc(count + 1, sizeof *tensors);
    for (size_t i = 0; i < count; i++) {
        tensors[kept] = *lk_safetensors_at(file, i);
        if (i == 1) {
            snprintf(name, sizeof name, "%s", tensors[kept].name);
            if (kind == LACKS) {
                continue;
            }
            if (kind == WRONG_SHAPE) {
                tensors[kept].rank = 3;
                tensors[kept].shape[2] = 1;
            }
        }
        kept++;
    }
    if (kind == HAS_MORE) {
        tensors[kept] = tensors[0];
        snprintf(name, sizeof name, "%s", "base_model.model.model.layers.9.mlp.up_proj.lora_A.weight");
        tensors[kept++].name = name;
    }
    SUCCEEDS(self, lk_safetensors_write(self->context, setup_path(self, "damaged.safetensors"), tensors, kept, NULL,
                                        NULL, NULL));
    free(tensors);
    lk_safetensors_destroy(file);
    ck_assert_int_eq(
        rename(setup_path(self, "damaged.safetensors"), setup_path(self, "saved/adapter_model.safetensors")), 0);
    return name;
}

START_TEST(test_a_file_that_does_not_fit_is_named) {
    for (damage kind = LACKS; kind < NUM_DAMAGES; kind++) {
        setup self;
        setup_open(&self, "cpu");
        setup_adapt(&self, method_at(_i), 0.0);
        SUCCEEDS(&self, lk_adapter_save(self.adapter, setup_path(&self, "saved")));
        const char *name = damage_file(&self, kind);
        lk_adapter *loaded;
        ck_assert_int_ne(lk_adapter_load(self.model, setup_path(&self, "saved"), &loaded), LK_OK);
        ck_assert_ptr_null(loaded);
        ck_assert_msg(strstr(lk_error_message(self.context), name) != NULL, "%s is not in \"%s\"", name,
                      lk_error_message(self.context));
        setup_close(&self);
    }
}
END_TEST

/* ---- training ---- */

static lk_trainer *start_training_with(setup *self, lk_data **data, lk_recompute recompute) {
    lk_data_options options;
    lk_data_options_init(&options);
    options.batch = 2;
    options.seq = 48;
    options.shuffle = false;
    SUCCEEDS(self, lk_data_load(self->model, LK_TEST_DATA "/golden/qwen2-all-linear/batches.ids", &options, data));
    lk_train_options train;
    lk_train_options_init(&train);
    train.learning_rate = 3e-3;
    train.total_steps = 8;
    train.recompute = recompute;
    lk_trainer *trainer;
    SUCCEEDS(self, lk_trainer_create(self->model, self->adapter, *data, &train, &trainer));
    return trainer;
}

static lk_trainer *start_training(setup *self, lk_data **data) {
    return start_training_with(self, data, LK_RECOMPUTE_NONE);
}

static double loss_over(setup *self, lk_data *data) {
    lk_evaluator *evaluator;
    lk_eval_report report;
    SUCCEEDS(self, lk_evaluator_create(self->model, self->adapter, data, &evaluator));
    SUCCEEDS(self, lk_evaluator_run(evaluator, NULL, NULL, &report));
    lk_evaluator_destroy(evaluator);
    return report.loss;
}

/* With dropout, on the accelerated device and on the specification: the same losses, and the model learns. */
START_TEST(test_training) {
    static const char *const devices[] = {NULL, "reference"};
    double losses[2][8], before = 0.0, after = 0.0;
    for (int device = 0; device < 2; device++) {
        setup self;
        lk_data *data;
        setup_open(&self, devices[device]);
        setup_adapt(&self, method_at(_i), 0.1);
        lk_trainer *trainer = start_training(&self, &data);
        before = device == 0 ? loss_over(&self, data) : before;
        for (int step = 0; step < 8; step++) {
            lk_step_report report;
            SUCCEEDS(&self, lk_trainer_step(trainer, &report));
            losses[device][step] = report.loss;
        }
        after = device == 0 ? loss_over(&self, data) : after;
        lk_trainer_destroy(trainer);
        lk_data_destroy(data);
        setup_close(&self);
    }
    printf("%-10s loss %.4f -> %.4f\n", method_at(_i), before, after);
    ck_assert_double_lt(after, before - 0.005);
    for (int step = 0; step < 8; step++) {
        ck_assert_double_eq_tol(losses[0][step], losses[1][step], 1e-4);
    }
}
END_TEST

/* Gradient checkpointing changes no bit, whatever the method, dropout included. */
START_TEST(test_recomputation_changes_nothing) {
    double losses[LK_RECOMPUTE_LAYERS + 1][3];
    for (int level = LK_RECOMPUTE_NONE; level <= LK_RECOMPUTE_LAYERS; level++) {
        setup self;
        lk_data *data;
        setup_open(&self, "cpu");
        setup_adapt(&self, method_at(_i), 0.1);
        lk_trainer *trainer = start_training_with(&self, &data, (lk_recompute)level);
        for (int step = 0; step < 3; step++) {
            lk_step_report report;
            SUCCEEDS(&self, lk_trainer_step(trainer, &report));
            losses[level][step] = report.loss;
        }
        lk_trainer_destroy(trainer);
        lk_data_destroy(data);
        setup_close(&self);
        ck_assert_mem_eq(losses[level], losses[0], sizeof losses[0]);
    }
}
END_TEST

/* PEFT disables and deletes adapters within a model; here a model has none, and each call is given one, or none. One
 * that is gone leaves the others as they were, whether it was used last or not. */
START_TEST(test_adapters_stand_alone) {
    setup self;
    size_t count;
    lk_adapter *kept, *used, *unused;
    setup_open(&self, "cpu");
    float *plain = setup_logits(&self, self.model, NULL, &count);
    lk_adapter **made[] = {&kept, &used, &unused};
    for (size_t i = 0; i < LK_COUNT(made); i++) {
        self.seed++;
        setup_adapt(&self, method_at(_i), 0.0);
        setup_disturb(&self);
        *made[i] = self.adapter;
    }
    self.adapter = NULL;
    float *expected = setup_logits(&self, self.model, kept, &count);
    ck_assert_double_gt(setup_distance(&self, self.model, used, plain), 0.0);
    lk_adapter_destroy(used);
    ck_assert_double_eq(setup_distance(&self, self.model, kept, expected), 0.0);
    lk_adapter_destroy(unused);
    ck_assert_double_eq(setup_distance(&self, self.model, kept, expected), 0.0);
    ck_assert_double_eq(setup_distance(&self, self.model, NULL, plain), 0.0);
    lk_adapter_destroy(kept);
    ck_assert_double_eq(setup_distance(&self, self.model, NULL, plain), 0.0);
    ck_assert_int_ne(lk_adapter_load(self.model, setup_path(&self, "unknown"), &kept), LK_OK);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "unknown"));
    free(plain);
    free(expected);
    setup_close(&self);
}
END_TEST

/* A run that goes on from a checkpoint ends in the same bits as one that was not interrupted. The checkpoint holds what
 * is not trained, too: the adapter that goes on began with other random numbers, but that VeRA's pair is a seed. */
START_TEST(test_resuming) {
    setup self;
    lk_data *data;
    lk_step_report report;
    setup_open(&self, NULL);
    setup_adapt(&self, method_at(_i), 0.1);
    lk_trainer *trainer = start_training(&self, &data);
    uint64_t hashes[2];
    for (int i = 0; i < 8; i++) {
        SUCCEEDS(&self, lk_trainer_step(trainer, &report));
        if (i == 2) {
            SUCCEEDS(&self, lk_trainer_save_checkpoint(trainer, setup_path(&self, "checkpoint")));
        }
    }
    double loss = report.loss;
    hashes[0] = hash_of(&self, self.adapter);
    lk_trainer_destroy(trainer);
    lk_adapter_destroy(self.adapter);
    lk_data_destroy(data);
    self.seed += strcmp(method_at(_i), "vera") != 0;
    setup_adapt(&self, method_at(_i), 0.1);
    trainer = start_training(&self, &data);
    SUCCEEDS(&self, lk_trainer_load_checkpoint(trainer, setup_path(&self, "checkpoint")));
    for (int i = 3; i < 8; i++) {
        SUCCEEDS(&self, lk_trainer_step(trainer, &report));
    }
    hashes[1] = hash_of(&self, self.adapter);
    ck_assert_double_eq(report.loss, loss);
    ck_assert_uint_eq(hashes[0], hashes[1]);
    lk_trainer_destroy(trainer);
    lk_data_destroy(data);
    setup_close(&self);
}
END_TEST

/* AdaLoRA's budget over a run of 8 steps from 6 ranks a layer to 4; what is stored is what is left, and comes back. */
START_TEST(test_adalora_gives_up_ranks) {
    setup self;
    lk_data *data;
    size_t count;
    setup_open(&self, "cpu");
    setup_adapt(&self, "adalora", 0.0);
    lk_trainer *trainer = start_training(&self, &data);
    int64_t layers = self.adapter->num_sites, before = 6 * layers;
    for (int64_t step = 0; step < 8; step++) {
        bool allocates;
        int64_t budget = lk_rank_budget(&self.adapter->config, 6 * layers, layers, step, &allocates);
        ck_assert(allocates == (step > 0) && budget <= before && budget >= 4 * layers);
        before = budget;
        lk_step_report report;
        SUCCEEDS(&self, lk_trainer_step(trainer, &report));
    }
    ck_assert_int_eq(before, 4 * layers);
    SUCCEEDS(&self, lk_adapter_save(self.adapter, setup_path(&self, "saved")));
    lk_adapter *loaded;
    SUCCEEDS(&self, lk_adapter_load(self.model, setup_path(&self, "saved"), &loaded));
    int64_t ranks = 0;
    for (int32_t i = 0; i < loaded->num_sites; i++) {
        ranks += loaded->sites[i].rank;
    }
    ck_assert_int_eq(ranks, 4 * layers);
    float *expected = setup_logits(&self, self.model, self.adapter, &count);
    ck_assert_double_lt(setup_distance(&self, self.model, loaded, expected), 1e-5);
    free(expected);
    /* once more: ranks that were given up before stay so */
    SUCCEEDS(&self, lk_adapter_save(loaded, setup_path(&self, "again")));
    lk_adapter *again;
    SUCCEEDS(&self, lk_adapter_load(self.model, setup_path(&self, "again"), &again));
    ck_assert_uint_eq(hash_of(&self, again), hash_of(&self, loaded));
    lk_adapter_destroy(again);
    lk_adapter_destroy(loaded);
    lk_trainer_destroy(trainer);
    lk_data_destroy(data);
    setup_close(&self);
}
END_TEST

/* From one rank, by one every second step where the threshold lets it; what is stored has as many, at the same scale.
 */
START_TEST(test_dynamic_lora_grows) {
    static const struct {
        double threshold;
        int32_t rank;
    } cases[] = {{0.0, 3}, {1.5, 1}};
    for (size_t c = 0; c < LK_COUNT(cases); c++) {
        setup self;
        lk_data *data;
        size_t count;
        lk_adapter_options options;
        lk_adapter_options_init(&options);
        options.method = "dynamic-lora";
        options.rank = 4;
        options.delta_t = 2;
        options.growth_threshold = cases[c].threshold;
        setup_open(&self, "cpu");
        SUCCEEDS(&self, lk_adapter_create(self.model, &options, &self.adapter));
        lk_trainer *trainer = start_training(&self, &data);
        for (int64_t step = 0; step < 5; step++) {
            lk_step_report report;
            SUCCEEDS(&self, lk_trainer_step(trainer, &report));
        }
        SUCCEEDS(&self, lk_adapter_save(self.adapter, setup_path(&self, "saved")));
        lk_adapter *loaded;
        SUCCEEDS(&self, lk_adapter_load(self.model, setup_path(&self, "saved"), &loaded));
        ck_assert_int_eq(loaded->num_sites, self.adapter->num_sites);
        for (int32_t i = 0; i < loaded->num_sites; i++) {
            ck_assert_int_eq(loaded->sites[i].rank, cases[c].rank);
        }
        float *expected = setup_logits(&self, self.model, self.adapter, &count);
        ck_assert_double_lt(setup_distance(&self, self.model, loaded, expected), 1e-5);
        ck_assert_double_gt(setup_distance(&self, self.model, NULL, expected), 1e-2);
        free(expected);
        lk_adapter_destroy(loaded);
        lk_trainer_destroy(trainer);
        lk_data_destroy(data);
        setup_close(&self);
    }
}
END_TEST

/* LyCORIS's start of LoKr: the update is zero because of W2 instead of W1. */
START_TEST(test_lycoris_start) {
    setup self;
    size_t count;
    lk_adapter_options options;
    lk_adapter_options_init(&options);
    options.method = "lokr";
    options.rank = 2;
    options.init = "lycoris";
    options.decompose_both = true;
    setup_open(&self, "cpu");
    float *plain = setup_logits(&self, self.model, NULL, &count);
    SUCCEEDS(&self, lk_adapter_create(self.model, &options, &self.adapter));
    ck_assert_double_eq(setup_distance(&self, self.model, self.adapter, plain), 0.0);
    for (int32_t i = 0; i < self.adapter->num_trained; i++) {
        const lk_adapter_tensor *tensor = self.adapter->trained[i];
        bool starts_at_zero = tensor->kind == LK_PEFT_KIND_LOKR_W2 || tensor->kind == LK_PEFT_KIND_LOKR_W2_B;
        float *values = malloc(tensor->value->bytes);
        SUCCEEDS(&self, lk_variable_download(tensor->value, values));
        ck_assert_msg((values[0] == 0.0f) == starts_at_zero, "%s starts with %g", tensor->name, (double)values[0]);
        free(values);
    }
    free(plain);
    setup_close(&self);
}
END_TEST

/* The longest of all blocks' Q, times the root of the number of blocks: at most COFT's eps. */
static double longest_rotation(setup *self, const lk_adapter *adapter) {
    double longest = 0.0;
    for (int32_t i = 0; i < adapter->num_trained; i++) {
        lk_variable *variable = adapter->trained[i]->value;
        float *values = malloc(variable->bytes);
        SUCCEEDS(self, lk_variable_download(variable, values));
        for (int64_t g = 0; g < variable->shape[0]; g++) {
            double squares = 0.0;
            for (int64_t k = 0; k < variable->shape[1]; k++) {
                squares += 2.0 * pow((double)values[g * variable->shape[1] + k], 2.0);
            }
            longest = fmax(longest, sqrt(squares * (double)variable->shape[0]));
        }
        free(values);
    }
    return longest;
}

/* COFT's Q stays within eps / sqrt(blocks), in training and when it is read; OFT's of the same run does not. */
START_TEST(test_coft_stays_small) {
    static const double eps = 0.02;
    for (int coft = 0; coft < 2; coft++) {
        setup self;
        lk_data *data;
        lk_adapter_options options;
        lk_adapter_options_init(&options);
        options.method = "oft";
        options.oft_block_size = 8;
        options.coft = coft != 0;
        options.coft_eps = eps;
        setup_open(&self, "cpu");
        SUCCEEDS(&self, lk_adapter_create(self.model, &options, &self.adapter));
        lk_trainer *trainer = start_training(&self, &data);
        double longest = 0.0;
        for (int step = 0; step < 8; step++) {
            lk_step_report report;
            SUCCEEDS(&self, lk_trainer_step(trainer, &report));
            longest = fmax(longest, longest_rotation(&self, self.adapter));
        }
        ck_assert_double_gt(longest, coft ? 0.9 * eps : 2.0 * eps);
        if (coft) {
            ck_assert_double_lt(longest, eps * (1.0 + 1e-6));
            setup_disturb(&self); /* as PEFT writes it: longer than is allowed */
            SUCCEEDS(&self, lk_adapter_save(self.adapter, setup_path(&self, "saved")));
            lk_adapter *loaded;
            SUCCEEDS(&self, lk_adapter_load(self.model, setup_path(&self, "saved"), &loaded));
            ck_assert_double_gt(longest_rotation(&self, self.adapter), 2.0 * eps);
            ck_assert_double_lt(longest_rotation(&self, loaded), eps * (1.0 + 1e-6));
            lk_adapter_destroy(loaded);
        }
        lk_trainer_destroy(trainer);
        lk_data_destroy(data);
        setup_close(&self);
    }
}
END_TEST

/* Activations of a step of 1024 tokens, as planned. */
static double activations_of(setup *self, lk_model *model, const char *method) {
    lk_adapter_options options;
    lk_adapter_options_init(&options);
    options.method = method;
    lk_adapter *adapter;
    SUCCEEDS(self, lk_adapter_create(model, &options, &adapter));
    lk_data_options data;
    lk_data_options_init(&data);
    data.batch = 8;
    data.seq = 128;
    char *text;
    lk_train_options train;
    lk_train_options_init(&train);
    train.recompute = LK_RECOMPUTE_NONE; /* x is often what norms and activation functions make again */
    SUCCEEDS(self, lk_plan(model, adapter, &data, &train, true, &text));
    json_t *root = json_loads(text, 0, NULL);
    json_t *memory = json_object_get(root, "memory");
    double bytes = (double)json_integer_value(json_object_get(memory, "activations"));
    json_decref(root);
    lk_release(self->context, text);
    lk_adapter_destroy(adapter);
    return bytes;
}

/* What LoRA-FA is for: x A' is kept instead of x, and the plan is smaller by it. */
START_TEST(test_lora_fa_keeps_less) {
    setup self;
    setup_open(&self, "cpu");
    lk_model *model;
    SUCCEEDS(&self, lk_model_load(self.session, LK_TEST_DATA "/models/stories260k", NULL, &model));
    double lora = activations_of(&self, model, "lora"), frozen = activations_of(&self, model, "lora-fa");
    printf("activations: lora %.0f, lora-fa %.0f\n", lora, frozen);
    lk_model_destroy(model);
    setup_close(&self);
    ck_assert_double_gt(frozen, 0.0);
    ck_assert_double_lt(frozen, 0.75 * lora);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("methods");
    int count = setup_num_methods();
    tcase_set_timeout(tests, 600);
    tcase_add_loop_test(tests, test_merge, 0, count);
    tcase_add_loop_test(tests, test_merge_refuses_nan, 0, count);
    tcase_add_loop_test(tests, test_round_trip, 0, count);
    tcase_add_loop_test(tests, test_a_file_that_does_not_fit_is_named, 0, count);
    tcase_add_loop_test(tests, test_training, 0, count);
    tcase_add_loop_test(tests, test_resuming, 0, count);
    tcase_add_test(tests, test_adalora_gives_up_ranks);
    tcase_add_test(tests, test_dynamic_lora_grows);
    tcase_add_test(tests, test_lycoris_start);
    tcase_add_test(tests, test_coft_stays_small);
    tcase_add_loop_test(tests, test_recomputation_changes_nothing, 0, count);
    tcase_add_loop_test(tests, test_adapters_stand_alone, 0, count);
    tcase_add_test(tests, test_lora_fa_keeps_less);
    return run_case("methods", tests);
}
