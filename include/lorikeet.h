/* Lorikeet: fine-tuning of transformer models with the LoRA family on whatever hardware is there. Licence: Apache-2.0.
 */
#ifndef LORIKEET_H
#define LORIKEET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(LK_STATIC)
#define LK_API
#elif defined(_WIN32)
#ifdef LK_BUILDING
#define LK_API __declspec(dllexport)
#else
#define LK_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define LK_API __attribute__((visibility("default")))
#else
#define LK_API
#endif

#define LK_VERSION_MAJOR 0
#define LK_VERSION_MINOR 1
#define LK_VERSION_PATCH 0

/* ================================================================================================================
 * Status, messages, memory
 *
 * Functions return an lk_status; results come back through the last parameters, which are set to NULL (or zero) on
 * failure. The library never prints, aborts or exits. Pointers may be NULL only where this header says so. What a
 * function creates, the caller destroys with the *_destroy function of its type; each of those takes NULL. Text
 * arguments are UTF-8, NUL-terminated and copied. Config structs start with `size_t struct_size` and are set up by
 * their *_init function, so that a program compiled against an older header keeps working with a newer library.
 * ================================================================================================================ */

typedef enum lk_status {
#define LK_STATUS(NAME, value, text) LK_STATUS_##NAME = value,
#include "lorikeet/status.def"
#undef LK_STATUS
} lk_status;
#define LK_OK LK_STATUS_OK

/* "INVALID_ARGUMENT" and so on; never NULL. */
LK_API const char *lk_status_name(lk_status status);
/* A one-line explanation of the status as such; never NULL. */
LK_API const char *lk_status_text(lk_status status);
/* "0.1.0" */
LK_API const char *lk_version(void);

typedef enum lk_log_level { LK_LOG_DEBUG, LK_LOG_INFO, LK_LOG_WARNING, LK_LOG_ERROR } lk_log_level;

/* Called on the thread that made the library call; `message` has no newline and is valid during the call only. */
typedef void (*lk_log_function)(void *user, lk_log_level level, const char *message);

/* Where memory comes from; all three or none. Each behaves as its namesake of the C library and may be called from
 * the thread that made the library call only. */
typedef struct lk_allocator {
    void *(*allocate)(void *user, size_t size);
    void *(*reallocate)(void *user, void *pointer, size_t size);
    void (*release)(void *user, void *pointer);
    void *user;
} lk_allocator;

typedef struct lk_context_options {
    size_t struct_size;
    lk_log_function log; /* NULL: messages are dropped */
    void *log_user;
    lk_log_level log_level;        /* messages below it are not formatted; default LK_LOG_INFO */
    const lk_allocator *allocator; /* copied; NULL: malloc, realloc, free */
} lk_context_options;
LK_API void lk_context_options_init(lk_context_options *options);

/* Everything else is made from a context and must be destroyed before it. One context is used by one thread at a time;
 * different contexts are independent. */
typedef struct lk_context lk_context;
/* options may be NULL. */
LK_API lk_status lk_context_create(const lk_context_options *options, lk_context **out);
LK_API void lk_context_destroy(lk_context *context);
/* What went wrong in the last call that failed on this context, one line that names file, field and value; "" when
 * nothing has failed. Valid until the next failure or the context's end. */
LK_API const char *lk_error_message(const lk_context *context);

/* ================================================================================================================
 * Data types
 * ================================================================================================================ */

typedef enum lk_dtype {
#define LK_DTYPE(NAME, name, safetensors_name, block_size, block_bytes) LK_DTYPE_##NAME,
#include "lorikeet/dtypes.def"
#undef LK_DTYPE
    LK_DTYPE_COUNT
} lk_dtype;

/* "f32", "bf16", "q4_0", ... */
LK_API const char *lk_dtype_name(lk_dtype dtype);
/* Elements per block and bytes per block; 1 and the element's size for plain types. */
LK_API int64_t lk_dtype_block_size(lk_dtype dtype);
LK_API size_t lk_dtype_block_bytes(lk_dtype dtype);

/* ================================================================================================================
 * Sessions: the devices that a model runs on
 * ================================================================================================================ */

typedef struct lk_session_options {
    size_t struct_size;
    /* "auto", or a backend's name with an optional index: "cpu", "reference", "opencl:1". NULL: the environment
     * variable LORIKEET_DEVICE, or else "auto". */
    const char *device;
    int32_t threads; /* of the cpu backend; 0: one per physical core that this process may use */
    /* Kernel names separated by commas that are preferred where they support a node. NULL: LORIKEET_KERNELS, or none.
     */
    const char *kernels;
    const char *exclude; /* devices that "auto" does not take, separated by commas: "vulkan:0,opencl:1"; NULL: none */
} lk_session_options;
LK_API void lk_session_options_init(lk_session_options *options);

/* An open main device, and those behind it that run what it cannot (the CPU, and last the reference). */
typedef struct lk_session lk_session;
/* UNAVAILABLE, with what is missing and how to get it, when the device is not there. options may be NULL. */
LK_API lk_status lk_session_create(lk_context *context, const lk_session_options *options, lk_session **out);
/* What is here: every backend of this build with its devices and what matters of them, or what it lacks and how to get
 * it. As text for people, or JSON; released by lk_release. Never fails for want of a driver or a device. */
LK_API lk_status lk_probe(lk_context *context, bool json, char **text);
LK_API void lk_session_destroy(lk_session *session);
/* "cpu:0 AMD EPYC 9554 (2 threads, avx512)": for people. */
LK_API const char *lk_session_device_name(const lk_session *session);
/* One line on why this device was taken, and with "auto" what was estimated for each. Like the name, borrowed from the
 * session. */
LK_API const char *lk_session_reason(const lk_session *session);

/* ================================================================================================================
 * Models
 * ================================================================================================================ */

typedef enum lk_task {
    LK_TASK_CAUSAL_LM, /* predict the next token */
    LK_TASK_CLASSIFY   /* one class per sequence, by a head on top of the model */
} lk_task;

typedef struct lk_model_options {
    size_t struct_size;
    lk_dtype dtype;     /* of the weight matrices in memory: LK_DTYPE_F32, LK_DTYPE_BF16 or LK_DTYPE_F16 */
    bool plan_only;     /* describe the weights without loading them: for lk_plan */
    lk_task task;       /* default LK_TASK_CAUSAL_LM */
    int64_t num_labels; /* LK_TASK_CLASSIFY: classes; 0: as many as config.json says, or 2 */
    uint64_t seed;      /* of a classification head that the files lack or have for another number of classes */
} lk_model_options;
LK_API void lk_model_options_init(lk_model_options *options);

/* A frozen base model: weights on the session's device, tokenizer if the files have one. */
typedef struct lk_model lk_model;
/* path: a Hugging Face folder (config.json, *.safetensors, tokenizer.json), a .gguf file, or a folder with one .gguf.
 * The session must outlive the model. options may be NULL. */
LK_API lk_status lk_model_load(lk_session *session, const char *path, const lk_model_options *options, lk_model **out);
LK_API void lk_model_destroy(lk_model *model);

typedef struct lk_model_info {
    const char *path, *model_type; /* borrowed from the model */
    int64_t num_parameters;
    int64_t hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, intermediate_size;
    int64_t vocab_size, max_position_embeddings;
    bool has_tokenizer;
    lk_task task;
    int64_t num_labels; /* 0 unless classifying */
} lk_model_info;
LK_API void lk_model_get_info(const lk_model *model, lk_model_info *info);
/* The name of a class of a model that classifies, from config.json; NULL: the files give none. Borrowed. */
LK_API const char *lk_model_label(const lk_model *model, int64_t index);

/* ================================================================================================================
 * Tokenizers
 * ================================================================================================================ */

typedef struct lk_tokenizer lk_tokenizer;
/* From a folder with tokenizer.json, or a .gguf file. One thread at a time. */
LK_API lk_status lk_tokenizer_open(lk_context *context, const char *path, lk_tokenizer **out);
LK_API void lk_tokenizer_destroy(lk_tokenizer *tokenizer);
/* A model's own; NULL if its files have none. Borrowed from the model: do not destroy it. */
LK_API lk_tokenizer *lk_model_tokenizer(const lk_model *model);
/* The ids of a text. Special tokens written in the text are recognised; with add_special those that the tokenizer puts
 * around a text (beginning of text, [CLS], ...) are added. *ids is released by lk_release. */
LK_API lk_status lk_tokenizer_to_ids(lk_tokenizer *tokenizer, const char *text, size_t length, bool add_special,
                                     int32_t **ids, size_t *count);
/* The text of ids, NUL-terminated; released by lk_release. */
LK_API lk_status lk_tokenizer_to_text(lk_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                                      char **text);
/* Releases what a function of this header handed out and says so. NULL is allowed. */
LK_API void lk_release(lk_context *context, void *pointer);

/* ================================================================================================================
 * Adapters
 * ================================================================================================================ */

typedef struct lk_adapter_options {
    size_t struct_size;
    const char *method; /* a name from lk_adapter_methods: "lora", "dora", ... (docs/methods.md) */
    int32_t rank;       /* r, default 8 */
    double alpha;       /* lora_alpha, default 16; the update is scaled by alpha / r (rslora: alpha / sqrt(r)) */
    double dropout;     /* on the adapter's input, default 0 */
    const char *modules_to_save; /* layers trained and stored in full, by name; NULL: none, or when classifying
                                  * "classifier,score", which is the head */
    const char *target_modules;  /* "all-linear" (every linear layer but the output head; default), names separated by
                                  * commas ("q_proj,v_proj"), matched as PEFT does: the whole path or its end; lora
                                  * and rslora also adapt embeddings ("embed_tokens") and the head ("lm_head") */
    uint64_t seed;               /* of the initial A and B */
    bool use_rslora;             /* lora, dora, lora-fa: scale by alpha / sqrt(r), default false */
    const char *bias; /* "none" (default); "lora_only" (vera: "vera_only"): the biases of the adapted layers are
                       * trained, too; "all": all of the model's biases */
    /* lora, rslora, dora, lora-fa, loha, lokr: "q_proj=6,layers.1.mlp.down_proj=2": ranks and alphas of single layers,
     * by PEFT's rank_pattern and alpha_pattern (regular expressions without a comma, matched at a path's end); NULL:
     * none */
    const char *rank_pattern, *alpha_pattern;
    const char *layers;   /* "0,2,3": only layers with these numbers are adapted; NULL: all */
    bool save_projection; /* vera: keep the frozen pair in the file (else PEFT and we draw it again from the seed);
                           * default false */
    /* lokr, by PEFT's names: the left factor of the Kronecker product has low rank, too (default false); the smaller
     * side of both sides' factorisations, -1 (default): near the root */
    bool decompose_both;
    int32_t decompose_factor;
    int32_t oft_block_size; /* oft: columns that are rotated together, default 32; where they do not divide a layer's
                             * inputs, the nearest number that does. The rank is not used */
    bool block_share;       /* oft: one rotation for all blocks of a layer, default false */
    int32_t
        cayley_terms; /* oft: of the series for the rotation (PEFT's num_cayley_neumann_terms), default 5; 0: exact */
    /* adalora, by PEFT's names; the rank is target_r. init_r, default 0: one and a half times the rank. Of the run's
     * steps, ranks are taken away after the first tinit and until the last tfinal, every delta_t steps (0, 0, 1) */
    int32_t init_r;
    int64_t tinit, tfinal, delta_t;
    double importance_beta1, importance_beta2; /* of the means that importance is made of, default 0.85 */
    double orth_reg_weight;                    /* of the penalty that keeps A and B orthonormal, default 0.5 */
    /* delta-lora: how far W moves for every move of B A, default 2, and after how many steps that begins, default 0 */
    double delta_ratio;
    int64_t delta_warmup;
    /* dynamic-lora: a layer's rank grows from init_r (default 0: a quarter of the rank) towards the rank, by one every
     * delta_t steps after the first tinit and before the last tfinal, if the smallest singular value of its update is
     * at least this share of the largest; default 0.1 */
    double growth_threshold;
    /* In training: rows of the update (loha, lokr) are left out with this probability, and all of it (oft: single
     * blocks); default 0 */
    double rank_dropout, module_dropout;
    bool coft;        /* oft: no block's Q is longer than coft_eps / sqrt(blocks): PEFT's coft and eps; default false */
    double coft_eps;  /* default 6e-5 */
    const char *init; /* how A and B start: "default" (A Kaiming-uniform as in PEFT, B zero), or another of
                       * lk_adapter_inits ("lycoris" is of lokr); NULL: "default" */
} lk_adapter_options;
LK_API void lk_adapter_options_init(lk_adapter_options *options);
/* The starts of LoRA's A and B, NULL-terminated (docs/methods.md). */
LK_API const char *const *lk_adapter_inits(void);
/* The methods of this build, NULL-terminated. */
LK_API const char *const *lk_adapter_methods(void);

/* The trainable tensors that change a model. The model must outlive it. */
typedef struct lk_adapter lk_adapter;
LK_API lk_status lk_adapter_create(lk_model *model, const lk_adapter_options *options, lk_adapter **out);
/* A PEFT folder: adapter_config.json and adapter_model.safetensors. */
LK_API lk_status lk_adapter_load(lk_model *model, const char *folder, lk_adapter **out);
/* Writes the same, so that PEFT loads it. Files that were there stay whole until the new ones are complete. */
LK_API lk_status lk_adapter_save(lk_adapter *adapter, const char *folder);
LK_API void lk_adapter_destroy(lk_adapter *adapter);

typedef struct lk_adapter_info {
    const char *method;
    int64_t num_parameters; /* trainable */
    int64_t num_tensors;
    int64_t num_modules; /* layers that it changes */
} lk_adapter_info;
LK_API void lk_adapter_get_info(const lk_adapter *adapter, lk_adapter_info *info);
/* Trainable tensor `index`: its PEFT name ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"), shape
 * (two extents) and, where not NULL, its fp32 values and the gradient sums of the current step. */
LK_API lk_status lk_adapter_get_tensor(lk_adapter *adapter, int64_t index, const char **name, int64_t shape[2],
                                       float *values, float *gradients);

/* Writes base plus adapter (NULL: the base) as a Hugging Face folder (config.json, model.safetensors, tokenizer files)
 * or, where the path ends in ".gguf", as one file for llama.cpp (llama, qwen2 and qwen3 models). dtype of the weights
 * on disk: LK_DTYPE_F32, LK_DTYPE_BF16, LK_DTYPE_F16, and in GGUF LK_DTYPE_Q8_0. INVALID_ARGUMENT when the path is the
 * one that the base was loaded from: it is never overwritten. progress may be NULL. */
typedef void (*lk_progress_function)(void *user, int64_t done, int64_t total);
LK_API lk_status lk_merge(lk_model *model, lk_adapter *adapter, lk_dtype dtype, const char *folder,
                          lk_progress_function progress, void *user);

/* Several adapters of one model can be there at a time: each function is given the one that it is to use, or NULL for
 * the base. This makes one adapter of several that computes each text of a batch with its own: lk_generate_options
 * .adapters. The parts are copied and may be destroyed. For generation: it cannot be trained (lk_trainer_create_mixed
 * trains the parts), saved or merged. UNSUPPORTED for methods other than lora, rslora and lora-fa. */
LK_API lk_status lk_adapter_mix(lk_adapter *const *adapters, size_t count, lk_adapter **out);

/* ---- adapters of other programs, and sums of adapters ---- */

typedef enum lk_adapter_format {
    LK_ADAPTER_PEFT, /* a folder: adapter_config.json, adapter_model.safetensors */
    LK_ADAPTER_GGUF, /* llama.cpp's: one file */
    LK_ADAPTER_MLX   /* MLX-LM's: a folder: adapter_config.json, adapters.safetensors */
} lk_adapter_format;

typedef enum lk_combine {
    LK_COMBINE_SVD,    /* the update of the given rank that is nearest to the weighted sum */
    LK_COMBINE_LINEAR, /* A and B summed each, with the roots of the weights: ranks must be equal; an approximation */
    LK_COMBINE_CAT     /* exactly the weighted sum; its rank is the sum of the ranks */
} lk_combine;

typedef struct lk_convert_options {
    size_t struct_size;
    lk_adapter_format format; /* to write; default LK_ADAPTER_PEFT */
    const char *base_model;   /* as for lk_model_load; needed where GGUF is read or written, otherwise NULL */
    lk_combine how;           /* where there are several adapters; default LK_COMBINE_SVD */
    int64_t rank;             /* of LK_COMBINE_SVD; 0: the largest rank of the adapters */
} lk_convert_options;
LK_API void lk_convert_options_init(lk_convert_options *options);
/* Writes `to` from one LoRA adapter, whose format is recognised, or from the sum of several with these weights (NULL:
 * one adapter, as it is). Without loss but for fp32 rounding where a format cannot hold different scales (see
 * docs/formats.md). UNSUPPORTED names what a format cannot hold: DoRA in GGUF, layers stored in full, other methods. */
LK_API lk_status lk_convert_adapter(lk_context *context, const char *const *from, const double *weights, size_t count,
                                    const lk_convert_options *options, const char *to);

/* ================================================================================================================
 * Data
 * ================================================================================================================ */

typedef struct lk_data_options {
    size_t struct_size;
    int64_t batch; /* sequences per micro-batch, default 4 */
    int64_t seq;   /* tokens per sequence at most; default 0: 256, or the model's limit where that is lower */
    bool pack;     /* fill batch * seq tokens with as many samples as fit */
    bool shuffle;  /* default true */
    uint64_t seed;
    const char *cache_directory; /* tokenised data is kept there; NULL: it is not kept */
} lk_data_options;
LK_API void lk_data_options_init(lk_data_options *options);

/* Samples tokenised for one model: .txt, .jsonl ({"text"}, {"prompt","completion"}, {"messages"}), .ids. */
typedef struct lk_data lk_data;
LK_API lk_status lk_data_load(lk_model *model, const char *path, const lk_data_options *options, lk_data **out);
LK_API void lk_data_destroy(lk_data *data);

typedef struct lk_data_info {
    int64_t num_samples, num_tokens, num_targets, longest;
    int64_t batches_per_epoch;
} lk_data_info;
LK_API void lk_data_get_info(const lk_data *data, lk_data_info *info);

/* ================================================================================================================
 * Training
 * ================================================================================================================ */

typedef enum lk_schedule { LK_SCHEDULE_CONSTANT, LK_SCHEDULE_LINEAR, LK_SCHEDULE_COSINE } lk_schedule;

/* What of the forward pass is computed again during the backward pass instead of being kept. The numbers are the same
 * bit for bit. */
typedef enum lk_recompute {
    LK_RECOMPUTE_NONE,
    LK_RECOMPUTE_CHEAP, /* norms and activation functions: some 0.1 % of the arithmetic for a quarter of activations */
    LK_RECOMPUTE_PRODUCTS, /* all but attention and the sums between layers */
    LK_RECOMPUTE_LAYERS    /* all but the sums between layers: gradient checkpointing */
} lk_recompute;

typedef struct lk_train_options {
    size_t struct_size;
    double learning_rate;                       /* default 2e-4 */
    double learning_rate_ratio;                 /* of lora_B to lora_A (LoRA+, arXiv 2402.12354), default 1 */
    double beta1, beta2, epsilon, weight_decay; /* AdamW: 0.9, 0.999, 1e-8, 0 */
    lk_schedule schedule;                       /* default LK_SCHEDULE_CONSTANT */
    int64_t warmup_steps;                       /* the learning rate rises linearly from 0 over these */
    int64_t total_steps;                        /* where the schedule ends; required */
    int64_t gradient_accumulation_steps;        /* micro-batches per step, default 1 */
    double max_grad_norm;                       /* 0: no clipping; default 0 */
    uint64_t seed;                              /* of dropout */
    lk_recompute recompute;                     /* at least this; default LK_RECOMPUTE_CHEAP */
    /* > 0: the least recomputation with which a step's planned memory (lk_memory_report.total) is at most this many
     * bytes; an error where there is none. Default 0 */
    int64_t memory_budget;
    /* Keep a copy of the adapter and its moments in the host's memory, from which a checkpoint can be written when the
     * device is lost. It is renewed after steps, as often as that takes 2 % of the time. Default false */
    bool keep_copy;
} lk_train_options;
LK_API void lk_train_options_init(lk_train_options *options);

/* What one optimizer step did. */
typedef struct lk_step_report {
    int64_t step;     /* from 1 */
    double loss;      /* mean over the step's targets */
    double grad_norm; /* before clipping */
    double learning_rate;
    int64_t tokens;      /* in samples, without padding */
    int64_t targets;     /* with a loss */
    double epoch;        /* passes over the data so far */
    double step_seconds; /* computing */
    double data_seconds; /* before that, waiting for data */
} lk_step_report;

/* Model, adapters and data must outlive the trainer. */
typedef struct lk_trainer lk_trainer;
/* Builds the graph of a step, chooses kernels, plans memory and compiles: a step allocates nothing. */
LK_API lk_status lk_trainer_create(lk_model *model, lk_adapter *adapter, lk_data *data, const lk_train_options *options,
                                   lk_trainer **out);
/* Trains several adapters side by side, each on its own data: a micro-batch is one of each, with the base's products
 * made once for all. Every adapter has its own mean loss, clipping and moments, and becomes what it becomes alone, but
 * for rounding (and but for dropout's masks). A step's reported loss is the mean of theirs, its norm that of all
 * gradients, its epoch the largest. UNSUPPORTED for methods other than lora, rslora and lora-fa, for adapters of
 * embeddings and heads, and where their dropout differs. */
LK_API lk_status lk_trainer_create_mixed(lk_model *model, lk_adapter *const *adapters, lk_data *const *data,
                                         size_t count, const lk_train_options *options, lk_trainer **out);
/* The last step of one of the adapters: loss, norm, tokens, targets and epoch are its own. */
LK_API lk_status lk_trainer_get_part(const lk_trainer *trainer, size_t index, lk_step_report *report);
LK_API void lk_trainer_destroy(lk_trainer *trainer);
/* One optimizer step. NUMERIC when the loss or the gradient is not finite: the message names the step and the op where
 * the first such value arises; the adapter keeps its values from before the step. DEVICE or OUT_OF_MEMORY when the
 * device fails: the message names the op. Then lk_trainer_save_checkpoint is all that can be done with the trainer, and
 * only with keep_copy: a trainer on another device goes on from there. */
LK_API lk_status lk_trainer_step(lk_trainer *trainer, lk_step_report *report);
/* Steps done so far. */
LK_API int64_t lk_trainer_steps(const lk_trainer *trainer);
/* Everything needed to go on bit for bit (adapter, moments, step, place in the data), written as a folder. With
 * keep_copy a device that has failed is not asked: the state is then that after the step of the last copy. */
LK_API lk_status lk_trainer_save_checkpoint(lk_trainer *trainer, const char *folder);
/* Into a trainer made with the same options and data; a mismatch is an error that names the field. */
LK_API lk_status lk_trainer_load_checkpoint(lk_trainer *trainer, const char *folder);

/* Where memory goes, in bytes. */
typedef struct lk_memory_report {
    size_t weights, adapter, optimizer, inputs, cache; /* persistent, by purpose */
    size_t activations;                                /* the arena of intermediates and scratch */
    size_t activations_lower_bound;                    /* the most that is alive at one time: no plan can be smaller */
    size_t total;
} lk_memory_report;
LK_API void lk_trainer_get_memory(const lk_trainer *trainer, lk_memory_report *report);

/* ================================================================================================================
 * Evaluation and generation
 * ================================================================================================================ */

typedef struct lk_eval_report {
    double loss; /* mean over all targets, nats */
    double perplexity;
    int64_t targets, tokens, sequences;
    double seconds;
    /* of a model that classifies; otherwise 0 */
    int64_t num_labels;
    double accuracy;
    double f1;       /* with two classes that of class 1, otherwise macro_f1 */
    double macro_f1; /* the mean over the classes */
} lk_eval_report;

/* One pass over the data in order. adapter may be NULL: the base alone. */
typedef struct lk_evaluator lk_evaluator;
LK_API lk_status lk_evaluator_create(lk_model *model, lk_adapter *adapter, lk_data *data, lk_evaluator **out);
LK_API void lk_evaluator_destroy(lk_evaluator *evaluator);
LK_API lk_status lk_evaluator_run(lk_evaluator *evaluator, lk_progress_function progress, void *user,
                                  lk_eval_report *report);

/* After a run of a model that classifies: counts[class * num_labels + prediction]. */
LK_API lk_status lk_evaluator_get_confusion(const lk_evaluator *evaluator, int64_t *counts);

/* Logits of every position of one sequence of ids, fp32 [count, vocab_size] (of the classes, [num_labels], from a model
 * that classifies), for tests and tools. */
LK_API lk_status lk_logits(lk_model *model, lk_adapter *adapter, const int32_t *ids, size_t count, float *logits);

/* A model ready to classify texts, options->batch * options->seq tokens at a time. Of the options only these two are
 * used; NULL: the defaults. adapter may be NULL. */
typedef struct lk_classifier lk_classifier;
LK_API lk_status lk_classifier_create(lk_model *model, lk_adapter *adapter, const lk_data_options *options,
                                      lk_classifier **out);
LK_API void lk_classifier_destroy(lk_classifier *classifier);
/* probabilities [count, num_labels]: of the classes, for each text. A text with more than options->seq tokens is cut
 * (what the tokenizer puts at its end stays). */
LK_API lk_status lk_classifier_run(lk_classifier *classifier, const char *const *texts, size_t count,
                                   float *probabilities);

typedef struct lk_generate_options {
    size_t struct_size;
    int64_t max_new_tokens; /* default 128 */
    double temperature;     /* 0: greedy; default 0 */
    int64_t top_k;          /* 0: no limit */
    double top_p;           /* 1: no limit */
    uint64_t seed;
    bool chat;          /* the prompt is a user's message, put into the model's chat template */
    const char *system; /* with chat: the system message; NULL: the template's own */
    /* as transformers' parameters of these names, default 1 and 0 (off) */
    double repetition_penalty;
    int64_t no_repeat_ngram_size;
    int64_t num_beams;       /* 1: none; otherwise beam search, without sampling. Default 1 */
    double length_penalty;   /* of beams: their score is divided by their length to this power. Default 1 */
    bool early_stopping;     /* of beams: stop when num_beams are finished. Default false */
    const char *const *stop; /* NULL-terminated: the text ends before the first of these; NULL: none */
    /* with lk_adapter_mix, for each prompt: the number of its adapter, or -1 for the base; NULL: all the first one's */
    const int32_t *adapters;
} lk_generate_options;
LK_API void lk_generate_options_init(lk_generate_options *options);

/* Receives the text as it is made, in pieces of whole characters; false stops. */
typedef bool (*lk_text_function)(void *user, const char *text, size_t length);

typedef struct lk_generate_report {
    int64_t prompt_tokens, new_tokens;
    double prompt_seconds, new_seconds;
    bool stopped; /* at an end token or a stop string, before max_new_tokens */
} lk_generate_report;

/* A model ready to continue texts of up to max_tokens (prompt and continuation), with a cache of keys and values. */
typedef struct lk_generator lk_generator;
LK_API lk_status lk_generator_create(lk_model *model, lk_adapter *adapter, int64_t max_tokens, lk_generator **out);
LK_API void lk_generator_destroy(lk_generator *generator);
LK_API lk_status lk_generator_run(lk_generator *generator, const char *prompt, const lk_generate_options *options,
                                  lk_text_function text, void *user, lk_generate_report *report);

/* The same with room for max_sequences texts, which go through together; beam search needs num_beams. */
LK_API lk_status lk_generator_create_batch(lk_model *model, lk_adapter *adapter, int64_t max_tokens,
                                           int64_t max_sequences, lk_generator **out);
/* Receives the text of prompt `index`; false stops that one. */
typedef bool (*lk_batch_text_function)(void *user, size_t index, const char *text, size_t length);
/* Any number of prompts: where one ends, the next takes its place. Each gives the text that it gives alone, but that
 * when sampling the seed of prompt i is options->seed + i. reports[count]; new_seconds is from a prompt's first new
 * token to its last, the others' included. With beams, one prompt goes at a time. */
LK_API lk_status lk_generator_run_batch(lk_generator *generator, const char *const *prompts, size_t count,
                                        const lk_generate_options *options, lk_batch_text_function text, void *user,
                                        lk_generate_report *reports);

/* ================================================================================================================
 * Plans
 * ================================================================================================================ */

/* What a training step would do: per op the chosen kernel, its estimated time and why the other candidates were
 * refused; memory by purpose; totals. As text for people, or JSON. Works on a model loaded with plan_only. The text is
 * released by lk_release. */
LK_API lk_status lk_plan(lk_model *model, lk_adapter *adapter, const lk_data_options *data,
                         const lk_train_options *train, bool json, char **text);
/* The same of an existing trainer, with the times measured in one more step that leaves its state as it was. */
LK_API lk_status lk_trainer_profile(lk_trainer *trainer, bool json, char **text);
/* Measures, on the main device of the model's session, every kernel that fits an operation of a training step, keeps
 * the times for later sessions, and describes them, as text for people or JSON. Works on a model loaded with plan_only.
 * progress may be NULL. The text is released by lk_release. */
LK_API lk_status lk_tune(lk_model *model, lk_adapter *adapter, const lk_data_options *data,
                         const lk_train_options *train, lk_progress_function progress, void *user, bool json,
                         char **text);

/* A training step, to choose a device for. Options that are NULL are the defaults. */
typedef struct lk_workload {
    size_t struct_size;
    const char *model_path;
    const lk_model_options *model;
    const lk_adapter_options *adapter;
    const lk_data_options *data;
    const lk_train_options *train;
} lk_workload;
LK_API void lk_workload_init(lk_workload *workload);
/* As lk_session_create, but "auto" takes the device with the lowest estimated time of this step: the sum over the
 * kernels that would be chosen there, with what has no kernel there run on the CPU and copied. */
LK_API lk_status lk_session_create_for(lk_context *context, const lk_session_options *options,
                                       const lk_workload *workload, lk_session **out);

#ifdef __cplusplus
}
#endif

#endif
