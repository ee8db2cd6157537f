/* The public functions around tokenizers. */
#include <string.h>

#include "core/formats/pretrained.h"
#include "core/text/tokenizer_internal.h"

lk_status lk_tokenizer_open(lk_context *context, const char *path, lk_tokenizer **out) {
    *out = NULL;
    if (lk_path_is_directory(path)) {
        char *json = lk_path_join(context, path, "tokenizer.json");
        if (json == NULL) {
            return lk_out_of_memory(context, strlen(path), "a path");
        }
        bool present = lk_path_is_file(json);
        lk_free(context, json);
        if (present) { /* a folder with nothing else will do */
            return lk_tokenizer_load(context, path, NULL, out);
        }
    }
    lk_pretrained *files;
    LK_TRY(lk_pretrained_open(context, path, &files));
    const lk_gguf *gguf = lk_pretrained_gguf(files);
    lk_status status = lk_tokenizer_load(context, gguf ? NULL : lk_pretrained_folder(files), gguf, out);
    lk_pretrained_destroy(files);
    return status;
}

lk_status lk_tokenizer_to_ids(lk_tokenizer *tokenizer, const char *text, size_t length, bool add_special, int32_t **ids,
                              size_t *count) {
    *ids = NULL;
    *count = 0;
    lk_ids made;
    lk_ids_init(&made, tokenizer->context);
    unsigned flags = LK_ENCODE_PARSE_SPECIAL | (add_special ? LK_ENCODE_ADD_SPECIAL : 0);
    lk_status status = lk_tokenizer_encode(tokenizer, text, length, flags, &made);
    if (status != LK_OK) {
        lk_ids_free(&made);
        return status;
    }
    *ids = made.data;
    *count = made.count;
    return LK_OK;
}

lk_status lk_tokenizer_to_text(lk_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                               char **text) {
    *text = NULL;
    lk_text made;
    lk_text_init(&made, tokenizer->context);
    lk_status status = lk_tokenizer_decode(tokenizer, ids, count, skip_special, &made);
    if (status == LK_OK) {
        lk_text_append(&made, "", 0); /* an empty text is a text too */
        status = lk_text_status(&made);
    }
    if (status != LK_OK) {
        lk_text_free(&made);
        return status;
    }
    *text = made.data;
    return LK_OK;
}

void lk_release(lk_context *context, void *pointer) {
    lk_free(context, pointer);
}
