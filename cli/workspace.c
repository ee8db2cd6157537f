#define _DEFAULT_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

const char *const cli_dtype_names[] = {"fp32", "bf16", "fp16", NULL};
const char *const cli_recompute_names[] = {"none", "cheap", "products", "layers", NULL};

lk_dtype cli_dtype(int index) {
    static const lk_dtype dtypes[] = {LK_DTYPE_F32, LK_DTYPE_BF16, LK_DTYPE_F16};
    return dtypes[index];
}

void cli_workspace_init(cli_workspace *workspace) {
    memset(workspace, 0, sizeof(*workspace));
    lk_session_options_init(&workspace->session_options);
    lk_workload_init(&workspace->workload);
    lk_model_options_init(&workspace->model_options);
}

void cli_workspace_options(cli_workspace *workspace, cli_options *options) {
    cli_group(options, "Device:");
    cli_text(options, "device", 0, &workspace->session_options.device, "NAME",
             "auto, or a backend that 'lorikeet probe' lists, with an index where there are several: cpu, opencl:1 "
             "(default auto, or LORIKEET_DEVICE)");
    cli_int32(options, "threads", 0, &workspace->session_options.threads, 0, 1024,
              "of the CPU; 0: one per core that this process may use");
    cli_text(options, "kernels", 0, &workspace->session_options.kernels, "NAMES",
             "kernels to prefer where they fit, separated by commas; 'lorikeet plan' names them");
    cli_group(options, "Messages:");
    cli_flag(options, "quiet", 'q', &workspace->quiet, true, "no progress, only warnings and errors");
    cli_flag(options, "verbose", 'v', &workspace->verbose, true, "also what helps to find a fault");
}

void cli_task_options(cli_workspace *workspace, cli_options *options) {
    static const char *const tasks[] = {"causal-lm", "classify", NULL};
    cli_choice(options, "task", 0, &workspace->task, tasks,
               "predict the next token, or one class per text (lines of a .tsv: class, TAB, text)");
    cli_int64(options, "labels", 0, &workspace->model_options.num_labels, 0,
              "with --task classify: the number of classes; 0: as config.json says, or 2");
}

void cli_model_options(cli_workspace *workspace, cli_options *options) {
    cli_text(options, "model", 'm', &workspace->model_path, "PATH",
             "a Hugging Face folder (config.json, *.safetensors, tokenizer.json) or a .gguf file");
    cli_required(options);
    cli_task_options(workspace, options);
    cli_choice(options, "dtype", 0, &workspace->dtype, cli_dtype_names, "type of the frozen weights in memory");
}

static void print_log(void *user, lk_log_level level, const char *message) {
    (void)user;
    cli_message("%s%s", level == LK_LOG_WARNING ? "warning: " : level == LK_LOG_ERROR ? "error: " : "", message);
}

int cli_open_context(cli_workspace *workspace) {
    lk_context_options options;
    lk_context_options_init(&options);
    options.log = print_log;
    options.log_level = workspace->verbose ? LK_LOG_DEBUG : workspace->quiet ? LK_LOG_WARNING : LK_LOG_INFO;
    lk_status status = lk_context_create(&options, &workspace->context);
    return status == LK_OK ? CLI_DONE : cli_library_failed(NULL, status);
}

static int open_failed(cli_workspace *workspace, lk_status status) {
    workspace->failure = status;
    return cli_library_failed(workspace->context, status);
}

int cli_open_session(cli_workspace *workspace) {
    int result = cli_open_context(workspace);
    if (result != CLI_DONE) {
        return result;
    }
    lk_status status = workspace->workload.model_path != NULL
                           ? lk_session_create_for(workspace->context, &workspace->session_options,
                                                   &workspace->workload, &workspace->session)
                           : lk_session_create(workspace->context, &workspace->session_options, &workspace->session);
    if (status == LK_STATUS_INVALID_ARGUMENT) {
        return cli_usage("%s", lk_error_message(workspace->context));
    }
    if (status != LK_OK) {
        return open_failed(workspace, status);
    }
    if (workspace->verbose) {
        cli_message("device %s: %s", lk_session_device_name(workspace->session), lk_session_reason(workspace->session));
    }
    return CLI_DONE;
}

void cli_plan_for(cli_workspace *workspace, const lk_adapter_options *adapter, const lk_data_options *data,
                  const lk_train_options *train) {
    workspace->workload.adapter = adapter;
    workspace->workload.data = data;
    workspace->workload.train = train;
    workspace->workload.model = &workspace->model_options;
    workspace->workload.model_path = workspace->model_path;
}

int cli_open_model(cli_workspace *workspace) {
    workspace->model_options.dtype = cli_dtype(workspace->dtype);
    workspace->model_options.task = (lk_task)workspace->task;
    int result = cli_open_session(workspace);
    if (result != CLI_DONE) {
        return result;
    }
    lk_status status =
        lk_model_load(workspace->session, workspace->model_path, &workspace->model_options, &workspace->model);
    return status == LK_OK ? CLI_DONE : open_failed(workspace, status);
}

int cli_open_adapter(cli_workspace *workspace) {
    if (workspace->adapter_path == NULL) {
        return CLI_DONE;
    }
    lk_status status = lk_adapter_load(workspace->model, workspace->adapter_path, &workspace->adapter);
    return status == LK_OK ? CLI_DONE : open_failed(workspace, status);
}

void cli_workspace_close(cli_workspace *workspace) {
    lk_adapter_destroy(workspace->adapter);
    lk_model_destroy(workspace->model);
    lk_session_destroy(workspace->session);
    lk_context_destroy(workspace->context);
    workspace->adapter = NULL;
    workspace->model = NULL;
    workspace->session = NULL;
    workspace->context = NULL;
}

void cli_adapter_options(lk_adapter_options *adapter, cli_options *options) {
    static const char *const biases[] = {"none", "lora_only", "vera_only", "oft_only", "all", NULL};
    cli_group(options, "Adapter:");
    cli_choice_text(options, "method", 0, &adapter->method, lk_adapter_methods(), "of the LoRA family");
    cli_int32(options, "rank", 'r', &adapter->rank, 1, 65536, "r: the inner size of the update B A");
    cli_real(options, "alpha", 'a', &adapter->alpha, 0, 1e6, "the update is scaled by alpha / r");
    cli_text(options, "targets", 0, &adapter->target_modules, "NAMES",
             "layers that get an adapter: all-linear, or names separated by commas, such as q_proj,v_proj; also "
             "embed_tokens and lm_head");
    cli_real(options, "dropout", 0, &adapter->dropout, 0, 0.99, "probability, on the adapter's input");
    cli_text(options, "rank-pattern", 0, &adapter->rank_pattern, "NAME=R,...",
             "other ranks for single layers, by names as in --targets");
    cli_text(options, "alpha-pattern", 0, &adapter->alpha_pattern, "NAME=X,...", "the same of alpha");
    cli_text(options, "modules-to-save", 0, &adapter->modules_to_save, "NAMES",
             "layers that are trained and stored in full (default: none, or when classifying the head)");
    cli_text(options, "layers", 0, &adapter->layers, "NUMBERS",
             "adapt only the layers with these numbers, separated by commas");
    cli_choice_text(options, "init", 0, &adapter->init, lk_adapter_inits(),
                    "how A and B start: random, or (olora, pissa) from the weight (docs/methods.md)");
    cli_choice_text(options, "bias", 0, &adapter->bias, biases,
                    "biases that are trained, too: those of adapted layers (lora_only, vera_only), or all");
    cli_flag(options, "rslora", 0, &adapter->use_rslora, true, "scale by alpha / sqrt(r), with any method that has r");
    cli_flag(options, "save-projection", 0, &adapter->save_projection, true,
             "vera: keep the frozen pair in the file, not only its seed");
    cli_flag(options, "decompose-both", 0, &adapter->decompose_both, true, "lokr: both factors have low rank");
    cli_int32(options, "decompose-factor", 0, &adapter->decompose_factor, -1, INT32_MAX,
              "lokr: the smaller side of the factorisations; -1: near the root");
    cli_int32(options, "block-size", 0, &adapter->oft_block_size, 2, 65536, "oft: columns that are rotated together");
    cli_real(options, "rank-dropout", 0, &adapter->rank_dropout, 0, 0.99,
             "loha, lokr: probability of leaving out a row of the update in a training step");
    cli_real(options, "module-dropout", 0, &adapter->module_dropout, 0, 0.99,
             "loha, lokr, oft: of leaving out a layer's whole update, or (oft) a block's");
    cli_flag(options, "coft", 0, &adapter->coft, true, "oft: with rotations that stay small");
    cli_real(options, "coft-eps", 0, &adapter->coft_eps, 0, 1e6, "oft: how small, with --coft");
    cli_flag(options, "block-share", 0, &adapter->block_share, true, "oft: one rotation for all blocks of a layer");
    cli_int32(options, "cayley-terms", 0, &adapter->cayley_terms, 0, 64,
              "oft: of the series for the rotation; 0: the exact transform");
    cli_int32(options, "init-rank", 0, &adapter->init_r, 0, 65536,
              "adalora, dynamic-lora: rank at the start, --rank being that at the end; 0: 3/2 of it, 1/4 of it");
    cli_int64(options, "tinit", 0, &adapter->tinit, 0, "adalora, dynamic-lora: steps before ranks change");
    cli_int64(options, "tfinal", 0, &adapter->tfinal, 0,
              "adalora, dynamic-lora: steps at the end in which they do not");
    cli_int64(options, "delta-t", 0, &adapter->delta_t, 1,
              "adalora, dynamic-lora: steps from one change of ranks to the next");
    cli_real(options, "orth-reg-weight", 0, &adapter->orth_reg_weight, 0, 1e6,
             "adalora: of the penalty that keeps A and B orthonormal");
    cli_real(options, "delta-ratio", 0, &adapter->delta_ratio, 0, 1e6, "delta-lora: how far W moves with B A");
    cli_int64(options, "delta-warmup", 0, &adapter->delta_warmup, 0, "delta-lora: steps before W begins to move");
    cli_real(options, "growth-threshold", 0, &adapter->growth_threshold, 0, 1e6,
             "dynamic-lora: ranks grow while smallest over largest singular value is at least this");
}

void cli_batch_options(lk_data_options *data, cli_options *options) {
    cli_int64(options, "batch", 'b', &data->batch, 1, "sequences per micro-batch");
    cli_int64(options, "seq", 0, &data->seq, 0,
              "tokens per sequence at most; default 256, or the model's limit where that is lower");
    cli_flag(options, "pack", 0, &data->pack, true, "fill each micro-batch with as many short samples as fit");
}

void cli_optimizer_options(lk_train_options *train, int *schedule, int *recompute, cli_options *options) {
    static const char *const schedules[] = {"constant", "linear", "cosine", NULL};
    *recompute = (int)train->recompute;
    cli_group(options, "Optimizer (AdamW):");
    cli_real(options, "lr", 0, &train->learning_rate, 0, 1e6, "learning rate at its highest");
    cli_real(options, "lr-ratio", 0, &train->learning_rate_ratio, 0, 1e6,
             "learning rate of B over that of A; above 1: LoRA+");
    cli_real(options, "weight-decay", 0, &train->weight_decay, 0, 1e6, "decoupled, as in AdamW");
    cli_choice(options, "schedule", 0, schedule, schedules, "of the learning rate after the warm-up");
    cli_int64(options, "warmup", 0, &train->warmup_steps, 0, "steps over which the learning rate rises from 0");
    cli_int64(options, "accum", 0, &train->gradient_accumulation_steps, 1, "micro-batches per step");
    cli_real(options, "max-grad-norm", 0, &train->max_grad_norm, 0, 1e300, "clip the gradient to this; 0: do not");
    cli_choice(options, "gradient-checkpointing", 0, recompute, cli_recompute_names,
               "what is computed again in the backward pass instead of being kept: nothing; norms and activation "
               "functions; all but attention and the sums between layers; all but these sums");
    cli_size(options, "memory-budget", 0, &train->memory_budget,
             "SIZE such as 1G: recompute no more than needed for a step's planned memory to stay below it");
}

int cli_check_folder(const char *option, const char *path) {
    struct stat about;
    if (stat(path, &about) != 0) {
        return errno == ENOENT ? CLI_DONE : cli_failed("--%s %s: %s", option, path, strerror(errno));
    }
    if (!S_ISDIR(about.st_mode)) {
        return cli_failed("--%s %s: this is not a folder", option, path);
    }
    return access(path, W_OK) == 0 ? CLI_DONE : cli_failed("--%s %s: %s", option, path, strerror(errno));
}

bool cli_temporary_path(const char *what, char *path, size_t size) {
    const char *folder = getenv("TMPDIR");
    int length = snprintf(path, size, "%s/lorikeet-%s-XXXXXX", folder != NULL ? folder : "/tmp", what);
    return length > 0 && (size_t)length < size;
}

double cli_seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

size_t cli_peak_memory(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) {
        return 0;
    }
#ifdef __APPLE__
    return (size_t)usage.ru_maxrss;
#else
    return (size_t)usage.ru_maxrss * 1024;
#endif
}

const char *cli_bytes(double bytes, char buffer[32]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    while (bytes >= 1024 && unit < 4) {
        bytes /= 1024;
        unit++;
    }
    snprintf(buffer, 32, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
    return buffer;
}

char *cli_read_file(const char *path, size_t *length) {
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *stream = is_stdin ? stdin : fopen(path, "rb");
    if (stream == NULL) {
        cli_failed("cannot open %s", path);
        return NULL;
    }
    char *bytes = NULL;
    size_t capacity = 0;
    *length = 0;
    do {
        if (capacity - *length < 2) {
            capacity = capacity == 0 ? 65536 : 2 * capacity;
            char *larger = realloc(bytes, capacity);
            if (larger == NULL) {
                cli_failed("%s: out of memory", path);
                goto failed;
            }
            bytes = larger;
        }
        *length += fread(bytes + *length, 1, capacity - *length - 1, stream);
    } while (!feof(stream) && !ferror(stream));
    if (ferror(stream)) {
        cli_failed("cannot read %s", path);
        goto failed;
    }
    bytes[*length] = '\0';
    if (!is_stdin) {
        fclose(stream);
    }
    return bytes;

failed:
    free(bytes);
    if (!is_stdin) {
        fclose(stream);
    }
    return NULL;
}
