/* The starts of A and B: none changes the model; those made of the weight are PEFT's; what is saved is a plain LoRA. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/formats/safetensors.h"
#include "tests/adapters/setup.h"
#include "tests/common/runner.h"

static int num_inits(void) {
    int count = 0;
    while (lk_adapter_inits()[count] != NULL && strcmp(lk_adapter_inits()[count], "lycoris") != 0) { /* of lokr */
        count++;
    }
    return count;
}

static bool is_from_weight(const char *init) {
    return strcmp(init, "olora") == 0 || strcmp(init, "pissa") == 0;
}

static lk_adapter *adapt(setup *self, const char *init, const char *method, bool rslora) {
    lk_adapter_options options;
    lk_adapter_options_init(&options);
    options.init = init;
    options.method = method;
    options.rank = 4;
    options.alpha = 6.0;
    options.seed = 5;
    options.use_rslora = rslora;
    lk_status status = lk_adapter_create(self->model, &options, &self->adapter);
    ck_assert_msg((status == LK_OK) == (self->adapter != NULL), "a status without its adapter");
    return self->adapter;
}

START_TEST(test_a_start_changes_nothing_and_is_saved_as_plain_lora) {
    const char *init = lk_adapter_inits()[_i / 2];
    setup self;
    size_t count;
    setup_open(&self, "cpu");
    ck_assert_ptr_nonnull(adapt(&self, init, "lora", _i % 2 != 0));
    float *plain = setup_logits(&self, self.model, NULL, &count);
    ck_assert_double_lt(setup_distance(&self, self.model, self.adapter, plain), 1e-4);
    setup_disturb(&self);
    float *changed = setup_logits(&self, self.model, self.adapter, &count);
    ck_assert_double_gt(setup_distance(&self, self.model, self.adapter, plain), 0.05);
    SUCCEEDS(&self, lk_adapter_save(self.adapter, setup_path(&self, "saved")));
    lk_adapter *loaded;
    SUCCEEDS(&self, lk_adapter_load(self.model, setup_path(&self, "saved"), &loaded));
    ck_assert_int_eq(loaded->config.r, is_from_weight(init) ? 8 : 4);
    ck_assert_ptr_null(loaded->sites[0].start[0]);
    ck_assert_double_lt(setup_distance(&self, self.model, loaded, changed), 1e-4);
    SUCCEEDS(&self, lk_merge(self.model, self.adapter, LK_DTYPE_F32, setup_path(&self, "merged"), NULL, NULL));
    lk_model *merged;
    SUCCEEDS(&self, lk_model_load(self.session, setup_path(&self, "merged"), NULL, &merged));
    ck_assert_double_lt(setup_distance(&self, merged, NULL, changed), 1e-4);
    lk_model_destroy(merged);
    lk_adapter_destroy(loaded);
    free(plain);
    free(changed);
    setup_close(&self);
}
END_TEST

/* Up to the signs that singular vectors may have. */
static void compare_with_file(setup *self, lk_adapter *adapter, const char *path) {
    lk_safetensors *file;
    SUCCEEDS(self, lk_safetensors_open(self->context, path, &file));
    ck_assert_uint_eq(lk_safetensors_count(file), (size_t)lk_adapter_num_trained(adapter));
    for (int32_t i = 0; i < lk_adapter_num_trained(adapter); i++) {
        const lk_adapter_tensor *tensor = lk_adapter_trained_at(adapter, i);
        const lk_stored_tensor *stored;
        SUCCEEDS(self, lk_safetensors_find(file, tensor->name, &stored));
        ck_assert_uint_eq(stored->bytes, tensor->value->bytes);
        float *found = malloc(tensor->value->bytes), *expected = malloc(stored->bytes);
        memcpy(expected, stored->data, stored->bytes);
        SUCCEEDS(self, lk_variable_download(tensor->value, found));
        for (size_t j = 0; j < stored->bytes / sizeof(float); j++) {
            ck_assert_msg(fabs(fabs((double)found[j]) - fabs((double)expected[j])) < 1e-4, "%s[%zu]: %g, expected %g",
                          tensor->name, j, (double)found[j], (double)expected[j]);
        }
        free(found);
        free(expected);
    }
    lk_safetensors_destroy(file);
}

/* The golden runs' initial adapters are those that PEFT made. */
START_TEST(test_starts_from_the_weight_are_those_of_peft) {
    static const struct {
        const char *init, *model, *run, *targets;
        int32_t rank;
        double alpha;
        bool rslora;
    } rows[] = {
        {"pissa", "tiny-llama-linear", "llama-linear-pissa", "q_proj,v_proj,up_proj,down_proj", 4, 8.0, false},
        {"olora", "tiny-qwen2", "qwen2-olora-rslora", "k_proj,o_proj,down_proj", 3, 3.0, true},
    };
    setup self;
    char path[512];
    setup_open(&self, "cpu");
    snprintf(path, sizeof path, "%s/models/%s", LK_TEST_DATA, rows[_i].model);
    lk_model *model;
    SUCCEEDS(&self, lk_model_load(self.session, path, NULL, &model));
    lk_adapter_options options;
    lk_adapter_options_init(&options);
    options.init = rows[_i].init;
    options.target_modules = rows[_i].targets;
    options.rank = rows[_i].rank;
    options.alpha = rows[_i].alpha;
    options.use_rslora = rows[_i].rslora;
    lk_adapter *adapter;
    SUCCEEDS(&self, lk_adapter_create(model, &options, &adapter));
    snprintf(path, sizeof path, "%s/golden/%s/init_adapter/adapter_model.safetensors", LK_TEST_DATA, rows[_i].run);
    compare_with_file(&self, adapter, path);
    lk_adapter_destroy(adapter);
    lk_model_destroy(model);
    setup_close(&self);
}
END_TEST

START_TEST(test_what_cannot_be_is_named) {
    static const struct {
        const char *init, *method;
        int32_t rank;
        const char *text;
    } rows[] = {
        {"pissa", "dora", 4, "dora"},      {"olora", "lora-fa", 4, "lora-fa"},  {"gaussian", "vera", 4, "vera"},
        {"random", "lora", 4, "gaussian"}, {"orthogonal", "lora", 3, "rank 3"}, {"olora", "lora", 64, "rank 64"},
        {"pissa", "lora", 64, "rank 64"},
    };
    setup self;
    setup_open(&self, "cpu");
    for (size_t i = 0; i < LK_COUNT(rows); i++) {
        lk_adapter_options options;
        lk_adapter_options_init(&options);
        options.init = rows[i].init;
        options.method = rows[i].method;
        options.rank = rows[i].rank;
        lk_adapter *adapter;
        ck_assert_int_ne(lk_adapter_create(self.model, &options, &adapter), LK_OK);
        ck_assert_ptr_null(adapter);
        ck_assert_msg(strstr(lk_error_message(self.context), rows[i].text) != NULL, "%s",
                      lk_error_message(self.context));
    }
    setup_close(&self);
}
END_TEST

/* Converting knows nothing of the base, so it cannot undo what PEFT has done to it. */
START_TEST(test_convert_refuses_what_has_changed_the_base) {
    setup self;
    setup_open(&self, "cpu");
    const char *from = LK_TEST_DATA "/golden/llama-linear-pissa/init_adapter";
    ck_assert_int_eq(lk_convert_adapter(self.context, &from, NULL, 1, NULL, setup_path(&self, "converted")),
                     LK_STATUS_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "pissa"));
    setup_close(&self);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("init");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, test_a_start_changes_nothing_and_is_saved_as_plain_lora, 0, 2 * num_inits());
    tcase_add_loop_test(tests, test_starts_from_the_weight_are_those_of_peft, 0, 2);
    tcase_add_test(tests, test_what_cannot_be_is_named);
    tcase_add_test(tests, test_convert_refuses_what_has_changed_the_base);
    return run_case("init", tests);
}
