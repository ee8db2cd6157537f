/* Where sequences lie, as cuDNN wants it: their lengths, and where each begins in q, k and the log-sum-exps, in
 * elements; four lists, each `pitch` integers after the one before. */
LK_NATIVE_KERNEL(const int *cu_seqlens, int *lists, int sequences, int heads, int kv_heads, int head_dim, int pitch,
                 int lk_first) {
    const int i = LK_PLACE_X * LK_SET_GROUP + lk_thread();
    if (i > sequences) {
        return;
    }
    const int start = lk_load(cu_seqlens + i);
    if (i < sequences) {
        lk_store(lists + i, lk_load(cu_seqlens + i + 1) - start);
    }
    lk_store(lists + pitch + i, start * heads * head_dim);
    lk_store(lists + 2 * pitch + i, start * kv_heads * head_dim);
    lk_store(lists + 3 * pitch + i, start * heads);
}
