/* Several adapters of one base, by name. */
#ifndef LK_CLI_ADAPTERS_H
#define LK_CLI_ADAPTERS_H

#include "prompts.h"

typedef struct cli_adapters {
    char *names[CLI_MAX_TEXTS];
    lk_adapter *items[CLI_MAX_TEXTS];
    int count;
} cli_adapters;

/* Loads each "name=folder" (without a name it is the folder's) and opens workspace->adapter as their mixture. */
int cli_adapters_open(cli_adapters *adapters, cli_workspace *workspace, const cli_texts *texts);
/* For each prompt the number of the adapter that its "adapter" names, -1 for "none"; where it names none that of `use`,
 * or the first where that is NULL. */
int cli_adapters_choose(const cli_adapters *adapters, const cli_prompts *prompts, const char *use, int32_t *choices);
void cli_adapters_close(cli_adapters *adapters); /* before the workspace */

#endif
