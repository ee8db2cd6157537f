#include "core/adapters/lora_init.h"

#include "core/adapters/lora.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

/* Eigenvalues il..iu, ascending, of a symmetric matrix: LAPACK, which OpenBLAS contains. */
void dsyevr_(const char *jobz, const char *range, const char *uplo, const blasint *n, double *a, const blasint *lda,
             const double *vl, const double *vu, const blasint *il, const blasint *iu, const double *abstol, blasint *m,
             double *w, double *z, const blasint *ldz, blasint *isuppz, double *work, const blasint *lwork,
             blasint *iwork, const blasint *liwork, blasint *info);

enum { NORMAL_STREAM = 1 << 24 }; /* keeps the streams of other draws of a site apart */

/* ---- random starts ---- */

/* Kaiming-uniform with a = sqrt(5), which is uniform in +-1/sqrt(in); B is zero. */
static lk_status make_default(const lk_lora_init_job *job) {
    const lk_linear_site *linear = job->site->site;
    int64_t count = job->site->rank * linear->in;
    double bound = 1.0 / sqrt((double)linear->in);
    for (int64_t i = 0; i < count; i += 4) {
        uint32_t words[4];
        lk_philox4x32(job->adapter->seed, (uint64_t)linear->index, (uint64_t)(i / 4), words);
        for (int64_t j = i; j < LK_MIN(i + 4, count); j++) {
            job->a[j] = (float)((2.0 * (double)lk_uniform_from_bits(words[j % 4]) - 1.0) * bound);
        }
    }
    return LK_OK;
}

double lk_lora_normal(const lk_adapter *adapter, const lk_adapter_site *site, uint64_t which, int64_t index) {
    uint32_t words[4];
    double pair[2];
    uint64_t stream = NORMAL_STREAM * (which + 1) + (uint64_t)site->site->index;
    lk_philox4x32(adapter->seed, stream, (uint64_t)index, words);
    lk_normal_pair_from_bits(words[0], words[1], pair);
    return pair[0];
}

/* A normal with deviation 1/r; B is zero. */
static lk_status make_gaussian(const lk_lora_init_job *job) {
    for (int64_t i = 0; i < job->site->rank * job->site->site->in; i++) {
        job->a[i] = (float)(lk_lora_normal(job->adapter, job->site, 0, i) / (double)job->site->rank);
    }
    return LK_OK;
}

/* ---- QR by Householder's reflections ---- */

/* Reflects the rows from `first` on: m -= 2 u (u' m) / |u|^2; u [rows], w [columns] is scratch. */
static void reflect(double *m, int64_t rows, int64_t columns, int64_t first, const double *u, double *w) {
    double size = 0.0;
    memset(w, 0, (size_t)columns * sizeof *w);
    for (int64_t i = first; i < rows; i++) {
        size += u[i] * u[i];
        for (int64_t k = 0; k < columns; k++) {
            w[k] += u[i] * m[i * columns + k];
        }
    }
    for (int64_t i = first; i < rows && size > 0.0; i++) {
        for (int64_t k = 0; k < columns; k++) {
            m[i * columns + k] -= 2.0 * u[i] / size * w[k];
        }
    }
}

/* m [rows, columns] = Q R: leaves the first `steps` rows of R in m, and puts the first `steps` columns of Q into q
 * [rows, steps], with LAPACK's signs. Scratch: u [steps, rows], w [max(columns, steps)]. */
static void householder(double *m, int64_t rows, int64_t columns, int64_t steps, double *q, double *u, double *w) {
    for (int64_t j = 0; j < steps; j++) {
        double size = 0.0, *v = u + j * rows;
        for (int64_t i = j; i < rows; i++) {
            v[i] = m[i * columns + j];
            size += v[i] * v[i];
        }
        v[j] += v[j] < 0.0 ? -sqrt(size) : sqrt(size);
        reflect(m, rows, columns, j, v, w);
    }
    for (int64_t i = 0; i < rows * steps; i++) {
        q[i] = i / steps == i % steps ? 1.0 : 0.0;
    }
    for (int64_t j = steps - 1; j >= 0; j--) {
        reflect(q, rows, steps, j, u + j * rows, w);
    }
}

static lk_status allocate(const lk_lora_init_job *job, int64_t count, double **out) {
    *out = lk_calloc(job->adapter->context, (size_t)count, sizeof **out);
    return *out ? LK_OK
                : lk_out_of_memory(job->adapter->context, (size_t)count * sizeof **out, "the start of an adapter");
}

/* OLoRA (Bueyuekakyuez, arXiv 2406.01775): W = Q R; B is the first r columns of Q, A the first r rows of R. */
static lk_status make_olora(const lk_lora_init_job *job) {
    int64_t out = job->site->site->out, in = job->site->site->in, rank = job->site->rank;
    double *m;
    LK_TRY(allocate(job, out * in + 2 * out * rank + in, &m));
    double *q = m + out * in, *u = q + out * rank, *w = u + rank * out;
    for (int64_t i = 0; i < out * in; i++) {
        m[i] = (double)job->weight[i];
    }
    householder(m, out, in, rank, q, u, w);
    for (int64_t i = 0; i < rank * in; i++) {
        job->a[i] = i % in < i / in ? 0.0f : (float)m[i];
    }
    for (int64_t i = 0; i < out * rank; i++) {
        job->b[i] = (float)q[i];
    }
    lk_free(job->adapter->context, m);
    return LK_OK;
}

/* to[row, r] (or [r, row] if transposed): random in the span of every second row of q, from `first` on. */
static void draw_within(const lk_lora_init_job *job, uint64_t which, int64_t rows, bool transposed, const double *q,
                        int64_t first, double *drawn, float *to) {
    int64_t rank = job->site->rank, half = rank / 2;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t h = 0; h < half; h++) {
            drawn[h] = lk_lora_normal(job->adapter, job->site, which, i * half + h);
        }
        for (int64_t r = 0; r < rank; r++) {
            double sum = 0.0;
            for (int64_t h = 0; h < half; h++) {
                sum += drawn[h] * q[(2 * h + first) * rank + r];
            }
            to[transposed ? r * rows + i : i * rank + r] = (float)(sum / 10.0);
        }
    }
}

/* A and B lie in the two halves of a random orthogonal basis of the r dimensions between them, so that B A = 0 although
 * neither is zero. */
static lk_status make_orthogonal(const lk_lora_init_job *job) {
    const lk_linear_site *linear = job->site->site;
    int64_t rank = job->site->rank, square = rank * rank;
    double *m;
    if (rank % 2 != 0) {
        return lk_fail(job->adapter->context, LK_STATUS_INVALID_ARGUMENT,
                       "rank %lld at %s: the orthogonal start needs an even rank", (long long)rank, linear->path);
    }
    LK_TRY(allocate(job, 3 * square + rank, &m));
    double *q = m + square, *u = q + square, *w = u + square;
    for (int64_t i = 0; i < square; i++) {
        m[i] = lk_lora_normal(job->adapter, job->site, 0, i);
    }
    householder(m, rank, rank, rank, q, u, w);
    draw_within(job, 1, linear->in, true, q, 0, w, job->a);
    draw_within(job, 2, linear->out, false, q, 1, w, job->b);
    lk_free(job->adapter->context, m);
    return LK_OK;
}

/* ---- the largest singular values ---- */

/* The eigenvectors of the `count` largest eigenvalues, ascending, of the symmetric gram [n, n], which is destroyed:
 * values [n], vectors [count, n]. */
static lk_status largest_eigenvectors(const lk_lora_init_job *job, double *gram, int64_t n, int64_t count,
                                      double *values, double *vectors) {
    lk_context *context = job->adapter->context;
    const blasint size = (blasint)n, first = (blasint)(n - count + 1), query = -1;
    const double zero = 0.0;
    blasint found, info, integers, *support = lk_calloc(context, 2 * (size_t)n, sizeof *support);
    double doubles;
    if (support == NULL) {
        return lk_out_of_memory(context, 2 * (size_t)n * sizeof *support, "singular values");
    }
    dsyevr_("V", "I", "U", &size, gram, &size, &zero, &zero, &first, &size, &zero, &found, values, vectors, &size,
            support, &doubles, &query, &integers, &query, &info);
    const blasint num_doubles = (blasint)doubles, num_integers = integers;
    double *work = lk_calloc(context, (size_t)num_doubles, sizeof *work);
    blasint *iwork = lk_calloc(context, (size_t)num_integers, sizeof *iwork);
    lk_status status = LK_OK;
    if (work == NULL || iwork == NULL) {
        status = lk_out_of_memory(context, (size_t)num_doubles * sizeof *work, "singular values");
    } else {
        dsyevr_("V", "I", "U", &size, gram, &size, &zero, &zero, &first, &size, &zero, &found, values, vectors, &size,
                support, work, &num_doubles, iwork, &num_integers, &info);
        if (info != 0 || found != (blasint)count) {
            status = lk_fail(context, LK_STATUS_NUMERIC, "%s.weight: its singular values do not converge",
                             job->site->site->path);
        }
    }
    lk_free(context, support);
    lk_free(context, work);
    lk_free(context, iwork);
    return status;
}

/* PiSSA (Meng, Wang and Zhang, arXiv 2404.02948): s B A is the part of W = U S V' with the r largest singular values;
 * A = (S/s)^(1/2) V', B = U (S/s)^(1/2). The vectors of W's shorter side are eigenvectors of W W' or W' W; the others
 * follow from them. */
static lk_status make_pissa(const lk_lora_init_job *job) {
    int64_t out = job->site->site->out, in = job->site->site->in, rank = job->site->rank;
    bool wide = out <= in;
    int64_t n = wide ? out : in, other = wide ? in : out;
    double *w;
    LK_TRY(allocate(job, out * in + n * n + n + rank * (n + other), &w));
    double *gram = w + out * in, *values = gram + n * n, *near = values + n, *far = near + rank * n;
    for (int64_t i = 0; i < out * in; i++) {
        w[i] = (double)job->weight[i];
    }
    cblas_dsyrk(CblasColMajor, CblasUpper, wide ? CblasTrans : CblasNoTrans, (blasint)n, (blasint)other, 1.0, w,
                (blasint)in, 0.0, gram, (blasint)n);
    lk_status status = largest_eigenvectors(job, gram, n, rank, values, near);
    if (status == LK_OK) { /* far [rank, other] = near W or near W' */
        cblas_dgemm(CblasRowMajor, CblasNoTrans, wide ? CblasNoTrans : CblasTrans, (blasint)rank, (blasint)other,
                    (blasint)n, 1.0, near, (blasint)n, w, (blasint)in, 0.0, far, (blasint)other);
    }
    for (int64_t r = 0; r < rank && status == LK_OK; r++) {
        int64_t from = rank - 1 - r; /* largest first */
        double singular = sqrt(LK_MAX(values[from], 0.0)), root = sqrt(singular / (double)job->site->scale);
        double factor = singular > 0.0 ? root / singular : 0.0;
        const double *u = wide ? near + from * n : far + from * other, *v = wide ? far + from * other : near + from * n;
        for (int64_t i = 0; i < out; i++) {
            job->b[i * rank + r] = (float)((wide ? root : factor) * u[i]);
        }
        for (int64_t k = 0; k < in; k++) {
            job->a[r * in + k] = (float)((wide ? factor : root) * v[k]);
        }
    }
    lk_free(job->adapter->context, w);
    return status;
}

/* ---- the list ---- */

static const lk_lora_init inits[] = {{"default", false, make_default},
                                     {"gaussian", false, make_gaussian},
                                     {"orthogonal", false, make_orthogonal},
                                     {"olora", true, make_olora},
                                     {"pissa", true, make_pissa}};

static const char *const names[] = {"default", "gaussian", "orthogonal", "olora", "pissa", "lycoris", NULL};

const char *const *lk_adapter_inits(void) {
    return names;
}

static const lk_lora_init *find(const char *name) {
    for (size_t i = 0; i < LK_COUNT(inits); i++) {
        if (strcmp(inits[i].name, name) == 0) {
            return &inits[i];
        }
    }
    return NULL;
}

lk_status lk_lora_init_of(const lk_adapter *adapter, const lk_lora_init **out) {
    const char *name = json_string_value(adapter->config.init_lora_weights);
    const lk_lora_init *found = name != NULL ? find(name) : NULL;
    *out = found != NULL ? found : &inits[0]; /* true, false, and what only PEFT draws: the tensors are in the file */
    if ((*out)->from_weight && !lk_lora_is_plain(adapter->method)) {
        return lk_fail(adapter->context, LK_STATUS_UNSUPPORTED,
                       "init %s with %s: only lora and rslora can start from the weight", name, adapter->method->name);
    }
    return LK_OK;
}

lk_status lk_lora_init_configure(lk_adapter *adapter, const char *name) {
    if (name == NULL || strcmp(name, "default") == 0) {
        return LK_OK;
    }
    if (strcmp(name, "lycoris") == 0) { /* lokr.c does it */
        return adapter->method->type == LK_PEFT_LOKR
                   ? LK_OK
                   : lk_fail(adapter->context, LK_STATUS_UNSUPPORTED, "init lycoris: only lokr has it");
    }
    if (adapter->method->type != LK_PEFT_LORA) {
        return lk_fail(adapter->context, LK_STATUS_UNSUPPORTED, "init %s: %s has only the default start", name,
                       adapter->method->name);
    }
    if (find(name) == NULL) {
        return lk_fail(adapter->context, LK_STATUS_INVALID_ARGUMENT,
                       "init: there is no start \"%s\"; known are default, gaussian, orthogonal, olora, pissa", name);
    }
    json_decref(adapter->config.init_lora_weights);
    adapter->config.init_lora_weights = json_string(name);
    return adapter->config.init_lora_weights ? LK_OK
                                             : lk_out_of_memory(adapter->context, 0, "an adapter's configuration");
}
