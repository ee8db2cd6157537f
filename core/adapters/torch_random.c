/* MT19937 (Matsumoto and Nishimura, ACM TOMACS 8, 1998), of whose words PyTorch takes the low 24 bits for a float. */
#include "core/adapters/torch_random.h"

enum { N = 624, M = 397 };

void lk_torch_random_seed(lk_torch_random *random, uint64_t seed) {
    random->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < N; i++) {
        uint32_t before = random->state[i - 1];
        random->state[i] = 1812433253u * (before ^ before >> 30) + i;
    }
    random->next = N;
}

static void refill(uint32_t *state) {
    for (int i = 0; i < N; i++) {
        uint32_t mixed = (state[i] & 0x80000000u) | (state[(i + 1) % N] & 0x7fffffffu);
        state[i] = state[(i + M) % N] ^ mixed >> 1 ^ (mixed & 1u ? 0x9908b0dfu : 0u);
    }
}

static uint32_t next_word(lk_torch_random *random) {
    if (random->next == N) {
        refill(random->state);
        random->next = 0;
    }
    uint32_t word = random->state[random->next++];
    word ^= word >> 11;
    word ^= word << 7 & 0x9d2c5680u;
    word ^= word << 15 & 0xefc60000u;
    return word ^ word >> 18;
}

void lk_torch_random_uniform(lk_torch_random *random, float bound, int64_t count, float *values) {
    for (int64_t i = 0; i < count; i++) {
        float unit = (float)(next_word(random) & 0xffffffu) * (1.0f / 16777216.0f);
        values[i] = unit * (bound - -bound) + -bound;
    }
}
