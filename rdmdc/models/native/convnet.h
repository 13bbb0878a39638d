/* What convnet.c, amx.c and learning.c share: vectors of 16 channels, the network and what its passes keep. */

#ifndef CONVNET_H
#define CONVNET_H

#include <stddef.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

/* float32; two neighbouring terms in bf16 a word; tiles of bf16, see amx.c */
enum { SINGLE, PAIRS, AMX };
enum { LANES = 16, GROUP = 8, TILE = 36, DEPTH = 8 };
typedef float vec __attribute__((vector_size(64), aligned(4)));
typedef int bits __attribute__((vector_size(64)));
typedef float four __attribute__((vector_size(16), aligned(4)));

static const float EPSILON = 1e-5f; /* of the norm, as torch's */

typedef struct {
    int depth, side, pad, channels, width; /* side: of the padded input, without kernels' borders */
    int half;                              /* what products are of: SINGLE, PAIRS or AMX */
    const float *first_back;               /* (O, 32 n): the first kernels, 9 C padded to 32 n */
    const float *kernels[DEPTH];           /* (36, O / panel, words of C, panel): transformed */
    const float *kernels_back[DEPTH];      /* the same of kernels turned round; from block 1 on */
                                           /* for AMX both are in tiles, from block 0 on */
    const float *gain[DEPTH], *shift[DEPTH]; /* (O): the norms' weight and bias */
} Net;

typedef struct { /* what forward keeps for backward, (image, ...) each; NULL: nothing is kept */
    float *pooled[DEPTH];     /* (h/2, w/2, O): what the next block reads */
    float *normalised[DEPTH]; /* (O / 16, h, w, 16): before gain and shift; by AMX in bf16 */
    float *scale[DEPTH];      /* (O): 1 / standard deviation */
    int far;                  /* whether normalised is too large for the cache */
} Kept;

typedef struct { /* sums over the images of a range */
    float *first;          /* (9 C, O) */
    float *kernels[DEPTH]; /* (36, C, O), transformed */
    float *gain[DEPTH], *shift[DEPTH];
} Gradients;

static inline vec load(const float *at) { return *(const vec *)at; }
static inline void store(float *at, vec value) { *(vec *)at = value; }
/* far: past the cache, for what is read much later; `at` is then a multiple of 64 bytes */
static inline void keep(float *at, vec value, int far)
{
#ifdef __AVX512F__
    if (far) _mm512_stream_ps(at, (__m512)value);
    else store(at, value);
#else
    store(at, value);
#endif
}
static inline vec splat(float value) { return value - (vec){0}; }
/* value where key is positive, else 0 */
static inline vec where_positive(vec key, vec value) { return (vec)((key > 0) & (bits)value); }
static inline int least(int a, int b) { return a < b ? a : b; }
static inline long round_up(long floats) { return (floats + LANES - 1) / LANES * LANES; }
static inline long most(long a, long b) { return a > b ? a : b; }
/* of the first kernels for the gradient */
static inline int columns_of(int channels)
{
    return (9 * channels + 2 * LANES - 1) / (2 * LANES) * (2 * LANES);
}
static inline int panel_of(int outputs) { return outputs % (2 * LANES) ? LANES : 2 * LANES; }

/* floats that stay with the thread; NULL where there is no memory */
float *scratch(size_t floats);

/* (count, rows, columns) -> (count, columns, rows) */
void transpose(const float *from, int count, int rows, int columns, float *to);

/* convnet.c: one group's passes, from image `first` on; 1: no memory */
int group_forward(const Net *net, const float *images, int first, int group, float *embeddings,
                  const Kept *kept);
int group_backward(const Net *net, const float *images, int first, int group,
                   const float *by_embeddings, const Kept *kept, float *by_images,
                   const Gradients *sums);

/* amx.c: whether there are such products here, and one group's passes by them; 1: no memory */
int has_amx(void);
int amx_forward(const Net *net, const float *images, int first, int group, float *embeddings,
                const Kept *kept);
int amx_backward(const Net *net, int first, int group, const float *by_embeddings,
                 const Kept *kept, float *by_images);

#endif
