/* lorikeet plan: what a training step would take, without loading weights or running anything. */
#include "step.h"

static const char description[] =
    "Says what a step of 'lorikeet train' with the same options would take: for each operation the kernel\n"
    "that is chosen, its estimated time, and why the other kernels are not; memory by purpose; totals.\n"
    "The weights are not loaded and nothing is run.";

static const char examples[] = "  lorikeet plan --model ./Qwen2-0.5B --batch 8 --seq 512\n"
                               "  lorikeet plan --model model.gguf --device cpu --threads 4 --json";

static lk_status make_plan(cli_step *step, char **text) {
    return lk_plan(step->workspace.model, step->workspace.adapter, &step->data_options, &step->train_options,
                   step->json, text);
}

int cli_command_plan(int argc, const char **argv) {
    cli_step step = {.description = description,
                     .examples = examples,
                     .json_help = "print the plan as JSON",
                     .make_text = make_plan};
    return cli_step_run(&step, argc, argv);
}
