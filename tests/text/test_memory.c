/* Every allocation of a load fails once: the status is OUT_OF_MEMORY, nothing leaks and nothing crashes. */
#include <stdio.h>

#include "core/text/batch.h"
#include "core/text/chat.h"
#include "text_test.h"

static long allocations_left, live;

static void *allocate(void *user, size_t size) {
    (void)user;
    if (allocations_left-- <= 0) {
        return NULL;
    }
    void *pointer = malloc(size);
    live += pointer != NULL;
    return pointer;
}

static void *reallocate(void *user, void *pointer, size_t size) {
    (void)user;
    if (allocations_left-- <= 0) {
        return NULL;
    }
    void *grown = realloc(pointer, size);
    live += pointer == NULL && grown != NULL;
    return grown;
}

static void release(void *user, void *pointer) {
    (void)user;
    live -= pointer != NULL;
    free(pointer);
}

/* A tokenizer, rows of all kinds through it, and a micro-batch. */
static lk_status work(lk_context *failing, const char *tokenizer_folder, const char *path) {
    lk_tokenizer *tokenizer;
    LK_TRY(lk_tokenizer_load(failing, tokenizer_folder, NULL, &tokenizer));
    lk_dataset *dataset = NULL;
    lk_batch_iterator *iterator = NULL;
    lk_dataset_options options;
    lk_dataset_options_init(&options);
    options.tokenizer = tokenizer;
    options.seq = 64;
    lk_status status = lk_dataset_load(failing, path, &options, &dataset);
    if (status == LK_OK) {
        lk_batch_options batches;
        lk_batch_options_init(&batches);
        batches.seq = 64;
        status = lk_batch_iterator_create(failing, dataset, &batches, &iterator);
    }
    lk_text decoded;
    lk_text_init(&decoded, failing);
    if (status == LK_OK) {
        const int32_t ids[] = {40, 50, 60};
        status = lk_tokenizer_decode(tokenizer, ids, 3, false, &decoded);
    }
    lk_text_free(&decoded);
    lk_batch_iterator_destroy(iterator);
    lk_dataset_destroy(dataset);
    lk_tokenizer_destroy(tokenizer);
    return status;
}

static const char *const folders[] = {"tokenizers/bytes", "tokenizers/words", "models/stories260k"};

START_TEST(test_every_allocation_may_fail) {
    char tokenizer_folder[512];
    snprintf(tokenizer_folder, sizeof tokenizer_folder, "%s/%s", LK_TEST_DATA, folders[_i]);
    const char *path = write_text(
        "a.jsonl", _i == 0 ? "{\"text\": \"a na\\u00efve \xF0\x9F\x99\x82 <|im_end|>\"}\n"
                             "{\"prompt\": \"a\", \"completion\": \" b\"}\n"
                             "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, "
                             "{\"role\": \"assistant\", \"content\": \"Yo\"}]}\n"
                           : "{\"text\": \"a na\\u00efve text\"}\n{\"prompt\": \"a\", \"completion\": \" b\"}\n");
    const lk_allocator allocator = {allocate, reallocate, release, NULL};
    lk_context_options options;
    lk_context_options_init(&options);
    options.allocator = &allocator;
    long tried = 0;
    for (bool done = false; !done; tried++) {
        lk_context *failing;
        allocations_left = 1000000000;
        ck_assert_int_eq(lk_context_create(&options, &failing), LK_OK);
        long before = live;
        allocations_left = tried;
        lk_status status = work(failing, tokenizer_folder, path);
        /* what is only nice to have, such as the word cache, may do without: then the whole succeeds */
        ck_assert_msg(status == LK_OK || status == LK_STATUS_OUT_OF_MEMORY, "after %ld allocations: %s", tried,
                      lk_error_message(failing));
        ck_assert_msg(live == before, "after %ld allocations: %ld not released", tried, live - before);
        done = status == LK_OK && allocations_left > 0;
        lk_context_destroy(failing);
    }
    ck_assert_int_gt(tried, 40);
}
END_TEST

static void add(TCase *cases) {
    tcase_add_loop_test(cases, test_every_allocation_may_fail, 0, LK_COUNT(folders));
}

int main(void) {
    return run_text_case("memory", text_setup, text_teardown, add);
}
