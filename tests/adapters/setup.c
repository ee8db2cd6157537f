#include "tests/adapters/setup.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int setup_num_methods(void) {
    int count = 0;
    while (lk_adapter_methods()[count] != NULL) {
        count++;
    }
    return count;
}

void setup_open(setup *self, const char *device) {
    *self = (setup){.seed = 5, .folder = "lk_adapters_XXXXXX"};
    ck_assert_ptr_nonnull(mkdtemp(self->folder));
    ck_assert_int_eq(lk_context_create(NULL, &self->context), LK_OK);
    lk_session_options session;
    lk_session_options_init(&session);
    session.threads = 2;
    session.device = device;
    SUCCEEDS(self, lk_session_create(self->context, &session, &self->session));
    SUCCEEDS(self, lk_model_load(self->session, LK_TEST_DATA "/models/tiny-qwen2", NULL, &self->model));
}

void setup_adapt(setup *self, const char *method, double dropout) {
    lk_adapter_options options;
    lk_adapter_options_init(&options);
    options.method = method;
    options.rank = 4;
    options.dropout = lk_adapter_method_find(method)->no_dropout ? 0.0 : dropout;
    options.seed = self->seed;
    SUCCEEDS(self, lk_adapter_create(self->model, &options, &self->adapter));
}

void setup_disturb(setup *self) {
    for (int32_t i = 0; i < lk_adapter_num_trained(self->adapter); i++) {
        lk_variable *variable = lk_adapter_trained_at(self->adapter, i)->value;
        size_t count = variable->bytes / sizeof(float);
        float *values = malloc(variable->bytes);
        SUCCEEDS(self, lk_variable_download(variable, values));
        for (size_t j = 0; j < count; j++) {
            uint32_t words[4];
            double pair[2];
            lk_philox4x32(77, (uint64_t)i, j, words);
            lk_normal_pair_from_bits(words[0], words[1], pair);
            values[j] += (float)(0.05 * pair[0]);
        }
        SUCCEEDS(self, lk_variable_upload(variable, values));
        free(values);
    }
}

void setup_close(setup *self) {
    lk_adapter_destroy(self->adapter);
    lk_model_destroy(self->model);
    lk_session_destroy(self->session);
    lk_context_destroy(self->context);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", self->folder);
    ck_assert_int_eq(system(command), 0);
}

const char *setup_path(const setup *self, const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", self->folder, name);
    return path;
}

float *setup_logits(setup *self, lk_model *model, lk_adapter *adapter, size_t *count) {
    static const int32_t ids[] = {3, 141, 59, 26, 53, 58, 97, 93, 238, 46, 26, 43};
    lk_model_info info;
    lk_model_get_info(model, &info);
    *count = LK_COUNT(ids) * (size_t)info.vocab_size;
    float *logits = malloc(*count * sizeof *logits);
    SUCCEEDS(self, lk_logits(model, adapter, ids, LK_COUNT(ids), logits));
    return logits;
}

double setup_distance(setup *self, lk_model *model, lk_adapter *adapter, const float *expected) {
    size_t count;
    double worst = 0.0;
    float *found = setup_logits(self, model, adapter, &count);
    for (size_t i = 0; i < count; i++) {
        double difference = fabs((double)found[i] - (double)expected[i]);
        worst = isfinite(difference) ? fmax(worst, difference) : INFINITY;
    }
    free(found);
    return worst;
}
