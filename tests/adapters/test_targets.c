/* Which layers an adapter is put on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/adapters/setup.h"

static lk_status create(setup *self, const char *targets, const char *layers, int32_t rank) {
    lk_adapter_options options;
    lk_adapter_options_init(&options);
    options.target_modules = targets;
    options.layers = layers;
    options.rank = rank;
    return lk_adapter_create(self->model, &options, &self->adapter);
}

static int32_t sites_in(const setup *self, const char *part) {
    int32_t count = 0;
    for (int32_t i = 0; i < self->adapter->num_sites; i++) {
        count += strstr(self->adapter->sites[i].site->path, part) != NULL;
    }
    return count;
}

/* "all-linear" together with layers is a list of names in the file, because PEFT takes no string then. */
START_TEST(test_layers_of_all_linear) {
    setup self;
    setup_open(&self, "cpu");
    SUCCEEDS(&self, create(&self, "all-linear", "1", 4));
    ck_assert_int_eq(self.adapter->num_sites, 7);
    ck_assert_int_eq(sites_in(&self, "layers.1."), 7);
    ck_assert(json_is_array(self.adapter->config.target_modules));
    ck_assert_uint_eq(json_array_size(self.adapter->config.target_modules), 7);
    SUCCEEDS(&self, lk_adapter_save(self.adapter, setup_path(&self, "adapter")));
    lk_adapter_destroy(self.adapter);
    SUCCEEDS(&self, lk_adapter_load(self.model, setup_path(&self, "adapter"), &self.adapter));
    ck_assert_int_eq(self.adapter->num_sites, 7);
    setup_close(&self);
}
END_TEST

START_TEST(test_what_matches_nothing_is_refused) {
    static const struct {
        const char *targets, *layers, *says;
    } cases[] = {{"all-linear", "7", "layers: none of the targets"},
                 {"q_proj", "7", "layers: none of the targets"},
                 {"q_proj,nope", NULL, "\"nope\""},
                 {"", NULL, "no name is given"},
                 {"all-linear", "1,x", "\"1,x\""}};
    setup self;
    setup_open(&self, "cpu");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(create(&self, cases[i].targets, cases[i].layers, 4), LK_STATUS_INVALID_ARGUMENT);
        ck_assert_ptr_null(self.adapter);
        ck_assert_msg(strstr(lk_error_message(self.context), cases[i].says) != NULL, "%s: %s", cases[i].says,
                      lk_error_message(self.context));
    }
    setup_close(&self);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("targets");
    TCase *tests = tcase_create("targets");
    tcase_add_test(tests, test_layers_of_all_linear);
    tcase_add_test(tests, test_what_matches_nothing_is_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
