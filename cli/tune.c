/* lorikeet tune: measures the kernels for a model's training step, so that the choice rests on times. */
#include "progress.h"
#include "step.h"

static const char description[] =
    "Measures, on one device, every kernel that fits an operation of a step of 'lorikeet train' with the same\n"
    "options, and keeps the times: from then on they decide in place of estimates ('lorikeet plan' shows\n"
    "\"chosen by tuned\"), and --device auto compares devices by them. The weights are not loaded. The times are kept\n"
    "in LORIKEET_CACHE_DIR (else the user's cache folder), one file per device, driver and version of the kernels.";

static const char examples[] = "  lorikeet tune --model ./Qwen2-0.5B --batch 8 --seq 512 --device vulkan\n"
                               "  lorikeet tune --model model.gguf --json > times.json";

static void show(void *user, int64_t done, int64_t total) {
    cli_progress *progress = user;
    progress->total = total;
    cli_progress_update(progress, done, "kernels");
}

static lk_status measure(cli_step *step, char **text) {
    cli_progress progress = {0};
    cli_progress_start(&progress, "tune", 0, 0, step->workspace.quiet);
    lk_status status = lk_tune(step->workspace.model, step->workspace.adapter, &step->data_options,
                               &step->train_options, show, &progress, step->json, text);
    cli_progress_finish(&progress);
    return status;
}

int cli_command_tune(int argc, const char **argv) {
    cli_step step = {
        .description = description, .examples = examples, .json_help = "print the times as JSON", .make_text = measure};
    return cli_step_run(&step, argc, argv);
}
