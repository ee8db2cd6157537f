/* A LoRA adapter as the formats have it in common: for each adapted linear layer, under its Hugging Face path, the pair
 * A [rank, in] and B [out, rank], in the layout of PEFT, and the scale of B A. Formats read into it and are written
 * from it, so that converting is a reader and a writer. */
#ifndef LK_CORE_FORMATS_LORA_FILE_H
#define LK_CORE_FORMATS_LORA_FILE_H

#include "core/formats/model_config.h"

typedef struct lk_lora_module {
    const char *path; /* "model.layers.0.self_attn.q_proj" */
    int64_t in, out, rank;
    double scale; /* of B A */
    float *a, *b;
    float *magnitude; /* [out]: DoRA; NULL: none */
} lk_lora_module;

typedef struct lk_lora_file {
    lk_context *context;
    lk_arena arena; /* of everything that modules point to */
    lk_lora_module *modules;
    size_t count, capacity;
    double dropout;
    const char *base_model; /* name or path, or NULL */
    const char *task_type;  /* PEFT's; NULL: not known */
} lk_lora_file;

void lk_lora_file_init(lk_lora_file *file, lk_context *context);
void lk_lora_file_free(lk_lora_file *file);
/* The module of a path, added with nothing in it where it is new. */
lk_status lk_lora_file_module(lk_lora_file *file, const char *path, lk_lora_module **out);
/* Zeroed values from the arena. */
lk_status lk_lora_file_alloc(lk_lora_file *file, int64_t rows, int64_t columns, float **out);
/* In order of path (numbers as numbers); every module must have both A and B, of one rank: `source` stands in messages.
 */
lk_status lk_lora_file_finish(lk_lora_file *file, const char *source);
/* Reads a stored matrix [rows, columns], or one that is stored transposed. -1: any extent; the found ones come back. */
lk_status lk_lora_file_read(lk_lora_file *file, const lk_stored_tensor *stored, bool transposed, int64_t *rows,
                            int64_t *columns, float **out);

/* Rank and scale that most modules have. */
int64_t lk_lora_file_common_rank(const lk_lora_file *file);
double lk_lora_file_common_scale(const lk_lora_file *file);
bool lk_lora_file_has_magnitudes(const lk_lora_file *file);

/* ---- the formats ----
 * config: of the base model, NULL where it is not known. UNSUPPORTED names what a format cannot hold. */

/* adapter_config.json and adapter_model.safetensors; plain LoRA, rsLoRA, DoRA, rank and alpha patterns. */
lk_status lk_lora_read_peft(lk_lora_file *file, const char *folder);
lk_status lk_lora_write_peft(const lk_lora_file *file, const char *folder);
/* llama.cpp's: needs the base's configuration for names and for the order of q and k rows. It applies
 * adapter.lora.alpha / rank: scales that differ from that are multiplied into B. */
lk_status lk_lora_read_gguf(lk_lora_file *file, const char *path, const lk_model_config *config);
lk_status lk_lora_write_gguf(const lk_lora_file *file, const char *path, const lk_model_config *config);
/* MLX-LM's: adapter_config.json and adapters.safetensors, A and B transposed; one rank and one scale for all: smaller
 * ranks are filled up with zeros (which the reader takes away again), other scales multiplied into B. */
lk_status lk_lora_read_mlx(lk_lora_file *file, const char *folder);
lk_status lk_lora_write_mlx(const lk_lora_file *file, const char *folder);

#endif
