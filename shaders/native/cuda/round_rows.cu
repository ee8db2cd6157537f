/* Rows of fp32, multiplied by `factor`, rounded to bf16, each beginning at a multiple of `pitch` elements: what the
 * tensor cores multiply. Beyond its columns a row is filled with zeros. */
LK_NATIVE_KERNEL(const float *x, lk_bf16 *y, int rows, int columns, int pitch, float factor, int lk_first) {
    enum { GROUP = LK_SET_GROUP };
    int quads = pitch / 4; /* pitch is a multiple of 8 */
    long long index = ((long long)LK_PLACE_Y * lk_blocks_x() + LK_PLACE_X) * GROUP + lk_thread();
    if (index >= (long long)rows * quads) {
        return;
    }
    long long row = index / quads;
    int column = (int)(index % quads) * 4;
    float quad[4];
    if (columns % 4 == 0 && column < columns) {
        lk_load_quad(x + row * columns + column, quad);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            quad[i] = column + i < columns ? lk_load(x + row * columns + column + i) : 0.0f;
        }
    }
    lk_store_bf16_quad(y + row * pitch + column, lk_pack(factor * quad[0], factor * quad[1]),
                       lk_pack(factor * quad[2], factor * quad[3]));
}
