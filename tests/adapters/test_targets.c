/* Which layers an adapter is put on. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/adapters/setup.h"
#include "tests/common/runner.h"

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

/* The first of the layers whose path contains this. */
static const lk_adapter_site *site_at(const setup *self, const char *part) {
    for (int32_t i = 0; i < self->adapter->num_sites; i++) {
        if (strstr(self->adapter->sites[i].site->path, part) != NULL) {
            return &self->adapter->sites[i];
        }
    }
    ck_abort_msg("no layer %s", part);
}

static const char *const with_patterns[] = {"lora", "rslora", "dora", "lora-fa", "loha", "lokr"};

/* Ranks and alphas of single layers, as given and as read again. */
START_TEST(test_patterns) {
    static const struct {
        const char *path;
        int32_t rank;
        double alpha;
    } expected[] = {{"layers.0.self_attn.q_proj", 6, 8.0},
                    {"layers.0.self_attn.v_proj", 4, 20.5},
                    {"layers.0.mlp.down_proj", 4, 8.0},
                    {"layers.1.mlp.down_proj", 2, 3.0}};
    setup self;
    setup_open(&self, "cpu");
    lk_adapter_options options;
    lk_adapter_options_init(&options);
    options.method = with_patterns[_i];
    options.rank = 4;
    options.alpha = 8.0;
    options.rank_pattern = "q_proj=6,layers.1.mlp.down_proj=2";
    options.alpha_pattern = "v_proj=20.5,layers.1.mlp.down_proj=3";
    SUCCEEDS(&self, lk_adapter_create(self.model, &options, &self.adapter));
    for (int again = 0; again < 2; again++) {
        for (size_t i = 0; i < LK_COUNT(expected); i++) {
            const lk_adapter_site *site = site_at(&self, expected[i].path);
            double r = (double)expected[i].rank;
            double scale = expected[i].alpha / (self.adapter->config.use_rslora ? sqrt(r) : r);
            ck_assert_int_eq(site->rank, expected[i].rank);
            ck_assert_double_eq_tol((double)site->scale, scale, 1e-6);
        }
        SUCCEEDS(&self, lk_adapter_save(self.adapter, setup_path(&self, "adapter")));
        lk_adapter_destroy(self.adapter);
        SUCCEEDS(&self, lk_adapter_load(self.model, setup_path(&self, "adapter"), &self.adapter));
    }
    setup_close(&self);
}
END_TEST

START_TEST(test_options_that_do_not_fit_are_refused) {
    static const struct {
        const char *method, *bias, *ranks, *alphas, *says;
    } cases[] = {{"lora", "none", "q_proj", NULL, "rank_pattern: \"q_proj\" is not a list of NAME=RANK"},
                 {"lora", "none", "q_proj=0", NULL, "rank_pattern"},
                 {"lora", "none", "q_proj=2.5", NULL, "rank_pattern"},
                 {"lora", "none", "q_proj=2,,v_proj=3", NULL, "rank_pattern"},
                 {"lora", "none", "=2", NULL, "rank_pattern"},
                 {"lora", "none", NULL, "q_proj=x", "alpha_pattern: \"q_proj=x\" is not a list of NAME=ALPHA"},
                 {"vera", "none", "q_proj=2", NULL, "rank_pattern: vera"},
                 {"dynamic-lora", "none", "q_proj=2", NULL, "rank_pattern: dynamic-lora"},
                 {"lora", "oft_only", NULL, NULL, "with lora expected none, lora_only or all"},
                 {"vera", "lora_only", NULL, NULL, "with vera expected none, vera_only or all"},
                 {"loha", "all", NULL, NULL, "bias: loha trains none"}};
    setup self;
    setup_open(&self, "cpu");
    for (size_t i = 0; i < LK_COUNT(cases); i++) {
        lk_adapter_options options;
        lk_adapter_options_init(&options);
        options.method = cases[i].method;
        options.bias = cases[i].bias;
        options.rank_pattern = cases[i].ranks;
        options.alpha_pattern = cases[i].alphas;
        ck_assert_int_ne(lk_adapter_create(self.model, &options, &self.adapter), LK_OK);
        ck_assert_ptr_null(self.adapter);
        ck_assert_msg(strstr(lk_error_message(self.context), cases[i].says) != NULL, "%s: %s", cases[i].says,
                      lk_error_message(self.context));
    }
    setup_close(&self);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("targets");
    tcase_add_test(tests, test_layers_of_all_linear);
    tcase_add_test(tests, test_what_matches_nothing_is_refused);
    tcase_add_loop_test(tests, test_patterns, 0, (int)LK_COUNT(with_patterns));
    tcase_add_test(tests, test_options_that_do_not_fit_are_refused);
    return run_case("targets", tests);
}
