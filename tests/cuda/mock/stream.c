/* The mock driver's streams, graphs and events: work is done when it is waited for, in order. */
#include "tests/cuda/mock/state.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct CUstream_st {
    list list;
    size_t done; /* of them */
    struct CUgraph_st *capture;
    struct CUstream_st *next;
};
static struct CUstream_st *streams;
struct CUevent_st {
    struct CUstream_st *stream; /* where it was recorded and is not reached yet */
    bool reached, timed;
    double time;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

operation *mock_push(list *to, kind of) {
    if (to->count == to->capacity) {
        to->capacity = to->capacity * 2 + 16;
        to->items = realloc(to->items, to->capacity * sizeof *to->items);
        if (to->items == NULL) {
            abort();
        }
    }
    operation *added = &to->items[to->count++];
    memset(added, 0, sizeof *added);
    added->kind = of;
    return added;
}

static void clear(list *of) {
    for (size_t i = 0; i < of->count; i++) {
        free(of->items[i].arguments);
    }
    of->count = 0;
}

static CUresult execute(const operation *op) {
    switch (op->kind) {
    case KERNEL:
        return mock_run_kernel(op);
    case LIBRARY:
        op->work(op->arguments);
        return CUDA_SUCCESS;
    case TO_DEVICE:
    case TO_HOST:
        memcpy(op->to, op->from, op->bytes);
        return CUDA_SUCCESS;
    case SET:
        memset(op->to, op->value, op->bytes);
        return CUDA_SUCCESS;
    case RECORD:
        op->event->reached = true;
        op->event->stream = NULL;
        op->event->time = now();
        return CUDA_SUCCESS;
    case GRAPH:
        for (size_t i = 0; i < op->graph->list.count; i++) {
            CUresult error = execute(&op->graph->list.items[i]);
            if (error != CUDA_SUCCESS) {
                return error;
            }
        }
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_UNKNOWN;
}

/* Does what is left of a stream, up to an event if one is given. */
static CUresult drain(struct CUstream_st *stream, const struct CUevent_st *until) {
    CUresult error = CUDA_SUCCESS;
    mock_protect(true);
    while (stream->done < stream->list.count && error == CUDA_SUCCESS) {
        const operation *op = &stream->list.items[stream->done++];
        error = execute(op);
        if (op->kind == RECORD && op->event == until) {
            break;
        }
    }
    mock_protect(false);
    if (stream->done == stream->list.count || error != CUDA_SUCCESS) {
        clear(&stream->list);
        stream->done = 0;
    }
    return error;
}

/* What releases waits for everything first; after a failure nothing more is done. */
void mock_drain_all(void) {
    for (struct CUstream_st *stream = streams; stream != NULL; stream = stream->next) {
        if (mock_lost != CUDA_SUCCESS) {
            clear(&stream->list);
            stream->done = 0;
        } else {
            drain(stream, NULL);
        }
    }
}

/* What a stream is given while it is captured goes to the graph. */
bool mock_is_captured(CUstream stream) {
    return stream->capture != NULL;
}

list *mock_target_of(CUstream stream) {
    return stream->capture != NULL ? &stream->capture->list : &stream->list;
}

EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
    ENTER_CONTEXT(cuStreamCreate);
    (void)flags;
    *stream = calloc(1, sizeof **stream);
    (*stream)->next = streams;
    streams = *stream;
    mock_counts.live++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamDestroy_v2(CUstream stream) {
    mock_drain_all();
    struct CUstream_st **at = &streams;
    while (*at != stream) {
        at = &(*at)->next;
    }
    *at = stream->next;
    clear(&stream->list);
    free(stream->list.items);
    free(stream);
    mock_counts.live--;
    return mock_lost;
}

EXPORT CUresult cuStreamSynchronize(CUstream stream) {
    ENTER_CONTEXT(cuStreamSynchronize);
    if (stream->capture != NULL) {
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return drain(stream, NULL);
}

EXPORT CUresult cuStreamBeginCapture_v2(CUstream stream, int mode) {
    ENTER_CONTEXT(cuStreamBeginCapture_v2);
    (void)mode;
    if (stream->capture != NULL) {
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    stream->capture = calloc(1, sizeof *stream->capture);
    mock_counts.captures++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    CUgraph made = stream->capture;
    *graph = NULL;
    stream->capture = NULL;
    CUresult error = mock_enter("cuStreamEndCapture");
    if (made != NULL && error != CUDA_SUCCESS) {
        clear(&made->list);
        free(made->list.items);
        free(made);
    } else if (made != NULL) {
        *graph = made;
        mock_counts.live++;
    }
    return error != CUDA_SUCCESS ? error : made != NULL ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
}

static CUresult destroy_list(list *of, void *owner) {
    clear(of);
    free(of->items);
    free(owner);
    mock_counts.live--;
    return mock_lost;
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    ENTER_CONTEXT(cuGraphInstantiateWithFlags);
    (void)flags;
    *exec = calloc(1, sizeof **exec);
    for (size_t i = 0; i < graph->list.count; i++) {
        operation *copy = mock_push(&(*exec)->list, graph->list.items[i].kind);
        *copy = graph->list.items[i];
        if (copy->arguments != NULL) {
            copy->arguments = malloc(ARGUMENT_BYTES);
            memcpy(copy->arguments, graph->list.items[i].arguments, ARGUMENT_BYTES);
        }
    }
    mock_counts.live++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    ENTER_CONTEXT(cuGraphLaunch);
    mock_push(&stream->list, GRAPH)->graph = exec;
    mock_counts.graph_launches++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphExecDestroy(CUgraphExec exec) {
    mock_drain_all();
    return destroy_list(&exec->list, exec);
}

EXPORT CUresult cuGraphDestroy(CUgraph graph) {
    return destroy_list(&graph->list, graph);
}

EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags) {
    ENTER_CONTEXT(cuEventCreate);
    *event = calloc(1, sizeof **event);
    (*event)->timed = (flags & CU_EVENT_DISABLE_TIMING) == 0;
    mock_counts.live++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventDestroy_v2(CUevent event) {
    mock_drain_all();
    free(event);
    mock_counts.live--;
    return mock_lost;
}

EXPORT CUresult cuEventRecord(CUevent event, CUstream stream) {
    ENTER_CONTEXT(cuEventRecord);
    mock_push(mock_target_of(stream), RECORD)->event = event;
    event->stream = stream;
    event->reached = false;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventSynchronize(CUevent event) {
    ENTER_CONTEXT(cuEventSynchronize);
    return event->stream != NULL ? drain(event->stream, event) : CUDA_SUCCESS;
}

EXPORT CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
    ENTER_CONTEXT(cuEventElapsedTime);
    if (!start->timed || !end->timed) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!start->reached || !end->reached) {
        return CUDA_ERROR_NOT_READY;
    }
    *milliseconds = (float)((end->time - start->time) * 1e3);
    return CUDA_SUCCESS;
}

/* ---- for libraries' mocks ---- */

static void change_live(int change) {
    mock_counts.live += change;
}

static void count_heuristic(void) {
    mock_counts.heuristics++;
}

static void enqueue(CUstream stream, void (*work)(const void *), const void *data, size_t bytes) {
    operation *op = mock_push(mock_target_of(stream), LIBRARY);
    if (bytes > ARGUMENT_BYTES) {
        abort();
    }
    op->work = work;
    op->arguments = calloc(1, ARGUMENT_BYTES);
    memcpy(op->arguments, data, bytes);
}

EXPORT const mock_hooks lk_mock_cuda_hooks = {mock_planned, change_live, count_heuristic, mock_is_device, enqueue};
