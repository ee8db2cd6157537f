#include "tests/train/fixture.h"

#include <stdio.h>
#include <stdlib.h>

const char *fixture_path(const fixture *self, const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", self->folder, name);
    return path;
}

void fixture_open(fixture *self, const lk_allocator *allocator) {
    *self = (fixture){.folder = "lk_train_XXXXXX"};
    ck_assert_ptr_nonnull(mkdtemp(self->folder));
    lk_context_options context;
    lk_context_options_init(&context);
    context.allocator = allocator;
    ck_assert_int_eq(lk_context_create(&context, &self->context), LK_OK);
    lk_session_options session;
    lk_session_options_init(&session);
    session.device = "cpu"; /* not "auto": LeakSanitizer cannot stop the threads of an OpenCL driver */
    session.threads = 2;
    SUCCEEDS(self, lk_session_create(self->context, &session, &self->session));
    SUCCEEDS(self, lk_model_load(self->session, LK_TEST_DATA "/models/stories260k", NULL, &self->model));
    lk_data_options data;
    lk_data_options_init(&data);
    data.batch = 2;
    data.seq = 48;
    data.seed = 7;
    SUCCEEDS(self,
             lk_data_load(self->model, LK_TEST_DATA "/golden/stories260k-lora-qv/batches.ids", &data, &self->data));
}

void fixture_start(fixture *self) {
    lk_adapter_options adapter;
    lk_adapter_options_init(&adapter);
    adapter.dropout = 0.1;
    adapter.seed = 3;
    SUCCEEDS(self, lk_adapter_create(self->model, &adapter, &self->adapter));
    lk_train_options train;
    lk_train_options_init(&train);
    train.learning_rate = 5e-3;
    train.schedule = LK_SCHEDULE_COSINE;
    train.warmup_steps = 2;
    train.total_steps = 8;
    train.gradient_accumulation_steps = 2;
    train.max_grad_norm = 1.0;
    train.weight_decay = 0.01;
    train.seed = 11;
    SUCCEEDS(self, lk_trainer_create(self->model, self->adapter, self->data, &train, &self->trainer));
}

void fixture_stop(fixture *self) {
    lk_trainer_destroy(self->trainer);
    lk_adapter_destroy(self->adapter);
    self->trainer = NULL;
    self->adapter = NULL;
}

void fixture_close(fixture *self) {
    fixture_stop(self);
    lk_data_destroy(self->data);
    lk_model_destroy(self->model);
    lk_session_destroy(self->session);
    lk_context_destroy(self->context);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", self->folder);
    ck_assert_int_eq(system(command), 0);
}

uint64_t fixture_hash(fixture *self) {
    uint64_t hash = 0;
    for (int32_t i = 0; i < lk_adapter_num_tensors(self->adapter); i++) {
        lk_variable *value = lk_adapter_tensor_at(self->adapter, i)->value;
        void *bytes = malloc(value->bytes);
        SUCCEEDS(self, lk_variable_download(value, bytes));
        hash = lk_hash64(bytes, value->bytes, hash);
        free(bytes);
    }
    return hash;
}
