/* RoPE frequencies and their scaling. llama3 scaling, as in transformers' modeling_rope_utils.py: frequencies whose
 * wavelength exceeds original / low_freq_factor are divided by factor, those below original / high_freq_factor are
 * kept, and in between 1 / divisor runs linearly in the frequency. */
#include <math.h>

#include "core/formats/model_config.h"

static const double two_pi = 6.283185307179586476925287;

static double frequency(double theta, int64_t head_dim, int64_t pair) {
    return pow(theta, -2.0 * (double)pair / (double)head_dim);
}

static double llama3_divisor(const lk_rope_config *rope, double unscaled) {
    double wavelength = two_pi / unscaled, original = (double)rope->original_max_position_embeddings;
    if (wavelength < original / rope->high_freq_factor) {
        return 1;
    }
    if (wavelength > original / rope->low_freq_factor) {
        return rope->factor;
    }
    double smooth = (original / wavelength - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return 1 / ((1 - smooth) / rope->factor + smooth);
}

void lk_rope_inverse_frequencies(const lk_rope_config *rope, int64_t head_dim, double *out) {
    for (int64_t i = 0; i < head_dim / 2; i++) {
        double unscaled = frequency(rope->theta, head_dim, i);
        double divisor = rope->type == LK_ROPE_LINEAR   ? rope->factor
                         : rope->type == LK_ROPE_LLAMA3 ? llama3_divisor(rope, unscaled)
                                                        : 1;
        out[i] = unscaled / divisor;
    }
}

/* What the divisors say about the line smooth(f) = slope * f - offset, where offset = low / (high - low) and
 * slope = original / (2 pi (high - low)): two of its points, or fewer. */
typedef struct evidence {
    int points;
    double first_f, first_smooth, last_f, last_smooth;
    double longest_kept, shortest_divided; /* wavelengths */
} evidence;

static evidence gather(const float *divisors, int64_t head_dim, double theta, double factor) {
    evidence found = {.longest_kept = 0, .shortest_divided = INFINITY};
    for (int64_t i = 0; i < head_dim / 2; i++) {
        double f = frequency(theta, head_dim, i), divisor = (double)divisors[i], wavelength = two_pi / f;
        if (divisor <= 1 + 1e-6) {
            found.longest_kept = fmax(found.longest_kept, wavelength);
        } else if (divisor >= factor * (1 - 1e-6)) {
            found.shortest_divided = fmin(found.shortest_divided, wavelength);
        } else {
            double smooth = (1 / divisor - 1 / factor) / (1 - 1 / factor);
            if (found.points++ == 0) {
                found.first_f = f;
                found.first_smooth = smooth;
            }
            found.last_f = f;
            found.last_smooth = smooth;
        }
    }
    return found;
}

/* Only ratios of low, high and original matter, so low is taken as 1; and with fewer than two points on the line high
 * is taken as 4, as in every published model. */
static double fit_original(const evidence *found, double *high) {
    *high = 4;
    if (found->points >= 2) {
        double slope = (found->first_smooth - found->last_smooth) / (found->first_f - found->last_f);
        double offset = slope * found->last_f - found->last_smooth;
        *high = 1 + 1 / offset;
        *high = fabs(*high - round(*high)) < 1e-3 ? round(*high) : *high;
        return two_pi * slope / offset;
    }
    if (found->points == 1) {
        return (found->first_smooth * 3 + 1) * two_pi / found->first_f;
    }
    return sqrt(fmax(4 * found->longest_kept, 1) * found->shortest_divided);
}

bool lk_rope_fit_llama3(const float *divisors, int64_t head_dim, lk_rope_config *rope) {
    double factor = 1, high;
    for (int64_t i = 0; i < head_dim / 2; i++) {
        if (!(divisors[i] >= 1) || !isfinite(divisors[i])) {
            return false;
        }
        factor = fmax(factor, (double)divisors[i]);
    }
    *rope = (lk_rope_config){.type = LK_ROPE_DEFAULT, .theta = rope->theta};
    if (factor == 1) {
        return true;
    }
    evidence found = gather(divisors, head_dim, rope->theta, factor);
    double original = fit_original(&found, &high);
    if (!(original >= 1 && original < 1e12 && high > 1)) {
        return false;
    }
    rope->type = LK_ROPE_LLAMA3;
    rope->factor = factor;
    rope->low_freq_factor = 1;
    rope->high_freq_factor = high;
    rope->original_max_position_embeddings = (int64_t)llround(original);
    for (int64_t i = 0; i < head_dim / 2; i++) {
        double expected = llama3_divisor(rope, frequency(rope->theta, head_dim, i));
        if (fabs(expected - (double)divisors[i]) > 1e-3 * expected) {
            return false;
        }
    }
    return true;
}
