/* Adapters of embedding tables and of the output head, which share one weight here. */
#include <stdlib.h>
#include <string.h>

#include "tests/adapters/setup.h"
#include "tests/common/runner.h"

static lk_status adapt(setup *self, const char *method, const char *targets, const char *saved) {
    lk_adapter_options options;
    lk_adapter_options_init(&options);
    options.method = method;
    options.rank = 4;
    options.target_modules = targets;
    options.modules_to_save = saved;
    options.seed = 5;
    return lk_adapter_create(self->model, &options, &self->adapter);
}

/* Merging parts what was shared, so that only what is adapted changes. */
START_TEST(test_merge_and_round_trip) {
    static const struct {
        const char *targets, *saved;
        int32_t modules;
    } rows[] = {{"embed_tokens", NULL, 1},
                {"lm_head", NULL, 1},
                {"embed_tokens,lm_head,q_proj", NULL, 4},
                {"q_proj", "embed_tokens", 3},
                {"q_proj", "lm_head", 3}};
    setup self;
    size_t count;
    setup_open(&self, "cpu");
    SUCCEEDS(&self, adapt(&self, _i % 2 != 0 ? "rslora" : "lora", rows[_i / 2].targets, rows[_i / 2].saved));
    lk_adapter_info info;
    lk_adapter_get_info(self.adapter, &info);
    ck_assert_int_eq(info.num_modules, rows[_i / 2].modules);
    float *plain = setup_logits(&self, self.model, NULL, &count);
    ck_assert_double_lt(setup_distance(&self, self.model, self.adapter, plain), 1e-5);
    setup_disturb(&self);
    float *changed = setup_logits(&self, self.model, self.adapter, &count);
    ck_assert_double_gt(setup_distance(&self, self.model, self.adapter, plain), 0.05);
    SUCCEEDS(&self, lk_merge(self.model, self.adapter, LK_DTYPE_F32, setup_path(&self, "merged"), NULL, NULL));
    lk_model *merged;
    SUCCEEDS(&self, lk_model_load(self.session, setup_path(&self, "merged"), NULL, &merged));
    ck_assert_double_lt(setup_distance(&self, merged, NULL, changed), 1e-4);
    SUCCEEDS(&self, lk_adapter_save(self.adapter, setup_path(&self, "saved")));
    lk_adapter *loaded;
    SUCCEEDS(&self, lk_adapter_load(self.model, setup_path(&self, "saved"), &loaded));
    ck_assert_double_eq(setup_distance(&self, self.model, loaded, changed), 0.0);
    lk_adapter_destroy(loaded);
    lk_model_destroy(merged);
    free(plain);
    free(changed);
    setup_close(&self);
}
END_TEST

START_TEST(test_methods_without_tables_say_so) {
    static const char *const methods[] = {"dora", "lora-fa", "vera", "ia3"};
    setup self;
    setup_open(&self, "cpu");
    for (size_t i = 0; i < LK_COUNT(methods); i++) {
        ck_assert_int_eq(adapt(&self, methods[i], "embed_tokens,q_proj", NULL), LK_STATUS_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(lk_error_message(self.context), "model.embed_tokens"));
    }
    setup_close(&self);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("embeddings");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, test_merge_and_round_trip, 0, 10);
    tcase_add_test(tests, test_methods_without_tables_say_so);
    return run_case("embeddings", tests);
}
