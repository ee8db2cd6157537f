/* LoRA-FA (Zhang et al., arXiv 2308.03303): A stays as it was drawn and only B is trained, so that a layer keeps x A'
 * for the backward pass instead of x. The gradient of B is projected, (1 / scale^2) dB (A A')^-1, which makes the step
 * that of the weight closest to full fine-tuning's; as A never changes, the inverse is computed once. */
#include <math.h>
#include <string.h>

#include "core/adapters/lora.h"

enum { INVERSE };

/* Gauss-Jordan with partial pivoting of the symmetric [count, 2 count] system (m | I). */
static bool invert(double *m, int64_t count) {
    int64_t width = 2 * count;
    for (int64_t i = 0; i < count; i++) {
        int64_t pivot = i;
        for (int64_t j = i + 1; j < count; j++) {
            pivot = fabs(m[j * width + i]) > fabs(m[pivot * width + i]) ? j : pivot;
        }
        if (!(fabs(m[pivot * width + i]) > 0.0)) {
            return false;
        }
        for (int64_t k = 0; k < width; k++) {
            double kept = m[i * width + k];
            m[i * width + k] = m[pivot * width + k];
            m[pivot * width + k] = kept;
        }
        double factor = 1.0 / m[i * width + i];
        for (int64_t k = 0; k < width; k++) {
            m[i * width + k] *= factor;
        }
        for (int64_t j = 0; j < count; j++) {
            double scale = m[j * width + i];
            for (int64_t k = 0; k < width && j != i; k++) {
                m[j * width + k] -= scale * m[i * width + k];
            }
        }
    }
    return true;
}

static lk_status add_inverse(lk_adapter *adapter, lk_adapter_site *site, const float *a, double *system,
                             float *inverse) {
    int64_t rank = site->rank, in = site->site->in;
    double factor = 1.0 / ((double)site->scale * (double)site->scale);
    for (int64_t i = 0; i < rank; i++) {
        for (int64_t j = 0; j < rank; j++) {
            double sum = i == j ? 1e-8 : 0.0; /* as PEFT: a vanishing A has an inverse, too */
            for (int64_t k = 0; k < in; k++) {
                sum += (double)a[i * in + k] * (double)a[j * in + k];
            }
            system[i * 2 * rank + j] = sum;
            system[i * 2 * rank + rank + j] = i == j ? 1.0 : 0.0;
        }
    }
    if (!invert(system, rank)) {
        return lk_fail(adapter->context, LK_STATUS_NUMERIC, "%s: A A' has no inverse", site->tensors[LK_LORA_A]->name);
    }
    for (int64_t i = 0; i < rank * rank; i++) {
        inverse[i] = (float)(factor * system[i / rank * 2 * rank + rank + i % rank]);
    }
    return lk_adapter_add_constant(adapter, lk_adapter_name(adapter, "gram_inverse", site), rank, rank, inverse,
                                   &site->constants[INVERSE]);
}

static lk_status finish(lk_adapter *adapter, lk_adapter_site *site) {
    lk_context *context = adapter->context;
    size_t rank = (size_t)site->rank;
    if (adapter->model->plan_only) {
        return lk_adapter_add_constant(adapter, lk_adapter_name(adapter, "gram_inverse", site), site->rank, site->rank,
                                       NULL, &site->constants[INVERSE]);
    }
    double *system = lk_calloc(context, 2 * rank * rank, sizeof *system);
    float *inverse = lk_calloc(context, rank * rank, sizeof *inverse), *a = NULL;
    lk_status status =
        system && inverse ? LK_OK : lk_out_of_memory(context, 2 * rank * rank * sizeof *system, "an inverse");
    status = status == LK_OK ? lk_adapter_download(adapter, site->tensors[LK_LORA_A]->value, &a) : status;
    status = status == LK_OK ? add_inverse(adapter, site, a, system, inverse) : status;
    lk_free(context, a);
    lk_free(context, system);
    lk_free(context, inverse);
    return status;
}

static lk_status declare(lk_adapter *adapter, lk_adapter_site *site) {
    return lk_lora_declare_pair(adapter, site, true);
}

static lk_tensor *project(lk_graph *graph, const lk_adapter_site *site, int32_t index, lk_tensor *gradient) {
    (void)index; /* B is the only one that is trained */
    return lk_build_matmul(graph, gradient, false, lk_graph_variable(graph, site->constants[INVERSE]), false, 1.0f,
                           NULL);
}

static const char name[] = "lora-fa";

static bool accepts(const lk_peft_config *config) {
    const char *method = lk_lora_method_of(config);
    return !config->use_dora && method != NULL && strcmp(method, name) == 0;
}

static lk_status configure(lk_adapter *adapter, const lk_adapter_options *options) {
    LK_TRY(lk_lora_set_method(adapter, name));
    return lk_lora_configure(adapter, options);
}

const lk_adapter_method lk_adapter_method_lora_fa = {.name = name,
                                                     .type = LK_PEFT_LORA,
                                                     .accepts = accepts,
                                                     .configure = configure,
                                                     .declare = declare,
                                                     .finish = finish,
                                                     .apply = lk_lora_apply,
                                                     .project = project,
                                                     .merge = lk_lora_merge};
