/* The trials of a search: how they are drawn, and the journal that keeps their results. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "search.h"

char *search_path(const search_command *command, const char *name) {
    size_t size = strlen(command->out) + strlen(name) + 2;
    char *path = malloc(size);
    if (path != NULL) {
        snprintf(path, size, "%s/%s", command->out, name);
    }
    return path;
}

/* ---- drawing ---- */

static int split(const char *option, const char *text, const char *separator, search_choices *choices) {
    choices->text = strdup(text);
    if (choices->text == NULL) {
        return cli_failed("out of memory");
    }
    char *place;
    for (char *item = strtok_r(choices->text, separator, &place); item != NULL;
         item = strtok_r(NULL, separator, &place)) {
        if (choices->count == SEARCH_MAX_CHOICES) {
            return cli_usage("%s %s: more than %d choices", option, text, SEARCH_MAX_CHOICES);
        }
        choices->items[choices->count++] = item;
    }
    return choices->count > 0 ? CLI_DONE : cli_usage("%s: no choices", option);
}

static int number_of(const char *option, const char *text, double minimum, double maximum, double *out) {
    char *end;
    *out = strtod(text, &end);
    if (end == text || *end != '\0' || !(*out >= minimum && *out <= maximum)) {
        return cli_usage("%s %s: must be from %g to %g", option, text, minimum, maximum);
    }
    return CLI_DONE;
}

/* SplitMix64: the trials are a function of seed and number alone. */
static uint64_t next_bits(uint64_t *state) {
    *state += 0x9E3779B97F4A7C15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static const char *choose(uint64_t *state, const search_choices *choices) {
    return choices->items[next_bits(state) % (uint64_t)choices->count];
}

static int draw(const search_command *command, int number, search_trial *trial) {
    uint64_t state = command->seed * 0x2545F4914F6CDD1Du + (uint64_t)number * 0x9E3779B97F4A7C15u;
    double rank, share;
    *trial = (search_trial){.number = number};
    int result = number_of("--ranks", choose(&state, &command->ranks), 1, 65536, &rank);
    if (result == CLI_DONE) {
        result = number_of("--alphas", choose(&state, &command->alphas), 0, 1e6, &trial->alpha);
    }
    if (result == CLI_DONE) {
        result = number_of("--dropouts", choose(&state, &command->dropouts), 0, 0.99, &trial->dropout);
    }
    trial->targets = choose(&state, &command->targets);
    share = (double)(next_bits(&state) >> 11) * 0x1p-53;
    trial->learning_rate = command->lr_min * pow(command->lr_max / command->lr_min, share);
    trial->rank = (int32_t)rank;
    return result;
}

/* Steps after which the worse trials end: max_steps, a share of it, and so on down to min_steps. */
static void count_rungs(search_command *command) {
    int64_t steps = command->max_steps;
    int count = 1;
    while (count < SEARCH_MAX_RUNGS && steps / command->eta >= command->min_steps) {
        steps /= command->eta;
        count++;
    }
    command->num_rungs = count;
    steps = command->max_steps;
    for (int rung = count - 1; rung >= 0; rung--) {
        command->rung_steps[rung] = steps;
        steps /= command->eta;
    }
}

int search_prepare(search_command *command) {
    int result = split("--ranks", command->ranks_text, ",", &command->ranks);
    if (result == CLI_DONE) {
        result = split("--alphas", command->alphas_text, ",", &command->alphas);
    }
    if (result == CLI_DONE) {
        result = split("--targets", command->targets_text, ";", &command->targets);
    }
    if (result == CLI_DONE) {
        result = split("--dropouts", command->dropouts_text, ",", &command->dropouts);
    }
    if (result == CLI_DONE && !(command->lr_min > 0 && command->lr_min <= command->lr_max)) {
        result =
            cli_usage("--lr-min %g and --lr-max %g: expected 0 < lr-min <= lr-max", command->lr_min, command->lr_max);
    }
    if (result != CLI_DONE) {
        return result;
    }
    count_rungs(command);
    command->trials = calloc((size_t)command->num_trials, sizeof *command->trials);
    command->journal_path = search_path(command, "journal.jsonl");
    if (command->trials == NULL || command->journal_path == NULL) {
        return cli_failed("out of memory");
    }
    for (int64_t i = 0; i < command->num_trials && result == CLI_DONE; i++) {
        result = draw(command, (int)i, &command->trials[i]);
    }
    return result;
}

void search_free(search_command *command) {
    free(command->ranks.text);
    free(command->alphas.text);
    free(command->targets.text);
    free(command->dropouts.text);
    free(command->trials);
    free(command->journal_path);
}

/* ---- the journal: a line for each trial and rung ---- */

static bool is_near(double a, double b) {
    return fabs(a - b) <= 1e-6 * fabs(b);
}

/* Notes a line's result; false when it is not one of this search. */
static bool take_line(search_command *command, const json_t *line) {
    json_int_t number = json_integer_value(json_object_get(line, "trial"));
    json_int_t rung = json_integer_value(json_object_get(line, "rung"));
    json_int_t steps = json_integer_value(json_object_get(line, "steps"));
    const char *targets = json_string_value(json_object_get(line, "targets"));
    if (number < 0 || number >= command->num_trials || rung < 0 || rung >= command->num_rungs || targets == NULL) {
        return false;
    }
    search_trial *trial = &command->trials[number];
    bool same = steps == command->rung_steps[rung] && strcmp(targets, trial->targets) == 0 &&
                json_integer_value(json_object_get(line, "rank")) == trial->rank &&
                is_near(json_number_value(json_object_get(line, "learning_rate")), trial->learning_rate) &&
                json_number_value(json_object_get(line, "alpha")) == trial->alpha &&
                json_number_value(json_object_get(line, "dropout")) == trial->dropout;
    if (!same || rung != trial->rungs) {
        return false;
    }
    const json_t *loss = json_object_get(line, "validation_loss"); /* null: the run ended in values without meaning */
    trial->losses[trial->rungs++] = json_is_number(loss) ? json_number_value(loss) : INFINITY;
    trial->seconds += json_number_value(json_object_get(line, "seconds"));
    return true;
}

int search_read_journal(search_command *command) {
    FILE *file = fopen(command->journal_path, "rb");
    if (file == NULL) {
        return CLI_DONE; /* the first time */
    }
    if (!command->resume) {
        fclose(file);
        return cli_failed("%s is there already: --resume goes on with it, another --out starts anew",
                          command->journal_path);
    }
    char text[1024];
    size_t number = 0;
    long whole = 0; /* bytes of complete lines */
    int result = CLI_DONE;
    while (result == CLI_DONE && fgets(text, sizeof text, file) != NULL) {
        number++;
        if (strchr(text, '\n') == NULL && feof(file)) {
            cli_message("warning: %s: line %zu is cut short and taken away", command->journal_path, number);
            if (truncate(command->journal_path, whole) != 0) {
                result = cli_failed("%s: %s", command->journal_path, strerror(errno));
            }
            break;
        }
        whole = ftell(file);
        json_t *line = json_loads(text, 0, NULL);
        if (!take_line(command, line)) {
            result = cli_failed("%s: line %zu is not of this search; give the same options as before, or another --out",
                                command->journal_path, number);
        }
        json_decref(line);
    }
    fclose(file);
    return result;
}

int search_write_journal(const search_command *command, const search_trial *trial, int rung, double seconds) {
    double loss = trial->losses[rung];
    json_t *line =
        json_pack("{s:i,s:i,s:I,s:i,s:f,s:f,s:s,s:f,s:o,s:f}", "trial", trial->number, "rung", rung, "steps",
                  (json_int_t)command->rung_steps[rung], "rank", (int)trial->rank, "learning_rate",
                  trial->learning_rate, "alpha", trial->alpha, "targets", trial->targets, "dropout", trial->dropout,
                  "validation_loss", isfinite(loss) ? json_real(loss) : json_null(), "seconds", seconds);
    char *text = line != NULL ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(line);
    FILE *file = text != NULL ? fopen(command->journal_path, "ab") : NULL;
    bool written = file != NULL && fprintf(file, "%s\n", text) > 0;
    written = file != NULL && fclose(file) == 0 && written;
    free(text);
    return written ? CLI_DONE : cli_failed("%s: %s", command->journal_path, strerror(errno));
}

/* ---- order ---- */

static bool is_better(const search_trial *a, const search_trial *b) {
    if (a->rungs != b->rungs) {
        return a->rungs > b->rungs;
    }
    return a->rungs > 0 && a->losses[a->rungs - 1] < b->losses[b->rungs - 1];
}

void search_sort(const search_command *command, int64_t *order) {
    for (int64_t i = 0; i < command->num_trials; i++) {
        int64_t place = i;
        while (place > 0 && is_better(&command->trials[i], &command->trials[order[place - 1]])) {
            order[place] = order[place - 1];
            place--;
        }
        order[place] = i;
    }
}
