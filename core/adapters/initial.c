#include "core/adapters/initial.h"

#include <math.h>

static void draw(const lk_adapter *adapter, const lk_adapter_site *site, lk_initial initial, int64_t count,
                 int64_t columns, float *values) {
    double bound = 1.0 / sqrt((double)columns);
    uint64_t stream = (uint64_t)site->site->index | (uint64_t)site->num_tensors << 32;
    for (int64_t i = 0; i < count; i += 4) {
        uint32_t words[4];
        double normal[4];
        lk_philox4x32(adapter->seed, stream, (uint64_t)(i / 4), words);
        lk_normal_pair_from_bits(words[0], words[1], normal);
        lk_normal_pair_from_bits(words[2], words[3], normal + 2);
        for (int64_t j = i; j < LK_MIN(i + 4, count); j++) {
            double uniform = (2.0 * (double)lk_uniform_from_bits(words[j % 4]) - 1.0) * bound;
            values[j] = (float)(initial == LK_INITIAL_NORMAL ? 0.02 * normal[j % 4] : uniform);
        }
    }
}

lk_status lk_adapter_add_matrix(lk_adapter *adapter, lk_adapter_site *site, lk_peft_kind kind, int64_t rows,
                                int64_t columns, lk_initial initial) {
    lk_adapter_tensor_spec spec = {.kind = kind, .rows = rows, .columns = columns};
    if (initial == LK_INITIAL_ZEROS || adapter->options == NULL || adapter->model->plan_only) {
        return lk_adapter_add_tensor(adapter, site, &spec, NULL);
    }
    float *values = lk_calloc(adapter->context, (size_t)(rows * columns), sizeof *values);
    if (values == NULL) {
        return lk_out_of_memory(adapter->context, (size_t)(rows * columns) * sizeof *values, "an adapter's tensor");
    }
    draw(adapter, site, initial, rows * columns, columns, values);
    spec.values = values;
    lk_status status = lk_adapter_add_tensor(adapter, site, &spec, NULL);
    lk_free(adapter->context, values);
    return status;
}
