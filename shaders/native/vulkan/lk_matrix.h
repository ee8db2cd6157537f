/* Small matrices that a subgroup holds together, in words of the dialect: cooperative matrices
 * (VK_KHR_cooperative_matrix, GLSL_KHR_cooperative_matrix), or, where the word MATRIX is `emulated`, the same
 * arithmetic by the subgroup's lanes, so that a kernel can be run where no device has the others. Factors are fp16,
 * sums fp32.
 *
 * The kernel has the constants SUBGROUP (lanes) and MATRIX_M; products are MATRIX_M x 16 x 16. Tiles are shared arrays
 * of LK_HALF by rows, `stride` apart. */
LK_CONSTANT(1, SUBGROUP, 32)
LK_CONSTANT(2, MATRIX_M, 16)
LK_DERIVED(MATRIX_N, 16)
LK_DERIVED(MATRIX_K, 16)

#define LK_HALF float16_t
#define LK_TO_HALF(x) float16_t(x)
#define LK_IS_EMULATED_cooperative 0
#define LK_IS_EMULATED_emulated 1

#if LK_WORD(LK_IS_EMULATED_, MATRIX)
LK_DERIVED(MATRIX_SUMS, (MATRIX_M * MATRIX_N + SUBGROUP - 1) / SUBGROUP)
#define LK_SUBGROUP (LK_LANE / SUBGROUP)
#define LK_SUBGROUP_LANE (LK_LANE % SUBGROUP)
/* factors stay in their tile: where they start */
#define LK_MATRIX_LEFT(name, count) int name[count];
#define LK_MATRIX_RIGHT(name) int name;
#define LK_MATRIX_LOAD(factor, tile, at, stride) factor = at;
#define LK_MATRIX_CLEARED(sums, count)                       \
    float sums[(count)*MATRIX_SUMS];                         \
    for (int lk_s = 0; lk_s < (count)*MATRIX_SUMS; lk_s++) { \
        sums[lk_s] = 0.0f;                                   \
    }
#define LK_MATRIX_MULTIPLY(sums, index, left, left_tile, left_stride, right, right_tile, right_stride)             \
    for (int lk_s = 0; lk_s < MATRIX_SUMS; lk_s++) {                                                               \
        int lk_e = lk_s * SUBGROUP + LK_SUBGROUP_LANE, lk_i = lk_e / MATRIX_N, lk_j = lk_e % MATRIX_N;             \
        for (int lk_k = 0; lk_k < MATRIX_K && lk_i < MATRIX_M; lk_k++) {                                           \
            sums[(index)*MATRIX_SUMS + lk_s] =                                                                     \
                LK_FMA(float(left_tile[left + lk_i * (left_stride) + lk_k]),                                       \
                       float(right_tile[right + lk_k * (right_stride) + lk_j]), sums[(index)*MATRIX_SUMS + lk_s]); \
        }                                                                                                          \
    }
#define LK_MATRIX_STORE(sums, index, tile, at, stride)                                                    \
    for (int lk_s = 0; lk_s < MATRIX_SUMS; lk_s++) {                                                      \
        int lk_e = lk_s * SUBGROUP + LK_SUBGROUP_LANE;                                                    \
        if (lk_e < MATRIX_M * MATRIX_N) {                                                                 \
            tile[(at) + lk_e / MATRIX_N * (stride) + lk_e % MATRIX_N] = sums[(index)*MATRIX_SUMS + lk_s]; \
        }                                                                                                 \
    }
#else
#define LK_SUBGROUP int(gl_SubgroupID)
#define LK_SUBGROUP_LANE int(gl_SubgroupInvocationID)
#define LK_MATRIX_OF_SUMS coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>
#define LK_MATRIX_LEFT(name, count) coopmat<float16_t, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA> name[count];
#define LK_MATRIX_RIGHT(name) coopmat<float16_t, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB> name;
#define LK_MATRIX_LOAD(factor, tile, at, stride) \
    coopMatLoad(factor, tile, at, stride, gl_CooperativeMatrixLayoutRowMajor);
#define LK_MATRIX_CLEARED(sums, count)           \
    LK_MATRIX_OF_SUMS sums[count];               \
    for (int lk_s = 0; lk_s < (count); lk_s++) { \
        sums[lk_s] = LK_MATRIX_OF_SUMS(0.0f);    \
    }
#define LK_MATRIX_MULTIPLY(sums, index, left, left_tile, left_stride, right, right_tile, right_stride) \
    sums[index] = coopMatMulAdd(left, right, sums[index]);
#define LK_MATRIX_STORE(sums, index, tile, at, stride) \
    coopMatStore(sums[index], tile, at, stride, gl_CooperativeMatrixLayoutRowMajor);
#endif
