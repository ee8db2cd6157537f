#include "backends/cpu/rows.h"
#include "backends/cpu/scratch.h"
#include "backends/cpu/simd/simd.h"

enum { HYPER, NORM, FIRST_GROUP, GROUP = 4 };

typedef struct step {
    float clip, beta1, beta2, epsilon, rate, decay, correction1, correction2;
} step;

static step step_of(const lk_cpu_call *call, int group) {
    const float *hyper = call->inputs[HYPER];
    const lk_adamw_attributes *adamw = &call->node->attributes.adamw;
    float rate =
        hyper[LK_ADAMW_LEARNING_RATE] * (adamw->learning_rate_scales ? adamw->learning_rate_scales[group] : 1.0f);
    float decay =
        hyper[LK_ADAMW_WEIGHT_DECAY] * (adamw->weight_decay_scales ? adamw->weight_decay_scales[group] : 1.0f);
    float clip = 1.0f;
    if (lk_has_input(call->node, NORM) && hyper[LK_ADAMW_MAX_NORM] > 0.0f) {
        clip = LK_MIN(1.0f, hyper[LK_ADAMW_MAX_NORM] / (*(const float *)call->inputs[NORM] + 1e-6f));
    }
    return (step){clip,
                  hyper[LK_ADAMW_BETA1],
                  hyper[LK_ADAMW_BETA2],
                  hyper[LK_ADAMW_EPSILON],
                  rate,
                  1.0f - rate * decay,
                  hyper[LK_ADAMW_BIAS_CORRECTION1],
                  hyper[LK_ADAMW_BIAS_CORRECTION2]};
}

static void update(const step *s, float *p, const float *gradient, float *m, float *v, int64_t count) {
    vf clip = vf_set1(s->clip), beta1 = vf_set1(s->beta1), beta2 = vf_set1(s->beta2);
    vf rest1 = vf_set1(1.0f - s->beta1), rest2 = vf_set1(1.0f - s->beta2);
    VF_FOR(i, lanes, count, {
        vf d = vf_mul(clip, vf_get(gradient + i, lanes));
        vf first = vf_fma(rest1, d, vf_mul(beta1, vf_get(m + i, lanes)));
        vf second = vf_fma(rest2, vf_mul(d, d), vf_mul(beta2, vf_get(v + i, lanes)));
        vf root = vf_sqrt(vf_div(second, vf_set1(s->correction2)));
        vf move = vf_div(vf_div(first, vf_set1(s->correction1)), vf_add(root, vf_set1(s->epsilon)));
        vf_put(m + i, first, lanes);
        vf_put(v + i, second, lanes);
        vf_put(p + i, vf_fnma(vf_set1(s->rate), move, vf_mul(vf_get(p + i, lanes), vf_set1(s->decay))), lanes);
    });
}

/* The groups' elements in chunks, numbered through. */
static void part(const lk_cpu_call *call, lk_range range, void *memory) {
    (void)memory;
    int64_t chunk = 0;
    for (int group = 0; group < call->node->attributes.adamw.count && chunk < range.end; group++) {
        int at = FIRST_GROUP + GROUP * group;
        int64_t elements = lk_tensor_elements(call->node->inputs[at]), chunks = lk_cpu_chunks(call->node->inputs[at]);
        int64_t first = LK_MAX(range.begin - chunk, (int64_t)0), last = LK_MIN(range.end - chunk, chunks);
        if (first < last) {
            int64_t start = first * LK_CPU_SUM_CHUNK, end = LK_MIN(last * LK_CPU_SUM_CHUNK, elements);
            step now = step_of(call, group);
            update(&now, (float *)call->inputs[at] + start, (const float *)call->inputs[at + 1] + start,
                   (float *)call->inputs[at + 2] + start, (float *)call->inputs[at + 3] + start, end - start);
        }
        chunk += chunks;
    }
}

void LK_CPU(adamw)(const lk_cpu_call *call) {
    if (lk_has_input(call->node, NORM) && !isfinite(*(const float *)call->inputs[NORM])) {
        return; /* a step whose gradients overflowed changes nothing */
    }
    int64_t chunks = 0, elements = 0;
    for (int i = FIRST_GROUP; i < call->node->num_inputs; i += GROUP) {
        chunks += lk_cpu_chunks(call->node->inputs[i]);
        elements += lk_tensor_elements(call->node->inputs[i]);
    }
    lk_cpu_run_rows(call, chunks, 1, 28.0 * (double)elements / (double)LK_MAX(chunks, (int64_t)1), part);
}
