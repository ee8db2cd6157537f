/* A stand-in for cuDNN's plugin (backends/cuda/plugin/cudnn_plugin.h). Attention is work of the mock driver's stream,
 * in doubles over operands in bf16, in the mock's device memory; rows of no sequence are left as they are, the
 * workspace is written over.
 *
 * It checks that all of each tensor is device memory and aligned, and the borders. LK_MOCK_CUDNN_WRONG=1 makes it
 * compute something else; LK_MOCK_CUDNN_ABI=2 has another interface. Failures are planned by LK_MOCK_CUDA_FAIL, as the
 * driver's are. */
#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cuda/plugin/cudnn_plugin.h"
#include "tests/cuda/mock/hooks.h"

static mock_hooks hooks;

enum { WORKSPACE = 4096 };

struct lk_cudnn {
    int alive;
};
struct lk_cudnn_plan {
    lk_cudnn_attention of;
};

static int fail(char *problem, const char *what) {
    snprintf(problem, LK_CUDNN_PROBLEM, "%s", what);
    return LK_CUDNN_FAILED;
}

uint32_t lk_cudnn_abi_version(void) {
    const char *other = getenv("LK_MOCK_CUDNN_ABI");
    return other != NULL ? (uint32_t)atoi(other) : LK_CUDNN_ABI_VERSION;
}

int lk_cudnn_load(int64_t *version, char *problem) {
    void *driver = dlopen(getenv("LORIKEET_CUDA_DRIVER"), RTLD_NOW), *symbol;
    symbol = driver != NULL ? dlsym(driver, "lk_mock_cuda_hooks") : NULL;
    if (symbol == NULL) {
        return fail(problem, "the mock works on the mock driver alone");
    }
    memcpy(&hooks, symbol, sizeof hooks);
    *version = 91900;
    return LK_CUDNN_SUCCESS;
}

int lk_cudnn_open(const char *description, lk_cudnn **out, char *problem) {
    if (hooks.planned("lk_cudnn_open") != 0 || description != NULL) {
        return fail(problem, "cudnnCreate failed");
    }
    *out = calloc(1, sizeof **out);
    hooks.live(1);
    return LK_CUDNN_SUCCESS;
}

void lk_cudnn_close(lk_cudnn *self) {
    free(self);
    hooks.live(-1);
}

int lk_cudnn_plan_create(lk_cudnn *self, const lk_cudnn_attention *attention, lk_cudnn_plan **out,
                         size_t *workspace_bytes, char *problem) {
    (void)self;
    if (hooks.planned("lk_cudnn_plan_create") != 0) {
        return fail(problem, "no execution plan");
    }
    *out = calloc(1, sizeof **out);
    (*out)->of = *attention;
    *workspace_bytes = WORKSPACE;
    hooks.live(1);
    hooks.count_heuristic();
    return LK_CUDNN_SUCCESS;
}

void lk_cudnn_plan_destroy(lk_cudnn_plan *plan) {
    free(plan);
    hooks.live(-1);
}

/* ---- the attention ---- */

typedef struct work {
    lk_cudnn_attention a;
    void *tensors[LK_CUDNN_TENSORS], *workspace;
    bool wrong;
} work;

static double element(const void *data, int64_t at) {
    uint32_t bits = (uint32_t)((const uint16_t *)data)[at] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

static void store(void *data, int64_t at, double given) {
    float value = (float)given;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    ((uint16_t *)data)[at] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static double dot(const void *x, int64_t x_at, const void *y, int64_t y_at, int64_t count) {
    double sum = 0.0;
    for (int64_t d = 0; d < count; d++) {
        sum += element(x, x_at + d) * element(y, y_at + d);
    }
    return sum;
}

/* One sequence and one head of q, whose rows begin at these elements. */
typedef struct head {
    const work *w;
    int64_t length, q, k, lse;       /* q, o, do, dq; k, v, dk, dv; lse */
    int64_t q_pitch, k_pitch, heads; /* from row to row */
} head;

static int64_t last_key(const head *h, int64_t i) {
    return h->w->a.causal ? i + 1 : h->length;
}

static void forward(const head *h) {
    const work *w = h->w;
    const int64_t size = w->a.head_dim;
    for (int64_t i = 0; i < h->length; i++) {
        const int64_t q = h->q + i * h->q_pitch;
        double maximum = -INFINITY, total = 0.0, sums[128] = {0.0};
        for (int64_t j = 0; j < last_key(h, i); j++) {
            double score =
                w->a.scale * dot(w->tensors[LK_CUDNN_Q], q, w->tensors[LK_CUDNN_K], h->k + j * h->k_pitch, size);
            double shrink = score > maximum ? exp(maximum - score) : 1.0;
            maximum = fmax(maximum, score);
            double weight = exp(score - maximum);
            total = total * shrink + weight;
            for (int64_t d = 0; d < size; d++) {
                sums[d] = sums[d] * shrink + weight * element(w->tensors[LK_CUDNN_V], h->k + j * h->k_pitch + d);
            }
        }
        for (int64_t d = 0; d < size; d++) {
            store(w->tensors[LK_CUDNN_O], q + d, (w->wrong ? 1.25 : 1.0) * sums[d] / total);
        }
        if (w->a.wants_lse) {
            ((float *)w->tensors[LK_CUDNN_LSE])[h->lse + i * h->heads] = (float)(maximum + log(total));
        }
    }
}

/* Sums of dq, dk and dv in doubles, which the caller clears and rounds. */
static void backward(const head *h, double *dq, double *dk, double *dv) {
    const work *w = h->w;
    const int64_t size = w->a.head_dim;
    for (int64_t i = 0; i < h->length; i++) {
        const int64_t q = h->q + i * h->q_pitch;
        const double delta = dot(w->tensors[LK_CUDNN_DO], q, w->tensors[LK_CUDNN_O], q, size);
        const double lse = (double)((const float *)w->tensors[LK_CUDNN_LSE])[h->lse + i * h->heads];
        for (int64_t j = 0; j < last_key(h, i); j++) {
            const int64_t k = h->k + j * h->k_pitch;
            double score = w->a.scale * dot(w->tensors[LK_CUDNN_Q], q, w->tensors[LK_CUDNN_K], k, size);
            double p = exp(score - lse) * (w->wrong ? 1.25 : 1.0);
            double ds = w->a.scale * p * (dot(w->tensors[LK_CUDNN_DO], q, w->tensors[LK_CUDNN_V], k, size) - delta);
            for (int64_t d = 0; d < size; d++) {
                dq[q + d] += ds * element(w->tensors[LK_CUDNN_K], k + d);
                dk[k + d] += ds * element(w->tensors[LK_CUDNN_Q], q + d);
                dv[k + d] += p * element(w->tensors[LK_CUDNN_DO], q + d);
            }
        }
    }
}

static void compute(const void *given) {
    const work *w = given;
    const int64_t heads = w->a.num_attention_heads, kv_heads = w->a.num_key_value_heads, size = w->a.head_dim;
    const int64_t q_count = w->a.tokens * heads * size, k_count = w->a.tokens * kv_heads * size;
    const int32_t *lengths = w->tensors[LK_CUDNN_LENGTHS], *q_starts = w->tensors[LK_CUDNN_Q_STARTS];
    const int32_t *k_starts = w->tensors[LK_CUDNN_K_STARTS], *lse_starts = w->tensors[LK_CUDNN_LSE_STARTS];
    double *sums = calloc((size_t)(q_count + 2 * k_count), sizeof *sums), *dq = sums, *dk = sums + q_count;
    memset(w->workspace, 0xff, WORKSPACE);
    for (int64_t s = 0; s < w->a.sequences; s++) {
        if (lengths[s] < 0 || q_starts[s + 1] - q_starts[s] != lengths[s] * heads * size || q_starts[s + 1] > q_count ||
            k_starts[s] * heads != q_starts[s] * kv_heads || lse_starts[s] * size != q_starts[s]) {
            fprintf(stderr, "mock cuDNN: the borders of sequence %d\n", (int)s);
            abort();
        }
        for (int64_t i = 0; i < heads; i++) {
            head h = {w,
                      lengths[s],
                      q_starts[s] + i * size,
                      k_starts[s] + i / (heads / kv_heads) * size,
                      lse_starts[s] + i,
                      heads * size,
                      kv_heads * size,
                      heads};
            if (w->a.backward) {
                backward(&h, dq, dk, dk + k_count);
            } else {
                forward(&h);
            }
        }
    }
    for (int64_t i = 0; w->a.backward && i < q_starts[w->a.sequences]; i++) {
        store(w->tensors[LK_CUDNN_DQ], i, dq[i]);
    }
    for (int64_t i = 0; w->a.backward && i < k_starts[w->a.sequences]; i++) {
        store(w->tensors[LK_CUDNN_DK], i, dk[i]);
        store(w->tensors[LK_CUDNN_DV], i, dk[k_count + i]);
    }
    free(sums);
}

static size_t bytes_of(const lk_cudnn_attention *a, int tensor) {
    const size_t tokens = (size_t)a->tokens, heads = (size_t)a->num_attention_heads;
    const bool is_key = tensor == LK_CUDNN_K || tensor == LK_CUDNN_V || tensor == LK_CUDNN_DK || tensor == LK_CUDNN_DV;
    if (tensor >= LK_CUDNN_LENGTHS) {
        return ((size_t)a->sequences + (tensor > LK_CUDNN_LENGTHS)) * sizeof(int32_t);
    }
    return tensor == LK_CUDNN_LSE
               ? tokens * heads * sizeof(float)
               : tokens * (is_key ? (size_t)a->num_key_value_heads : heads) * (size_t)a->head_dim * sizeof(uint16_t);
}

int lk_cudnn_plan_run(lk_cudnn_plan *plan, void *const tensors[LK_CUDNN_TENSORS], void *workspace, void *stream,
                      char *problem) {
    work all = {.a = plan->of, .workspace = workspace, .wrong = getenv("LK_MOCK_CUDNN_WRONG") != NULL};
    if (hooks.planned("lk_cudnn_plan_run") != 0) {
        return fail(problem, "cudnnBackendExecute failed");
    }
    for (int i = 0; i < LK_CUDNN_TENSORS; i++) {
        bool wanted =
            all.a.backward || i >= LK_CUDNN_LENGTHS || i < LK_CUDNN_LSE || (i == LK_CUDNN_LSE && all.a.wants_lse);
        bool there = tensors[i] != NULL && (uintptr_t)tensors[i] % 16 == 0 &&
                     hooks.is_device((CUdeviceptr)(uintptr_t)tensors[i], bytes_of(&all.a, i));
        if (wanted != (tensors[i] != NULL) || (wanted && !there)) {
            return fail(problem, "a tensor is not there, or should not be");
        }
        all.tensors[i] = tensors[i];
    }
    if (!hooks.is_device((CUdeviceptr)(uintptr_t)workspace, WORKSPACE)) {
        return fail(problem, "the workspace");
    }
    hooks.enqueue(stream, compute, &all, sizeof all);
    return LK_CUDNN_SUCCESS;
}
