/* Another program that is measured in turn with this one: it reads a line and answers with a line (bench_peer.c). */
#ifndef LK_CLI_BENCH_PEER_H
#define LK_CLI_BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

typedef struct bench_peer {
    pid_t process;
    FILE *to, *from;
} bench_peer;

/* Starts argv[0] (looked up in PATH). False after a message. */
bool bench_peer_start(bench_peer *peer, const char *const *argv);
/* Sends a line and reads the answer, without its newline. An empty `line` only reads. */
bool bench_peer_ask(bench_peer *peer, const char *line, char *answer, size_t size);
/* Closes its input and waits for it; returns its exit status. Nothing to do for one that was not started. */
int bench_peer_stop(bench_peer *peer);
/* Where a script of bench/peers lies: `option` if it is not NULL, else beside the sources or installed. False after a
 * message. */
bool bench_peer_script(const char *option, const char *name, char *path, size_t size);

#endif
