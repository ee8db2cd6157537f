/* Tiles of bf16 matrices in shared memory: part of each kernel's namespace, after its GROUP. */

/* Where a chunk of a row of a tile lies: number `chunk`, 0 or 1, of the pair of chunks that begins at element `element`
 * of the row (a multiple of 16). Eight rows one below the other at the same chunk fill all banks: rows of 64 bytes lie
 * in pairs. Of what changes from pair to pair only an exclusive or with a constant is left. */
template <int columns> LK_DEVICE lk_shared chunk_at(lk_shared tile, int row, int chunk, int element) {
    int swizzle = columns * 2 >= 128 ? row & 7 : (row >> 1) & 3;
    return tile + (lk_shared)(row * columns * 2) + (lk_shared)(((chunk ^ swizzle) * 16) ^ (element * 2));
}

/* Begins to copy a tile whose first element is (row, column); what lies beyond the matrix is 0. */
template <int rows, int columns>
LK_DEVICE void copy_tile(lk_shared tile, const lk_bf16 *from, int row, int column, int all_rows, int all_columns,
                         int pitch) {
    enum { CHUNKS = columns / 8 };
#pragma unroll
    for (int i = 0; i < rows * CHUNKS / GROUP; i++) {
        int index = lk_thread() + i * GROUP, r = index / CHUNKS, chunk = index % CHUNKS;
        int left = 2 * (all_columns - column - chunk * 8); /* bytes */
        int bytes = row + r < all_rows ? max(0, min(16, left)) : 0;
        const lk_bf16 *source = bytes > 0 ? from + (long long)(row + r) * pitch + column + chunk * 8 : from;
        lk_copy_async(chunk_at<columns>(tile, r, chunk % 2, chunk / 2 * 16), source, bytes);
    }
}
