#include "core/formats/lora_combine.h"

#include <math.h>
#include <string.h>

/* The module of one path in each file that has it. */
typedef struct term {
    const lk_lora_module *module;
    double weight; /* with the module's scale */
} term;

typedef struct sum {
    lk_context *context;
    term *terms;
    size_t count;
    int64_t in, out, ranks; /* ranks: all together */
} sum;

static const lk_lora_module *find(const lk_lora_file *file, const char *path) {
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->modules[i].path, path) == 0) {
            return &file->modules[i];
        }
    }
    return NULL;
}

static lk_status collect(const lk_lora_file *files, const double *weights, size_t count, const char *path, sum *of) {
    of->count = 0;
    of->ranks = 0;
    for (size_t i = 0; i < count; i++) {
        const lk_lora_module *module = find(&files[i], path);
        if (module == NULL) {
            continue;
        }
        if (of->count > 0 && (module->in != of->in || module->out != of->out)) {
            return lk_fail(of->context, LK_STATUS_INVALID_ARGUMENT,
                           "%s is [%lld, %lld] in one adapter and [%lld, %lld] in another: they are of different bases",
                           path, (long long)of->out, (long long)of->in, (long long)module->out, (long long)module->in);
        }
        of->in = module->in;
        of->out = module->out;
        of->ranks += module->rank;
        of->terms[of->count++] = (term){module, weights[i] * module->scale};
    }
    return LK_OK;
}

/* ---- one below the other: exact, with the ranks' sum ---- */

static lk_status concatenate(lk_lora_file *out, const sum *of, lk_lora_module *to) {
    to->rank = of->ranks;
    to->scale = 1.0;
    LK_TRY(lk_lora_file_alloc(out, to->rank, of->in, &to->a));
    LK_TRY(lk_lora_file_alloc(out, of->out, to->rank, &to->b));
    int64_t first = 0;
    for (size_t t = 0; t < of->count; t++) {
        const lk_lora_module *module = of->terms[t].module;
        memcpy(to->a + first * of->in, module->a, (size_t)(module->rank * of->in) * sizeof *to->a);
        for (int64_t n = 0; n < of->out; n++) {
            for (int64_t r = 0; r < module->rank; r++) {
                to->b[n * to->rank + first + r] =
                    (float)(of->terms[t].weight * (double)module->b[n * module->rank + r]);
            }
        }
        first += module->rank;
    }
    return LK_OK;
}

/* ---- A and B summed each: cheap, and only near the sum of the products ---- */

static lk_status add_factors(lk_lora_file *out, const sum *of, lk_lora_module *to) {
    to->rank = of->terms[0].module->rank;
    to->scale = 1.0;
    LK_TRY(lk_lora_file_alloc(out, to->rank, of->in, &to->a));
    LK_TRY(lk_lora_file_alloc(out, of->out, to->rank, &to->b));
    for (size_t t = 0; t < of->count; t++) {
        const lk_lora_module *module = of->terms[t].module;
        if (module->rank != to->rank) {
            return lk_fail(of->context, LK_STATUS_INVALID_ARGUMENT,
                           "%s has the ranks %lld and %lld: a linear combination needs equal ones; use svd or cat",
                           to->path, (long long)to->rank, (long long)module->rank);
        }
        double root = sqrt(fabs(of->terms[t].weight)), sign = of->terms[t].weight < 0.0 ? -1.0 : 1.0;
        for (int64_t i = 0; i < to->rank * of->in; i++) { /* the sign belongs to A, as in PEFT */
            to->a[i] = (float)((double)to->a[i] + sign * root * (double)module->a[i]);
        }
        for (int64_t i = 0; i < of->out * to->rank; i++) {
            to->b[i] = (float)((double)to->b[i] + root * (double)module->b[i]);
        }
    }
    return LK_OK;
}

/* ---- the nearest update of a rank ---- */

static double dot(const double *m, int64_t rows, int64_t columns, int64_t p, int64_t q) {
    double total = 0.0;
    for (int64_t i = 0; i < rows; i++) {
        total += m[i * columns + p] * m[i * columns + q];
    }
    return total;
}

static void rotate(double *m, int64_t rows, int64_t columns, int64_t p, int64_t q, double c, double s) {
    for (int64_t i = 0; i < rows; i++) {
        double *row = m + i * columns, x = row[p], y = row[q];
        row[p] = c * x - s * y;
        row[q] = s * x + c * y;
    }
}

static void swap_columns(double *m, int64_t rows, int64_t columns, int64_t p, int64_t q) {
    for (int64_t i = 0; i < rows; i++) {
        double other = m[i * columns + p];
        m[i * columns + p] = m[i * columns + q];
        m[i * columns + q] = other;
    }
}

void lk_svd_jacobi(double *m, int64_t rows, int64_t columns, double *s, double *v) {
    enum { SWEEPS = 60 };
    for (int64_t i = 0; i < columns * columns; i++) {
        v[i] = i / columns == i % columns ? 1.0 : 0.0;
    }
    bool turned = true;
    for (int sweep = 0; sweep < SWEEPS && turned; sweep++) {
        turned = false;
        for (int64_t p = 0; p + 1 < columns; p++) {
            for (int64_t q = p + 1; q < columns; q++) {
                double pq = dot(m, rows, columns, p, q), pp = dot(m, rows, columns, p, p);
                double qq = dot(m, rows, columns, q, q);
                if (!(fabs(pq) > 1e-15 * sqrt(pp * qq))) {
                    continue;
                }
                double zeta = (qq - pp) / (2.0 * pq);
                double tangent = (zeta < 0.0 ? -1.0 : 1.0) / (fabs(zeta) + sqrt(1.0 + zeta * zeta));
                double c = 1.0 / sqrt(1.0 + tangent * tangent);
                rotate(m, rows, columns, p, q, c, c * tangent);
                rotate(v, columns, columns, p, q, c, c * tangent);
                turned = true;
            }
        }
    }
    for (int64_t i = 0; i < columns; i++) {
        s[i] = sqrt(dot(m, rows, columns, i, i));
    }
    for (int64_t i = 0; i < columns; i++) {
        int64_t largest = i;
        for (int64_t j = i + 1; j < columns; j++) {
            largest = s[j] > s[largest] ? j : largest;
        }
        double other = s[i];
        s[i] = s[largest];
        s[largest] = other;
        swap_columns(m, rows, columns, i, largest);
        swap_columns(v, columns, columns, i, largest);
        for (int64_t n = 0; n < rows && s[i] > 0.0; n++) {
            m[n * columns + i] /= s[i];
        }
    }
}

/* Of B A with factors [out, k] and [k, in], by the singular values of the factors: with B = Ub Sb Vb' and
 * A' = Ua Sa Va', the middle Sb Vb' Va Sa is only [k, k]. */
typedef struct factors {
    double *b, *at;      /* [out, k], [in, k]; then Ub, Ua */
    double *sb, *sa, *s; /* [k] */
    double *vb, *va;     /* [k, k] */
    double *middle, *v;  /* [k, k] */
    double *memory;
    int64_t k, in, out;
} factors;

static lk_status allocate(lk_context *context, const sum *of, factors *f) {
    size_t k = (size_t)of->ranks, in = LK_MAX((size_t)of->in, k), out = LK_MAX((size_t)of->out, k);
    *f = (factors){.k = of->ranks, .in = (int64_t)in, .out = (int64_t)out};
    size_t elements = k * (in + out) + 3 * k + 4 * k * k;
    f->memory = lk_calloc(context, elements, sizeof *f->memory);
    if (f->memory == NULL) {
        return lk_out_of_memory(context, elements * sizeof *f->memory, "singular values");
    }
    f->b = f->memory;
    f->at = f->b + out * k;
    f->sb = f->at + in * k;
    f->sa = f->sb + k;
    f->s = f->sa + k;
    f->vb = f->s + k;
    f->va = f->vb + k * k;
    f->middle = f->va + k * k;
    f->v = f->middle + k * k;
    return LK_OK;
}

static void fill(const sum *of, factors *f) {
    int64_t first = 0, k = f->k;
    for (size_t t = 0; t < of->count; t++) {
        const lk_lora_module *module = of->terms[t].module;
        for (int64_t r = 0; r < module->rank; r++) {
            for (int64_t n = 0; n < of->out; n++) {
                f->b[n * k + first + r] = of->terms[t].weight * (double)module->b[n * module->rank + r];
            }
            for (int64_t i = 0; i < of->in; i++) {
                f->at[i * k + first + r] = (double)module->a[r * of->in + i];
            }
        }
        first += module->rank;
    }
}

static void decompose(factors *f) {
    int64_t k = f->k;
    lk_svd_jacobi(f->b, f->out, k, f->sb, f->vb);
    lk_svd_jacobi(f->at, f->in, k, f->sa, f->va);
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j < k; j++) {
            double total = 0.0;
            for (int64_t t = 0; t < k; t++) {
                total += f->vb[t * k + i] * f->va[t * k + j];
            }
            f->middle[i * k + j] = f->sb[i] * total * f->sa[j];
        }
    }
    lk_svd_jacobi(f->middle, k, k, f->s, f->v);
}

/* B = Ub Um sqrt(S), A = sqrt(S) Vm' Ua', of the largest singular values. */
static lk_status truncate(lk_lora_file *out, const sum *of, int64_t rank, lk_lora_module *to) {
    factors f;
    LK_TRY(allocate(of->context, of, &f));
    fill(of, &f);
    decompose(&f);
    to->rank = LK_MIN(rank, LK_MIN(f.k, LK_MIN(of->in, of->out)));
    to->scale = 1.0;
    lk_status status = lk_lora_file_alloc(out, to->rank, of->in, &to->a);
    status = status == LK_OK ? lk_lora_file_alloc(out, of->out, to->rank, &to->b) : status;
    for (int64_t r = 0; r < to->rank && status == LK_OK; r++) {
        double root = sqrt(f.s[r]);
        for (int64_t n = 0; n < of->out; n++) {
            double total = 0.0;
            for (int64_t t = 0; t < f.k; t++) {
                total += f.b[n * f.k + t] * f.middle[t * f.k + r];
            }
            to->b[n * to->rank + r] = (float)(root * total);
        }
        for (int64_t i = 0; i < of->in; i++) {
            double total = 0.0;
            for (int64_t t = 0; t < f.k; t++) {
                total += f.at[i * f.k + t] * f.v[t * f.k + r];
            }
            to->a[r * of->in + i] = (float)(root * total);
        }
    }
    lk_free(of->context, f.memory);
    return status;
}

/* ---- all modules ---- */

static lk_status combine_module(lk_lora_file *out, const sum *of, lk_combine how, int64_t rank, lk_lora_module *to) {
    to->in = of->in;
    to->out = of->out;
    if (how == LK_COMBINE_CAT) {
        return concatenate(out, of, to);
    }
    return how == LK_COMBINE_LINEAR ? add_factors(out, of, to) : truncate(out, of, rank, to);
}

lk_status lk_lora_combine(const lk_lora_file *files, const double *weights, size_t count, lk_combine how, int64_t rank,
                          lk_lora_file *out) {
    sum of = {.context = out->context};
    for (size_t i = 0; i < count; i++) {
        if (lk_lora_file_has_magnitudes(&files[i])) {
            return lk_fail(out->context, LK_STATUS_UNSUPPORTED, "adapters with DoRA cannot be combined");
        }
        for (size_t m = 0; m < files[i].count && rank <= 0; m++) {
            rank = LK_MIN(rank, -files[i].modules[m].rank); /* the largest, as a negative number */
        }
    }
    rank = rank < 0 ? -rank : rank;
    of.terms = lk_calloc(out->context, count + 1, sizeof *of.terms);
    lk_status status = of.terms ? LK_OK : lk_out_of_memory(out->context, count * sizeof *of.terms, "a combination");
    for (size_t i = 0; i < count; i++) {
        for (size_t m = 0; m < files[i].count && status == LK_OK; m++) {
            const char *path = files[i].modules[m].path;
            lk_lora_module *to;
            status = lk_lora_file_module(out, path, &to);
            if (status != LK_OK || to->a != NULL) {
                continue;
            }
            status = collect(files, weights, count, path, &of);
            status = status == LK_OK ? combine_module(out, &of, how, rank, to) : status;
        }
    }
    lk_free(out->context, of.terms);
    LK_TRY(status);
    out->dropout = files[0].dropout;
    out->base_model = files[0].base_model ? lk_arena_printf(&out->arena, "%s", files[0].base_model) : NULL;
    out->task_type = files[0].task_type ? lk_arena_printf(&out->arena, "%s", files[0].task_type) : NULL;
    return lk_lora_file_finish(out, "the combination");
}
