/* Rows of bf16 as fp32, two elements a lane; those that belong to no sequence become zeros, whatever they held. */
LK_NATIVE_KERNEL(const lk_bf16 *x, const int *cu_seqlens, float *y, int rows, int columns, int sequences,
                 int lk_first) {
    enum { GROUP = LK_SET_GROUP };
    const int pairs = columns / 2;
    const long long index = ((long long)LK_PLACE_Y * lk_blocks_x() + LK_PLACE_X) * GROUP + lk_thread();
    if (index >= (long long)rows * pairs) {
        return;
    }
    const int row = (int)(index / pairs);
    const bool inside = row >= lk_load(cu_seqlens) && row < lk_load(cu_seqlens + sequences);
    const unsigned packed = inside ? lk_load(reinterpret_cast<const unsigned *>(x) + index) : 0u;
    lk_store_pair(y + 2 * index, lk_float(packed << 16), lk_float(packed & 0xffff0000u));
}
