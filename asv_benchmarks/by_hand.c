/* What Adam costs where the compiler is not in the way: the loops over a block written by hand in AVX-512.
 *
 * float32, int8 states, and split8 with int8 states, in the formats of fastopt/_storage/int8.py and codecs.py, with the
 * same random bits, peaks and kept numbers; on one core, all arrays in its own caches. Prints ns an element.
 *
 *     gcc -O3 -march=icelake-server -mprefer-vector-width=512 -ffp-contract=off by_hand.c -o /tmp/by_hand && /tmp/by_hand
 */
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef __m512 F;
typedef __m512i I;
#define INT(x) _mm512_set1_epi32((int)(x))
#define FLOAT(x) _mm512_set1_ps(x)
#define BITS _mm512_castps_si512
#define NUMBER _mm512_castsi512_ps
#define SELECT(mask, a, b) _mm512_ternarylogic_epi32(INT(mask), a, b, 0xCA)
#define WITH(a, mask, b) _mm512_ternarylogic_epi32(a, INT(mask), b, 0xEA) /* (a & mask) | b */

enum { N = 1 << 13, BLOCK = 1024, ROUNDS = 201, CALLS = 20 };
static const unsigned ALONG = 0xA3B46C8D;
static float b1 = .9f, c1 = .1f, b2 = .999f, c2 = .001f, lr = 1e-3f, v_factor = 1.f, eps_root = 0.f, eps = 1e-8f;

typedef struct {
    F p, m, v;
} Row;

static inline Row adam(F g, Row old) {
    Row new;
    new.m = _mm512_fmadd_ps(g, FLOAT(c1), _mm512_mul_ps(old.m, FLOAT(b1)));
    new.v = _mm512_fmadd_ps(_mm512_mul_ps(g, g), FLOAT(c2), _mm512_mul_ps(old.v, FLOAT(b2)));
    F root = _mm512_sqrt_ps(_mm512_fmadd_ps(new.v, FLOAT(v_factor), FLOAT(eps_root)));
    new.p = _mm512_sub_ps(old.p, _mm512_div_ps(_mm512_mul_ps(new.m, FLOAT(lr)), _mm512_add_ps(root, FLOAT(eps))));
    return new;
}

static inline F read_signed(const uint8_t *at, I lowest) {
    I byte = _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)at));
    I size = _mm512_add_epi32(_mm512_and_si512(_mm512_slli_epi32(byte, 20), INT(0x07F00000)), lowest);
    return NUMBER(_mm512_ternarylogic_epi32(BITS(_mm512_sub_ps(NUMBER(size), NUMBER(lowest))), byte, INT(1u << 31), 0xF8));
}

static inline F read_unsigned(const uint8_t *at, I lowest) {
    I byte = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)at));
    return NUMBER(_mm512_add_epi32(_mm512_slli_epi32(byte, 20), lowest));
}

/* 64 codes, each in 32 bits, to bytes; what is below 0 becomes 0. */
static inline void pack(uint8_t *at, const I *codes) {
    I order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    I halves[2];
    for (int k = 0; k < 2; k++) halves[k] = _mm512_packus_epi32(codes[2 * k], codes[2 * k + 1]);
    _mm512_storeu_si512(at, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(halves[0], halves[1])));
}

typedef struct {
    I lowest_m, lowest_v, peak_m, peak_v, noise;
    float *kept_m, *kept_v;
} Block;

/* Keep 16 new numbers, count them in the peaks, and return their codes. */
static inline void encode(Block *block, Row new, long i, I *code_m, I *code_v) {
    _mm512_storeu_ps(block->kept_m + i % BLOCK, new.m);
    _mm512_storeu_ps(block->kept_v + i % BLOCK, new.v);
    I size = _mm512_and_si512(BITS(new.m), INT(0x7FFFFFFF)), zero = INT(0);
    block->peak_m = _mm512_max_epu32(block->peak_m, size);
    block->peak_v = _mm512_max_epu32(block->peak_v, BITS(new.v));
    I away = BITS(_mm512_add_ps(NUMBER(size), NUMBER(block->lowest_m)));
    I code = _mm512_add_epi32(away, WITH(block->noise, 0xFFFFF, _mm512_sub_epi32(zero, block->lowest_m)));
    *code_m = SELECT(0x80, _mm512_srli_epi32(BITS(new.m), 24), _mm512_srli_epi32(code, 20));
    code = _mm512_add_epi32(BITS(new.v), WITH(block->noise, 0xFFFFF, _mm512_sub_epi32(zero, block->lowest_v)));
    *code_v = _mm512_srai_epi32(code, 20);
    block->noise = _mm512_add_epi32(block->noise, INT(16 * ALONG));
}

__attribute__((noinline)) void float32(const float *g, float *p, float *m, float *v) {
    for (long i = 0; i < N; i += 16) {
        Row old = {_mm512_loadu_ps(p + i), _mm512_loadu_ps(m + i), _mm512_loadu_ps(v + i)};
        Row new = adam(_mm512_loadu_ps(g + i), old);
        _mm512_storeu_ps(p + i, new.p);
        _mm512_storeu_ps(m + i, new.m);
        _mm512_storeu_ps(v + i, new.v);
    }
}

__attribute__((noinline)) void int8(const float *g, float *p, uint8_t *m, uint8_t *v, Block *given) {
    Block block = *given;
    for (long i = 0; i < N; i += 64) {
        I codes_m[4], codes_v[4];
#pragma GCC unroll 4
        for (int u = 0; u < 4; u++) {
            long j = i + 16 * u;
            Row old = {_mm512_loadu_ps(p + j), read_signed(m + j, block.lowest_m), read_unsigned(v + j, block.lowest_v)};
            Row new = adam(_mm512_loadu_ps(g + j), old);
            _mm512_storeu_ps(p + j, new.p);
            encode(&block, new, j, codes_m + u, codes_v + u);
        }
        pack(m + i, codes_m);
        pack(v + i, codes_v);
    }
    *given = block;
}

/* Bytes `first`, `first` + 1, ... of each dword of two registers, `count` of each dword. */
static I bytes_of_two(int first, int count) {
    uint8_t index[64];
    for (int k = 0; k < 64; k++) {
        int dword = k / count % 32;
        index[k] = (uint8_t)(dword < 16 ? 4 * dword : 64 + 4 * (dword - 16)) + first + k % count;
    }
    return _mm512_loadu_si512(index);
}

__attribute__((noinline)) void split8_int8(const uint16_t *g, uint16_t *p, int8_t *low, uint8_t *m, uint8_t *v, Block *given) {
    Block block = *given;
    I upper = bytes_of_two(2, 2), second = bytes_of_two(1, 1);
    for (long i = 0; i < N; i += 64) {
        I codes_m[4], codes_v[4], weights[4], rounded[4];
#pragma GCC unroll 4
        for (int u = 0; u < 4; u++) {
            long j = i + 16 * u;
            I high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p + j))), 16);
            I hidden = _mm512_slli_epi32(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(low + j))), 8);
            Row old = {NUMBER(_mm512_add_epi32(high, hidden)), read_signed(m + j, block.lowest_m),
                       read_unsigned(v + j, block.lowest_v)};
            I gradient = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(g + j))), 16);
            Row new = adam(NUMBER(gradient), old);
            I kept = _mm512_add_epi32(BITS(new.p), _mm512_and_si512(block.noise, INT(0xFF)));
            kept = _mm512_mask_mov_epi32(INT(0x7FC00000), _mm512_cmp_ps_mask(new.p, new.p, _CMP_ORD_Q), kept);
            weights[u] = kept;
            rounded[u] = _mm512_add_epi32(kept, INT(0x8000));
            encode(&block, new, j, codes_m + u, codes_v + u);
        }
        for (int u = 0; u < 4; u += 2) {
            _mm512_storeu_si512(p + i + 16 * u, _mm512_permutex2var_epi8(rounded[u], upper, rounded[u + 1]));
            I lower = _mm512_permutex2var_epi8(weights[u], second, weights[u + 1]);
            _mm256_storeu_si256((void *)(low + i + 16 * u), _mm512_castsi512_si256(lower));
        }
        pack(m + i, codes_m);
        pack(v + i, codes_v);
    }
    *given = block;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *room(long bytes, int number) {
    return (char *)aligned_alloc(4096, bytes + 8192) + 448 * number;
}

int main(void) {
    float *g = room(4 * N, 0), *p = room(4 * N, 1), *m = room(4 * N, 2), *v = room(4 * N, 3);
    uint16_t *g16 = room(2 * N, 0), *p16 = room(2 * N, 1);
    int8_t *low = room(N, 2);
    uint8_t *m8 = room(N, 3), *v8 = room(N, 4);
    Block block = {INT(0x39800000), INT(0x31800000), INT(0), INT(0), INT(0), room(4 * BLOCK, 5), room(4 * BLOCK, 6)};
    unsigned first[16];
    for (int k = 0; k < 16; k++) first[k] = k * ALONG;
    block.noise = _mm512_loadu_si512(first);
    for (int i = 0; i < N; i++) {
        g[i] = m[i] = rand() / (float)RAND_MAX - .5f;
        v[i] = g[i] * g[i], p[i] = 1;
        uint32_t bits;
        memcpy(&bits, g + i, 4);
        g16[i] = bits >> 16, p16[i] = 0x3F80, low[i] = 0, m8[i] = rand(), v8[i] = rand();
    }
    static double taken[3][ROUNDS];
    for (int r = 0; r < ROUNDS; r++) {
        double start = seconds();
        for (int k = 0; k < CALLS; k++) float32(g, p, m, v);
        double second = seconds();
        for (int k = 0; k < CALLS; k++) int8(g, p, m8, v8, &block);
        double third = seconds();
        for (int k = 0; k < CALLS; k++) split8_int8(g16, p16, low, m8, v8, &block);
        taken[0][r] = second - start, taken[1][r] = third - second, taken[2][r] = seconds() - third;
    }
    const char *names[] = {"float32", "int8 states", "split8 and int8 states"};
    for (int k = 0; k < 3; k++) {
        qsort(taken[k], ROUNDS, sizeof(double), compare);
        printf("%-24s %.3f\n", names[k], taken[k][ROUNDS / 2] / CALLS / N * 1e9);
    }
}
