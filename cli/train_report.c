/* What `lorikeet train` writes: the log of steps, messages, and the summary at the end. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "train.h"

int train_set_checkpoint(train_command *command) {
    static const char name[] = "/checkpoint";
    size_t size = strlen(command->out) + sizeof(name);
    command->checkpoint = malloc(size);
    if (command->checkpoint == NULL) {
        return cli_failed("out of memory");
    }
    snprintf(command->checkpoint, size, "%s%s", command->out, name);
    return CLI_DONE;
}

bool train_has_checkpoint(const train_command *command) {
    struct stat about;
    return stat(command->checkpoint, &about) == 0;
}

int train_log_open(train_command *command) {
    if (command->log_path == NULL) {
        return CLI_DONE;
    }
    command->log = fopen(command->log_path, command->resumed ? "ab" : "wb");
    if (command->log == NULL) {
        return cli_failed("--log %s: %s", command->log_path, strerror(errno));
    }
    return CLI_DONE;
}

static int write_line(train_command *command, json_t *line) {
    if (line == NULL) {
        return cli_failed("--log %s: out of memory", command->log_path);
    }
    int written = json_dumpf(line, command->log, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(line);
    if (written != 0 || fputc('\n', command->log) == EOF || fflush(command->log) != 0) {
        return cli_failed("--log %s: %s", command->log_path, strerror(errno));
    }
    return CLI_DONE;
}

static double rate(int64_t tokens, double seconds) {
    return seconds > 0 ? (double)tokens / seconds : 0;
}

/* Over all steps of this run. */
static double mean_rate(const train_command *command) {
    return rate(command->tokens, command->seconds[TRAIN_STEPS] + command->seconds[TRAIN_WAIT_FOR_DATA]);
}

static void show_step(train_command *command, const lk_step_report *report) {
    enum { MEMORY = 20 }; /* the shown loss is smoothed over about so many steps */
    double share = command->steps_here < MEMORY ? 1.0 / (double)command->steps_here : 1.0 / MEMORY;
    command->smooth_loss += (report->loss - command->smooth_loss) * share;
    char details[96];
    snprintf(details, sizeof(details), "loss %.4f, %.0f tokens/s", command->smooth_loss, mean_rate(command));
    cli_progress_update(&command->progress, report->step, details);
}

/* Of each adapter of --mix; NULL is both "one" and "out of memory". */
static json_t *adapters_of_step(train_command *command) {
    json_t *adapters = command->parts[0].name != NULL ? json_object() : NULL;
    for (int i = 0; i < command->num_parts; i++) {
        train_part *part = &command->parts[i];
        lk_step_report report;
        if (lk_trainer_get_part(command->trainer, (size_t)i, &report) != LK_OK) {
            continue; /* there is no other failure than a wrong number */
        }
        part->last_loss = report.loss;
        if (adapters != NULL) {
            json_object_set_new(adapters, part->name,
                                json_pack("{s:f,s:f,s:f,s:I,s:I}", "loss", report.loss, "grad_norm", report.grad_norm,
                                          "epoch", report.epoch, "tokens", (json_int_t)report.tokens, "targets",
                                          (json_int_t)report.targets));
        }
    }
    return adapters;
}

int train_log_step(train_command *command, const lk_step_report *report) {
    if (command->steps_here == 0) {
        command->first_loss = report->loss;
    }
    command->steps_here++;
    command->last_loss = report->loss;
    command->tokens += report->tokens;
    command->samples += report->targets;
    command->seconds[TRAIN_STEPS] += report->step_seconds;
    command->seconds[TRAIN_WAIT_FOR_DATA] += report->data_seconds;
    show_step(command, report);
    json_t *adapters = adapters_of_step(command);
    if (command->log == NULL) {
        json_decref(adapters);
        return CLI_DONE;
    }
    return write_line(command,
                      json_pack("{s:I,s:f,s:o*,s:f,s:f,s:f,s:I,s:I,s:f,s:f,s:f}", "step", (json_int_t)report->step,
                                "loss", report->loss, "adapters", adapters, "learning_rate", report->learning_rate,
                                "grad_norm", report->grad_norm, "epoch", report->epoch, "tokens",
                                (json_int_t)report->tokens, "targets", (json_int_t)report->targets, "step_seconds",
                                report->step_seconds, "data_seconds", report->data_seconds, "tokens_per_second",
                                rate(report->tokens, report->step_seconds + report->data_seconds)));
}

static void show_validation(const train_command *command, const train_part *part, int64_t step) {
    const lk_eval_report *report = &part->validation;
    const char *name = part->name != NULL ? part->name : "", *colon = part->name != NULL ? ": " : "";
    if (command->workspace.quiet) {
        return;
    }
    if (report->num_labels > 0) {
        cli_message("%s%svalidation after %" PRId64 " steps: loss %.4f, accuracy %.4f, F1 %.4f", name, colon, step,
                    report->loss, report->accuracy, report->f1);
    } else {
        cli_message("%s%svalidation after %" PRId64 " steps: loss %.4f, perplexity %.2f", name, colon, step,
                    report->loss, report->perplexity);
    }
}

int train_log_validation(train_command *command, const train_part *part) {
    const lk_eval_report *report = &part->validation;
    int64_t step = lk_trainer_steps(command->trainer);
    show_validation(command, part, step);
    if (command->log == NULL) {
        return CLI_DONE;
    }
    json_t *name = part->name != NULL ? json_string(part->name) : NULL;
    if (report->num_labels > 0) {
        return write_line(command, json_pack("{s:I,s:o*,s:f,s:f,s:f,s:f}", "step", (json_int_t)step, "adapter", name,
                                             "validation_loss", report->loss, "validation_accuracy", report->accuracy,
                                             "validation_f1", report->f1, "validation_macro_f1", report->macro_f1));
    }
    return write_line(command, json_pack("{s:I,s:o*,s:f,s:f}", "step", (json_int_t)step, "adapter", name,
                                         "validation_loss", report->loss, "validation_perplexity", report->perplexity));
}

int train_log_close(train_command *command, int result) {
    if (command->log != NULL && fclose(command->log) != 0 && result == CLI_DONE) {
        result = cli_failed("--log %s: %s", command->log_path, strerror(errno));
    }
    command->log = NULL;
    return result;
}

static void print_part(const train_part *part) {
    lk_adapter_info adapter;
    lk_data_info data;
    lk_adapter_get_info(part->adapter, &adapter);
    lk_data_get_info(part->data, &data);
    cli_message("%s: %s on %" PRId64 " layers trains %.3f million parameters",
                part->name != NULL ? part->name : "adapter", adapter.method, adapter.num_modules,
                (double)adapter.num_parameters / 1e6);
    cli_message("data: %" PRId64 " samples, %" PRId64 " tokens, %" PRId64 " micro-batches per epoch", data.num_samples,
                data.num_tokens, data.batches_per_epoch);
}

void train_print_start(const train_command *command) {
    if (command->workspace.quiet) {
        return;
    }
    lk_model_info model;
    lk_model_get_info(command->workspace.model, &model);
    cli_message("%s; %s", lk_session_device_name(command->workspace.session),
                lk_session_reason(command->workspace.session));
    cli_message("model %s, %.1f million parameters", model.model_type, (double)model.num_parameters / 1e6);
    for (int i = 0; i < command->num_parts; i++) {
        print_part(&command->parts[i]);
    }
    if (command->resumed) {
        cli_message("resumed after step %" PRId64, lk_trainer_steps(command->trainer));
    } else if (command->resume) {
        cli_message("no checkpoint in %s: starting from the beginning", command->out);
    }
}

static const char *const phase_names[TRAIN_NUM_PHASES] = {
    "load_model", "load_data", "compile", "steps", "wait_for_data", "validate", "save",
};

static json_t *seconds_json(const train_command *command) {
    json_t *object = json_object();
    for (int i = 0; i < TRAIN_NUM_PHASES; i++) {
        json_object_set_new(object, phase_names[i], json_real(command->seconds[i]));
    }
    return object;
}

static bool classifies(const train_command *command) {
    return command->workspace.task == LK_TASK_CLASSIFY;
}

/* A sample of a model that classifies has one target. */
static double sample_rate(const train_command *command) {
    return rate(command->samples, command->seconds[TRAIN_STEPS] + command->seconds[TRAIN_WAIT_FOR_DATA]);
}

static void add_part(const train_command *command, const train_part *part, json_t *to) {
    if (part->evaluator == NULL) {
        return;
    }
    json_object_set_new(to, "validation_loss_before", json_real(part->val_loss_before));
    json_object_set_new(to, "validation_loss", json_real(part->val_loss));
    if (command->early_stopping > 0) {
        json_object_set_new(to, "best_step", json_integer(part->best_step));
        json_object_set_new(to, "best_validation_loss", json_real(part->best_val_loss));
    }
    if (classifies(command)) {
        json_object_set_new(to, "validation", cli_classification_json(part->evaluator, &part->validation));
    }
}

static int print_json(const train_command *command, const lk_memory_report *memory, int stopped_by) {
    json_t *summary = json_pack(
        "{s:s,s:s,s:I,s:I,s:I,s:b,s:o,s:{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}}", "adapter", command->out, "device",
        lk_session_device_name(command->workspace.session), "steps", (json_int_t)lk_trainer_steps(command->trainer),
        "steps_of_this_run", (json_int_t)command->steps_here, "tokens_of_this_run", (json_int_t)command->tokens,
        "stopped", stopped_by != 0, "seconds", seconds_json(command), "memory_bytes", "weights",
        (json_int_t)memory->weights, "adapter", (json_int_t)memory->adapter, "optimizer", (json_int_t)memory->optimizer,
        "inputs", (json_int_t)memory->inputs, "activations", (json_int_t)memory->activations, "activations_lower_bound",
        (json_int_t)memory->activations_lower_bound, "total", (json_int_t)memory->total, "peak_of_process",
        (json_int_t)cli_peak_memory());
    if (summary != NULL && command->steps_here > 0) {
        json_object_set_new(summary, "first_loss", json_real(command->first_loss));
        json_object_set_new(summary, "last_loss", json_real(command->last_loss));
        json_object_set_new(summary, "tokens_per_second", json_real(mean_rate(command)));
    }
    if (summary != NULL && command->early_stopping > 0) {
        json_object_set_new(summary, "stopped_early", json_boolean(command->stopped_early));
    }
    if (summary != NULL && classifies(command)) {
        json_object_set_new(summary, "samples_per_second", json_real(sample_rate(command)));
    }
    if (summary != NULL && command->parts[0].name == NULL) {
        add_part(command, &command->parts[0], summary);
    } else if (summary != NULL) {
        json_t *adapters = json_object();
        for (int i = 0; i < command->num_parts; i++) {
            json_t *part =
                json_pack("{s:s, s:f}", "adapter", command->parts[i].out, "last_loss", command->parts[i].last_loss);
            add_part(command, &command->parts[i], part);
            json_object_set_new(adapters, command->parts[i].name, part);
        }
        json_object_set_new(summary, "adapters", adapters);
    }
    return cli_print_json(summary);
}

static void print_validation(const train_command *command, const train_part *part) {
    if (part->evaluator == NULL) {
        return;
    }
    printf("held out  loss %.4f before, %.4f after\n", part->val_loss_before, part->val_loss);
    if (command->early_stopping > 0 && part->best_step >= 0) {
        printf("best      loss %.4f after step %" PRId64 ": its adapter is kept%s\n", part->best_val_loss,
               part->best_step, command->stopped_early ? "; stopped early" : "");
    }
    if (classifies(command)) {
        cli_print_classification(part->evaluator, &part->validation);
    }
}

static void print_text(const train_command *command, const lk_memory_report *memory) {
    printf("steps     %" PRId64, lk_trainer_steps(command->trainer));
    if (command->steps_here < lk_trainer_steps(command->trainer)) {
        printf(", %" PRId64 " of them now", command->steps_here);
    }
    if (command->steps_here > 0) {
        printf(": loss %.4f at first, %.4f at last; %" PRId64 " tokens, %.1f tokens/s", command->first_loss,
               command->last_loss, command->tokens, mean_rate(command));
    }
    if (command->steps_here > 0 && classifies(command)) {
        printf(", %.1f samples/s", sample_rate(command));
    }
    printf("\n");
    for (int i = 0; i < command->num_parts; i++) {
        if (command->parts[i].name != NULL) {
            printf("%-9s loss %.4f at last\n", command->parts[i].name, command->parts[i].last_loss);
        }
        print_validation(command, &command->parts[i]);
    }
    printf("seconds  ");
    for (int i = 0; i < TRAIN_NUM_PHASES; i++) {
        printf(" %s %.2f%s", phase_names[i], command->seconds[i], i + 1 < TRAIN_NUM_PHASES ? "," : "\n");
    }
    const struct {
        const char *name;
        size_t bytes;
    } parts[] = {
        {"weights", memory->weights}, {"adapter", memory->adapter},         {"optimizer", memory->optimizer},
        {"inputs", memory->inputs},   {"activations", memory->activations}, {"in all", memory->total},
    };
    char text[32];
    printf("memory   ");
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        printf(" %s %s,", parts[i].name, cli_bytes((double)parts[i].bytes, text));
    }
    printf(" most of the process %s\n", cli_bytes((double)cli_peak_memory(), text));
    for (int i = 0; i < command->num_parts; i++) {
        printf("adapter   %s\n", command->parts[i].out);
    }
}

int train_print_summary(const train_command *command, int stopped_by) {
    lk_memory_report memory;
    lk_trainer_get_memory(command->trainer, &memory);
    if (stopped_by != 0) {
        cli_message("stopped after step %" PRId64 " of %" PRId64 "; the same command with --resume goes on",
                    lk_trainer_steps(command->trainer), command->train_options.total_steps);
    }
    if (command->json) {
        return print_json(command, &memory, stopped_by);
    }
    print_text(command, &memory);
    return CLI_DONE;
}
