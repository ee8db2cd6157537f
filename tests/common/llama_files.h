/* Writes a Llama model's folder (config.json, model.safetensors in bf16) of any size, for plans and timings. */
#ifndef LK_TESTS_COMMON_LLAMA_FILES_H
#define LK_TESTS_COMMON_LLAMA_FILES_H

#include <stdbool.h>
#include <stdint.h>

typedef struct llama_shape {
    const char *name;
    int64_t layers, hidden, inner, heads, kv_heads, vocab;
    bool tied;
} llama_shape;

extern const llama_shape llama_3_8b, smollm2_135m, llama_toy;

/* random false: the weights are a hole in the file, zeros that take no room. False, with a line on stderr, on failure.
 */
bool llama_write(const char *folder, const llama_shape *shape, bool random);
int64_t llama_parameters(const llama_shape *shape); /* of matrices, without the embedding unless it is the head too */

#endif
