/* What `lorikeet generate` continues, and how fast it does. */
#ifndef LK_CLI_PROMPTS_H
#define LK_CLI_PROMPTS_H

#include "cli.h"

typedef struct cli_prompts {
    json_t **rows; /* {"prompt": .., other keys of a .jsonl} */
    const char **texts;
    size_t count;
} cli_prompts;

/* One a line, or the "prompt" of each line of a .jsonl; empty lines are skipped. Return exit statuses, after a message
 * where they fail; cli_prompts_free releases what they made either way. */
int cli_prompts_read(cli_prompts *prompts, const char *path);
/* The text itself; "-": standard input. */
int cli_prompts_one(cli_prompts *prompts, const char *text);
void cli_prompts_free(cli_prompts *prompts);

/* Continues a prompt with the base alone, with the adapter, and with the adapter merged, and prints tokens/s of each.
 */
int cli_generate_stats(cli_workspace *workspace, const char *prompt, const lk_generate_options *options,
                       int64_t max_tokens);

#endif
