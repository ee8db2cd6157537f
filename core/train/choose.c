/* lk_session_create_for: the device on which a training step is estimated to be the shortest. */
#include <stdlib.h>
#include <string.h>

#include "core/train/trainer.h"

void lk_workload_init(lk_workload *workload) {
    *workload = (lk_workload){.struct_size = sizeof *workload};
}

typedef struct ranked {
    lk_device_caps caps;
    double seconds, tuned_seconds; /* by estimates alone; with what was measured */
    bool measured;                 /* all of it */
} ranked;

static int by_time(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    return (x->seconds > y->seconds) - (x->seconds < y->seconds);
}

/* What is planned: a model and an adapter of which nothing is loaded. */
typedef struct planning {
    const lk_workload *workload;
    const lk_session_options *chosen;
    lk_session *session;
    lk_model *model;
    lk_adapter *adapter;
    lk_data shape;
} planning;

static lk_status open_planning(planning *self, lk_context *context, const lk_device_caps *caps) {
    lk_model_options options;
    lk_model_options_init(&options);
    if (self->workload->model != NULL) {
        memcpy(&options, self->workload->model, LK_MIN(self->workload->model->struct_size, sizeof options));
    }
    options.plan_only = true;
    LK_TRY(lk_session_create_planned(context, self->chosen, caps, &self->session));
    LK_TRY(lk_model_load(self->session, self->workload->model_path, &options, &self->model));
    LK_TRY(lk_adapter_create(self->model, self->workload->adapter, &self->adapter));
    return lk_data_shape(self->model, self->workload->data, &self->shape);
}

static void close_planning(planning *self) {
    lk_adapter_destroy(self->adapter);
    lk_model_destroy(self->model);
    lk_session_destroy(self->session);
}

static lk_status estimate(planning *self, ranked *device) {
    lk_trainer *trainer;
    LK_TRY(lk_session_plan_on(self->session, self->chosen, &device->caps));
    LK_TRY(lk_trainer_create_plan(self->model, self->adapter, &self->shape, self->workload->train, &trainer));
    double times = (double)trainer->options.gradient_accumulation_steps;
    lk_program_estimate micro = lk_program_estimate_of(trainer->micro),
                        update = lk_program_estimate_of(trainer->update);
    device->seconds = times * micro.untuned_seconds + update.untuned_seconds;
    device->tuned_seconds = times * micro.seconds + update.seconds;
    device->measured = micro.measured && update.measured;
    lk_trainer_destroy(trainer);
    return LK_OK;
}

/* A measured time is compared with measured ones only: estimates are those of kernels that reach what they could. */
static lk_status rank(planning *self, lk_context *context, ranked *devices, int count, bool *measured) {
    LK_TRY(open_planning(self, context, &devices[0].caps));
    *measured = true;
    for (int i = 0; i < count; i++) {
        LK_TRY(estimate(self, &devices[i]));
        *measured = *measured && devices[i].measured;
    }
    for (int i = 0; i < count && *measured; i++) {
        devices[i].seconds = devices[i].tuned_seconds;
    }
    qsort(devices, (size_t)count, sizeof *devices, by_time);
    return LK_OK;
}

static lk_status open_best(lk_context *context, const lk_session_options *chosen, const ranked *devices, int count,
                           bool measured, const lk_text *passed_over, lk_session **out) {
    lk_device_caps order[LK_MAX_LISTED];
    lk_text reason;
    lk_text_init(&reason, context);
    lk_text_printf(&reason, "the lowest %s time of a step:", measured ? "measured" : "estimated");
    for (int i = 0; i < count; i++) {
        char label[LK_DEVICE_LABEL];
        lk_device_label(&devices[i].caps, label);
        lk_text_printf(&reason, "%s %s %.3g s", i > 0 ? "," : "", label, devices[i].seconds);
        order[i] = devices[i].caps;
    }
    lk_text_append(&reason, passed_over->data ? passed_over->data : "", passed_over->length);
    lk_status status = lk_text_status(&reason);
    if (status == LK_OK) {
        status = lk_session_create_on(context, chosen, order, count, reason.data, out);
    }
    lk_text_free(&reason);
    return status;
}

/* A plan that fails does so again where the model is loaded, with a message that is read. */
static lk_status choose(lk_context *context, const lk_session_options *chosen, const lk_workload *workload,
                        const lk_text *passed_over, const lk_device_caps *caps, int count, lk_session **out) {
    ranked devices[LK_MAX_LISTED];
    for (int i = 0; i < count; i++) {
        devices[i] = (ranked){.caps = caps[i]};
    }
    planning work = {.workload = workload, .chosen = chosen};
    bool measured = false;
    lk_status status = rank(&work, context, devices, count, &measured);
    close_planning(&work);
    return status == LK_OK ? open_best(context, chosen, devices, count, measured, passed_over, out)
                           : lk_session_create(context, chosen, out);
}

lk_status lk_session_create_for(lk_context *context, const lk_session_options *options, const lk_workload *workload,
                                lk_session **out) {
    lk_session_options chosen = lk_session_options_chosen(options);
    lk_workload work;
    lk_workload_init(&work);
    memcpy(&work, workload, LK_MIN(workload->struct_size, sizeof work));
    *out = NULL;
    if (!lk_session_wants_auto(&chosen) || work.model_path == NULL) {
        return lk_session_create(context, &chosen, out);
    }
    lk_device_caps caps[LK_MAX_LISTED];
    int count;
    lk_text passed_over;
    lk_text_init(&passed_over, context);
    lk_status status = lk_devices_for_auto(context, chosen.exclude, &passed_over, caps, &count);
    if (status == LK_OK) {
        status = count > 1 ? choose(context, &chosen, &work, &passed_over, caps, count, out)
                           : lk_session_create(context, &chosen, out);
    }
    lk_text_free(&passed_over);
    return status;
}
