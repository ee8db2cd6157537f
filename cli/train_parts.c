/* The adapters of `lorikeet train`: the one that --data is for, or those of --mix. Each has data, held-out data and a
 * folder of its own; they share the trainer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "train.h"

/* ---- from the options ---- */

static char *join(const char *a, const char *between, const char *b) {
    size_t size = strlen(a) + strlen(between) + strlen(b) + 1;
    char *text = malloc(size);
    if (text != NULL) {
        snprintf(text, size, "%s%s%s", a, between, b);
    }
    return text;
}

/* NAME=FILE: where the name ends; NULL: it is not that. */
static const char *end_of_name(const char *text) {
    const char *equals = strchr(text, '=');
    return equals == NULL || equals == text || equals[1] == '\0' ? NULL : equals;
}

static train_part *find_part(train_command *command, const char *name, size_t length) {
    for (int i = 0; i < command->num_parts; i++) {
        const char *known = command->parts[i].name;
        if (known != NULL && strlen(known) == length && memcmp(known, name, length) == 0) {
            return &command->parts[i];
        }
    }
    return NULL;
}

static int add_part(train_command *command, const char *name, size_t length, const char *data_path) {
    train_part *part = &command->parts[command->num_parts++];
    *part = (train_part){.data_path = data_path, .best_step = -1};
    if (name != NULL) {
        part->name = calloc(length + 1, 1);
        if (part->name != NULL) {
            memcpy(part->name, name, length);
        }
    }
    part->out =
        name == NULL ? join(command->out, "", "") : (part->name != NULL ? join(command->out, "/", part->name) : NULL);
    return part->out != NULL ? CLI_DONE : cli_failed("out of memory");
}

/* The name is also that of a folder. */
static int add_mixed(train_command *command, const char *text) {
    const char *end = end_of_name(text);
    if (end == NULL || memchr(text, '/', (size_t)(end - text)) != NULL || text[0] == '.') {
        return cli_usage("--mix %s: expected NAME=FILE", text);
    }
    size_t length = (size_t)(end - text);
    if (find_part(command, text, length) != NULL || strncmp(text, "checkpoint=", length + 1) == 0) {
        return cli_usage("--mix %s: the name %.*s is taken", text, (int)length, text);
    }
    return add_part(command, text, length, end + 1);
}

static int set_held_out(train_command *command, const char *text) {
    if (command->mix.count == 0) {
        command->parts[0].val_path = text;
        return CLI_DONE;
    }
    const char *end = end_of_name(text);
    train_part *part = end != NULL ? find_part(command, text, (size_t)(end - text)) : NULL;
    if (part == NULL || part->val_path != NULL) {
        return cli_usage("--val %s: expected NAME=FILE with the name of a --mix, once for each", text);
    }
    part->val_path = end + 1;
    return CLI_DONE;
}

int train_make_parts(train_command *command, const cli_options *options) {
    if (command->mix.count > 0 && cli_given(options, "data")) {
        return cli_usage("--mix and --data exclude each other");
    }
    if (command->mix.count == 0 && command->data_path == NULL) {
        return cli_usage("--data FILE is missing");
    }
    if (command->mix.count == 0 && command->val.count > 1) {
        return cli_usage("--val was given %d times", command->val.count);
    }
    int result = command->mix.count == 0 ? add_part(command, NULL, 0, command->data_path) : CLI_DONE;
    for (int i = 0; i < command->mix.count && result == CLI_DONE; i++) {
        result = add_mixed(command, command->mix.items[i]);
    }
    for (int i = 0; i < command->val.count && result == CLI_DONE; i++) {
        result = set_held_out(command, command->val.items[i]);
    }
    for (int i = 0; i < command->num_parts && result == CLI_DONE && command->early_stopping > 0; i++) {
        if (command->parts[i].val_path == NULL && command->mix.count > 0) {
            return cli_usage("--early-stopping needs --val %s=FILE", command->parts[i].name);
        }
    }
    return result;
}

void train_free_parts(train_command *command) {
    for (int i = 0; i < command->num_parts; i++) {
        free(command->parts[i].name);
        free(command->parts[i].out);
    }
    command->num_parts = 0;
}

/* ---- making ---- */

int train_make_adapters(train_command *command) {
    lk_model *model = command->workspace.model;
    int result = CLI_DONE;
    for (int i = 0; i < command->num_parts && result == CLI_DONE; i++) {
        lk_adapter **adapter = &command->parts[i].adapter;
        result = train_checked(command, command->init_adapter != NULL
                                            ? lk_adapter_load(model, command->init_adapter, adapter)
                                            : lk_adapter_create(model, &command->adapter_options, adapter));
    }
    return result;
}

int train_load_data(train_command *command) {
    lk_model *model = command->workspace.model;
    lk_data_options in_order = command->data_options;
    in_order.shuffle = false;
    int result = CLI_DONE;
    for (int i = 0; i < command->num_parts && result == CLI_DONE; i++) {
        train_part *part = &command->parts[i];
        result = train_checked(command, lk_data_load(model, part->data_path, &command->data_options, &part->data));
        if (result == CLI_DONE && part->val_path != NULL) {
            result = train_checked(command, lk_data_load(model, part->val_path, &in_order, &part->val_data));
        }
    }
    return result;
}

/* So many epochs of the longest of the data sets. */
static int64_t steps_of_epochs(const train_command *command) {
    int64_t accumulated = command->train_options.gradient_accumulation_steps, longest = 1;
    for (int i = 0; i < command->num_parts; i++) {
        lk_data_info info;
        lk_data_get_info(command->parts[i].data, &info);
        longest = info.batches_per_epoch > longest ? info.batches_per_epoch : longest;
    }
    return command->epochs * ((longest + accumulated - 1) / accumulated);
}

int train_make_trainer(train_command *command) {
    lk_adapter *adapters[CLI_MAX_TEXTS];
    lk_data *data[CLI_MAX_TEXTS];
    for (int i = 0; i < command->num_parts; i++) {
        adapters[i] = command->parts[i].adapter;
        data[i] = command->parts[i].data;
    }
    command->train_options.total_steps = command->steps > 0 ? command->steps : steps_of_epochs(command);
    return train_checked(command,
                         lk_trainer_create_mixed(command->workspace.model, adapters, data, (size_t)command->num_parts,
                                                 &command->train_options, &command->trainer));
}

int train_make_evaluators(train_command *command) {
    int result = CLI_DONE;
    for (int i = 0; i < command->num_parts && result == CLI_DONE; i++) {
        train_part *part = &command->parts[i];
        if (part->val_data != NULL) {
            result = train_checked(command, lk_evaluator_create(command->workspace.model, part->adapter, part->val_data,
                                                                &part->evaluator));
        }
    }
    return result;
}

void train_close_parts(train_command *command) {
    for (int i = 0; i < command->num_parts; i++) {
        train_part *part = &command->parts[i];
        lk_evaluator_destroy(part->evaluator);
        lk_data_destroy(part->val_data);
        lk_data_destroy(part->data);
        lk_adapter_destroy(part->adapter);
        part->evaluator = NULL;
        part->data = part->val_data = NULL;
        part->adapter = NULL;
    }
}

/* ---- on the way ---- */

static int save_adapter(train_command *command, train_part *part) {
    double started = cli_seconds();
    int result = train_checked(command, lk_adapter_save(part->adapter, part->out));
    command->seconds[TRAIN_SAVE] += cli_seconds() - started;
    return result;
}

int train_save(train_command *command, bool with_checkpoint) {
    int result = CLI_DONE;
    for (int i = 0; i < command->num_parts && result == CLI_DONE; i++) {
        result = save_adapter(command, &command->parts[i]);
    }
    double started = cli_seconds();
    if (result == CLI_DONE && with_checkpoint) {
        result = train_checked(command, lk_trainer_save_checkpoint(command->trainer, command->checkpoint));
    }
    command->seconds[TRAIN_SAVE] += cli_seconds() - started;
    return result;
}

/* Takes note of a validation's loss. With early stopping, the part's folder holds its best adapter so far. */
static int note_validation(train_command *command, train_part *part) {
    if (part->best_step >= 0 && !(part->val_loss < part->best_val_loss)) {
        part->validations_since_best++;
        return CLI_DONE;
    }
    part->best_val_loss = part->val_loss;
    part->best_step = lk_trainer_steps(command->trainer);
    part->validations_since_best = 0;
    return save_adapter(command, part);
}

static int validate_part(train_command *command, train_part *part, bool before) {
    double started = cli_seconds();
    int result = train_checked(command, lk_evaluator_run(part->evaluator, NULL, NULL, &part->validation));
    command->seconds[TRAIN_VALIDATE] += cli_seconds() - started;
    if (result != CLI_DONE) {
        return result;
    }
    *(before ? &part->val_loss_before : &part->val_loss) = part->validation.loss;
    result = train_log_validation(command, part);
    return result == CLI_DONE && !before && command->early_stopping > 0 ? note_validation(command, part) : result;
}

int train_validate(train_command *command, bool before) {
    int result = CLI_DONE;
    bool all_stopped = command->early_stopping > 0 && !before;
    for (int i = 0; i < command->num_parts && result == CLI_DONE; i++) {
        train_part *part = &command->parts[i];
        result = part->evaluator != NULL ? validate_part(command, part, before) : CLI_DONE;
        all_stopped = all_stopped && part->validations_since_best >= command->early_stopping;
    }
    command->stopped_early = command->stopped_early || all_stopped;
    return result;
}
