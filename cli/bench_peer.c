#define _POSIX_C_SOURCE 200809L
#include "bench_peer.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"

bool bench_peer_start(bench_peer *peer, const char *const *argv) {
    int to[2], from[2];
    *peer = (bench_peer){0};
    if (pipe(to) != 0) {
        cli_failed("a pipe to %s: %s", argv[0], strerror(errno));
        return false;
    }
    if (pipe(from) != 0) {
        cli_failed("a pipe from %s: %s", argv[0], strerror(errno));
        close(to[0]);
        close(to[1]);
        return false;
    }
    signal(SIGPIPE, SIG_IGN); /* a peer that ends is found out when it does not answer */
    peer->process = fork();
    if (peer->process == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[0]);
        close(to[1]);
        close(from[0]);
        close(from[1]);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    peer->to = fdopen(to[1], "w");
    peer->from = fdopen(from[0], "r");
    if (peer->process < 0 || peer->to == NULL || peer->from == NULL) {
        cli_failed("cannot start %s: %s", argv[0], strerror(errno));
        return false;
    }
    return true;
}

bool bench_peer_ask(bench_peer *peer, const char *line, char *answer, size_t size) {
    if (line[0] != '\0') {
        fprintf(peer->to, "%s\n", line);
        fflush(peer->to);
    }
    if (fgets(answer, (int)size, peer->from) == NULL) {
        cli_failed("the other program ended%s%s", line[0] != '\0' ? " at " : "", line);
        return false;
    }
    answer[strcspn(answer, "\n")] = '\0';
    return true;
}

int bench_peer_stop(bench_peer *peer) {
    int status = 0;
    if (peer->to != NULL) {
        fclose(peer->to);
    }
    if (peer->from != NULL) {
        fclose(peer->from);
    }
    if (peer->process > 0) {
        waitpid(peer->process, &status, 0);
    }
    *peer = (bench_peer){0};
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

bool bench_peer_script(const char *option, const char *name, char *path, size_t size) {
    static const char *const folders[] = {LK_PEERS_SOURCE, LK_PEERS_INSTALLED};
    if (option != NULL) {
        snprintf(path, size, "%s", option);
        if (access(path, R_OK) == 0) {
            return true;
        }
        cli_failed("cannot read %s", option);
        return false;
    }
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, size, "%s/%s", folders[i], name);
        if (access(path, R_OK) == 0) {
            return true;
        }
    }
    cli_failed("bench/peers/%s of Lorikeet's sources is not here; --script says where it is", name);
    return false;
}
