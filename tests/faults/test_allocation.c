/* Memory that runs out while a graph is built, compiled and run. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/common/fixture.h"
#include "tests/common/runner.h"
#include "tests/common/toy_model.h"
#include "tests/faults/fake_device.h"
#include "tests/faults/meter.h"

/* ---- the work ---- */

typedef struct devices {
    lk_device *list[2];
    int count;
} devices;

static lk_status open_devices(lk_context *context, bool with_fake, devices *out) {
    *out = (devices){{NULL}, 0};
    if (with_fake) {
        uint64_t ops = fake_op(LK_OP_MATMUL) | fake_op(LK_OP_ADD) | fake_op(LK_OP_SWIGLU) | fake_op(LK_OP_ADAMW);
        LK_TRY(fake_device_open(context, ops, &out->list[out->count]));
        out->count++;
    }
    lk_device_caps caps;
    int found;
    lk_device_options options = {sizeof options, 1};
    LK_TRY(lk_backend_reference.probe(context, &caps, 1, &found));
    LK_TRY(lk_backend_reference.open(context, &caps, &options, &out->list[out->count]));
    out->count++;
    return LK_OK;
}

/* A training step: forward, backward, the norm of the gradients, the optimizer with a scale per tensor. */
static lk_status add_optimizer(lk_variables *variables, toy_model *model) {
    static const float scales[TOY_MAX_TRAINED] = {1.0f, 2.0f};
    const int64_t shape[] = {LK_ADAMW_HYPER_COUNT};
    lk_tensor *first[TOY_MAX_TRAINED], *second[TOY_MAX_TRAINED];
    lk_variable *variable;
    LK_TRY(lk_variables_add(variables, "hyper", LK_ROLE_INPUT, "test", LK_DTYPE_F32, 1, shape, &variable));
    static const float values[LK_ADAMW_HYPER_COUNT] = {1e-3f, 0.9f, 0.999f, 1e-8f, 0.1f, 0.1f, 0.001f, 1.0f};
    LK_TRY(lk_variable_upload(variable, values));
    lk_tensor *hyper = lk_graph_variable(model->graph, variable);
    for (int i = 0; i < model->num_trained; i++) {
        for (int moment = 0; moment < 2; moment++) {
            char name[80];
            const lk_variable *trained = model->trained[i]->variable;
            snprintf(name, sizeof name, "%s.%d", trained->name, moment);
            LK_TRY(lk_variables_add(variables, name, LK_ROLE_STATE, "optimizer", trained->dtype, trained->rank,
                                    trained->shape, &variable));
            (moment ? second : first)[i] = lk_graph_variable(model->graph, variable);
        }
    }
    lk_tensor *norm = lk_build_grad_norm(model->graph, model->num_trained, model->gradients);
    lk_build_adamw(model->graph, hyper, norm, model->num_trained, model->trained, model->gradients, first, second,
                   scales, scales);
    return lk_graph_status(model->graph);
}

static lk_status step_on(lk_context *context, const devices *open, lk_variables *variables) {
    toy_model model;
    lk_program *program;
    toy_options options = {.dtype = LK_DTYPE_F32, .adapted = {127, 0, 5}, .dropout = 0.1f, .seed = 1};
    LK_TRY(toy_build(context, variables, &options, &model));
    lk_status status = toy_backward(&model);
    if (status == LK_OK) {
        status = add_optimizer(variables, &model);
    }
    if (status != LK_OK) {
        ck_assert(lk_graph_status(model.graph) == LK_OK || lk_graph_status(model.graph) == status);
        lk_graph_destroy(model.graph);
        return status;
    }
    lk_program_options how = {.devices = open->list, .num_devices = open->count};
    LK_TRY(lk_program_compile(context, model.graph, &how, &program));
    status = lk_program_run(program);
    const lk_node *node = NULL;
    if (status == LK_OK) {
        status = lk_program_find_not_finite(program, &node);
    }
    if (status == LK_OK) {
        float loss = 0.0f;
        status = lk_program_read(program, model.loss, &loss, sizeof loss);
        ck_assert(status != LK_OK || (loss > 0.0f && node == NULL));
    }
    lk_program_destroy(program);
    return status;
}

static lk_status training_step(lk_context *context, bool with_fake) {
    devices open;
    lk_variables *variables = NULL;
    lk_status status = open_devices(context, with_fake, &open);
    if (status == LK_OK) {
        status = lk_variables_create(context, open.list[0], &variables);
    }
    if (status == LK_OK) {
        status = step_on(context, &open, variables);
    }
    lk_variables_destroy(variables);
    for (int i = 0; i < open.count; i++) {
        open.list[i]->backend->close(open.list[i]);
    }
    return status;
}

static lk_status on_the_reference(lk_context *context) {
    return training_step(context, false);
}

static lk_status on_two_devices(lk_context *context) {
    return training_step(context, true);
}

static lk_status (*const works[])(lk_context *context) = {on_the_reference, on_two_devices};

START_TEST(test_every_allocation) {
    long calls = meter_fail_every_allocation(works[_i / 2], _i % 2 == 0, 1);
    printf("%s: %ld allocations\n", _i / 2 ? "two devices" : "the reference", calls);
}
END_TEST

int main(void) {
    test_seed();
    TCase *tests = tcase_create("allocation");
    tcase_set_timeout(tests, 600);
    tcase_add_loop_test(tests, test_every_allocation, 0, 2 * (int)LK_COUNT(works));
    return run_case("allocation", tests);
}
