/* The frame of the program: commands, messages, what several commands share. It uses the library's public headers only.
 */
#ifndef LK_CLI_CLI_H
#define LK_CLI_CLI_H

#include <jansson.h>

#include "lorikeet.h"
#include "options.h"

/* Exit statuses; a run that a signal stopped ends with 128 + its number, as a shell would report it. */
enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_SIGNAL = 128 };

/* argv[0] is the command's name. Returns the exit status. */
typedef int (*cli_command_function)(int argc, const char **argv);
#define LK_COMMAND(name, summary) int cli_command_##name(int argc, const char **argv);
#include "commands.def"
#undef LK_COMMAND

/* ---- messages (messages.c): one line on stderr, "lorikeet train: ..." ---- */

void cli_set_command(const char *name); /* "train"; kept by reference */
void cli_message(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, returning CLI_FAILED. */
int cli_failed(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, returning CLI_USAGE, with a second line that points at the command's --help. */
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Reports what failed in the library; returns CLI_FAILED. */
int cli_library_failed(const lk_context *context, lk_status status);
/* Writes a JSON value and a newline to stdout, and releases it; NULL (out of memory) is reported. Returns the exit
 * status. */
int cli_print_json(json_t *value);

/* The name among `names` (NULL-terminated) that is closest to a misspelt one, or NULL when none is close. */
const char *cli_closest(const char *word, const char *const *names);

/* ---- stopping (stop.c) ---- */

/* From here on, the first SIGINT or SIGTERM only sets a flag and the second one ends the program at once. */
void cli_stop_install(void);
/* The signal that asks to stop; 0: none. */
int cli_stop_signal(void);

/* ---- what a command works with (workspace.c) ---- */

typedef struct cli_workspace {
    /* options */
    lk_session_options session_options;
    lk_model_options model_options;
    int task;  /* an lk_task */
    int dtype; /* index into cli_dtype_names */
    const char *model_path, *adapter_path;
    bool quiet, verbose;
    lk_status failure;    /* of what could not be opened, or of the device */
    bool is_auto;         /* when the device fails, another may be taken (cli_watch_devices) */
    char lost[256];       /* devices that failed, separated by commas */
    lk_workload workload; /* what `auto` chooses a device for (cli_plan_for) */
    /* what they opened */
    lk_context *context;
    lk_session *session;
    lk_model *model;
    lk_adapter *adapter;
} cli_workspace;

extern const char *const cli_dtype_names[];     /* as --dtype spells them */
extern const char *const cli_recompute_names[]; /* by lk_recompute, as --gradient-checkpointing spells them */
lk_dtype cli_dtype(int index);

void cli_workspace_init(cli_workspace *workspace);
/* --device, --threads, --kernels, --quiet, --verbose */
void cli_workspace_options(cli_workspace *workspace, cli_options *options);
/* --model, required; --dtype */
void cli_model_options(cli_workspace *workspace, cli_options *options); /* with those of the task */
void cli_task_options(cli_workspace *workspace, cli_options *options);
/* Each opens what its options name, and reports a failure; returns the exit status. */
int cli_open_context(cli_workspace *workspace);
int cli_open_session(cli_workspace *workspace);
int cli_open_model(cli_workspace *workspace); /* with context and session */
/* Before that: with `--device auto`, the device is the one where a training step with these options is the shortest.
 * All three are kept by reference. */
void cli_plan_for(cli_workspace *workspace, const lk_adapter_options *adapter, const lk_data_options *data,
                  const lk_train_options *train);
int cli_open_adapter(cli_workspace *workspace); /* nothing to do where no adapter is named */
void cli_workspace_close(cli_workspace *workspace);

/* ---- devices that fail (lost_devices.c) ---- */

/* Notes whether --device is auto; then devices that were given up are not taken again. */
void cli_watch_devices(cli_workspace *workspace);
/* Whether the session's device may fail without the host, and another is left. */
bool cli_may_lose_device(const cli_workspace *workspace);
/* Reports a failure of the library; the device's is noted, and only a warning where another may be taken. */
int cli_checked(cli_workspace *workspace, lk_status status);
bool cli_is_device_failure(const cli_workspace *workspace, lk_status status);
/* With a warning that says what comes of it. False: no other may be taken. */
bool cli_give_up_device(cli_workspace *workspace, const char *consequence);

/* The options that `train` and `plan` share. */
void cli_adapter_options(lk_adapter_options *adapter, cli_options *options);
void cli_batch_options(lk_data_options *data, cli_options *options);
/* schedule: an index into constant, linear, cosine, to be copied into train->schedule */
void cli_optimizer_options(lk_train_options *train, int *schedule, int *recompute, cli_options *options);

/* ---- results of models that classify (classification.c) ---- */

/* Accuracy, F1 and the confusion matrix of the evaluator's last run, on stdout. */
void cli_print_classification(const lk_evaluator *evaluator, const lk_eval_report *report);
/* The same as an object {"accuracy", "f1", "macro_f1", "confusion"}; NULL when memory is out. */
json_t *cli_classification_json(const lk_evaluator *evaluator, const lk_eval_report *report);

/* Whether a folder can be written there, before hours are spent on what it is for. A path that is not there yet is
 * fine. */
int cli_check_folder(const char *option, const char *path);
/* A template for mkdtemp and mkstemp in TMPDIR, else /tmp: ".../lorikeet-<what>-XXXXXX". False: it does not fit. */
bool cli_temporary_path(const char *what, char *path, size_t size);
double cli_seconds(void);     /* monotonic */
size_t cli_peak_memory(void); /* the largest resident size so far in bytes; 0: unknown */
/* "1.5 GiB"; the text lies in buffer. */
const char *cli_bytes(double bytes, char buffer[32]);
/* The whole of a file, or of stdin where path is "-", NUL-terminated; free() it. NULL after a message. */
char *cli_read_file(const char *path, size_t *length);

#endif
