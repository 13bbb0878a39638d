/* The ConvNet of networks.py on a CPU: embeddings, and gradients by images and by weights.

   Group by group of images, so that activations stay in cache. Activations lie as (image, row,
   column, channel), a vector is 16 channels. Convolutions run by Winograd's F(4 x 4, 3 x 3) (Lavin
   and Gray 2016), with a quarter of the multiplications; the first block's gradients as they are
   written. Norm, ReLU and pooling follow a channel block while it is in the first cache. A
   convolution's bias is left out: instance norm takes it away again.

   Where Net.half is PAIRS the factors of Winograd's products are rounded to bf16, the sums stay
   single precision, and so does all else: for frozen weights, on processors that have such
   products. Where it is AMX, amx.c does all of it.

   An image's numbers depend on itself alone: not on the group, the range or the threads. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "convnet.h"

/* --- products ------------------------------------------------------------------------------ */

/* A factor lies in words of 32 bits: a float each, or two neighbouring terms in bf16. */
static int words(int terms, int half) { return half ? (terms + 1) / 2 : terms; }

/* sum + a b, and a vector's 16 terms, or the first four of them, as words */
#ifdef __AVX512BF16__
static vec add_product(vec sum, vec a, vec b, const int half)
{
    return half ? (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b) : sum + a * b;
}

static void store_words(float *to, vec value, const int half, const int few)
{
    const __m256i pairs = (__m256i)_mm512_cvtneps_pbh((__m512)value);
    if (half && few) _mm_storeu_si64(to, _mm256_castsi256_si128(pairs));
    else if (half) _mm256_storeu_si256((__m256i *)to, pairs);
    else if (few) *(four *)to = *(four *)&value;
    else store(to, value);
}

#else
static vec add_product(vec sum, vec a, vec b, const int half) { return sum + a * b; }

static void store_words(float *to, vec value, const int half, const int few)
{
    if (few) *(four *)to = *(four *)&value;
    else store(to, value);
}
#endif

int has_products(int half)
{
#ifdef __AVX512BF16__
    const int pairs = 1;
#else
    const int pairs = 0;
#endif
    return half == AMX ? has_amx() : half == PAIRS ? pairs : 1;
}

/* What products of bf16 are best of here: by pairs a network is faster than in single precision on
   AMD's processors, and slower on Intel's. */
int half_products(void)
{
    if (has_products(AMX)) return AMX;
#ifdef __x86_64__
    if (has_products(PAIRS) && __builtin_cpu_is("amd")) return PAIRS;
#endif
    return SINGLE;
}

typedef struct { /* rows of the left factor, in words: where one starts, and its terms in runs */
    const float *at;
    long row, run, term;
    int runs, terms;
} Left;

/* C (rows, vectors) (+)= left · right, for a fixed number of rows and vectors; in registers */
static inline __attribute__((always_inline)) void
tile_product(const int rows, const int vectors, const int half, Left left, const float *right,
             long right_row, float *out, long out_row, int add)
{
    vec sum[8][2];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            sum[i][j] = add ? load(out + i * out_row + j * LANES) : (vec){0};
    for (int run = 0; run < left.runs; run++) {
        const float *at = left.at + run * left.run;
        for (int term = 0; term < left.terms; term++, at += left.term, right += right_row) {
            vec b[2];
            for (int j = 0; j < vectors; j++) b[j] = load(right + j * LANES);
            for (int i = 0; i < rows; i++) {
                vec a = splat(at[i * left.row]);
                for (int j = 0; j < vectors; j++) sum[i][j] = add_product(sum[i][j], a, b[j], half);
            }
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) store(out + i * out_row + j * LANES, sum[i][j]);
}

#define PRODUCT(rows)                                                                              \
    do {                                                                                           \
        if (panel == LANES)                                                                        \
            half ? PART(rows, 1, 1) : PART(rows, 1, 0);                                            \
        else                                                                                       \
            half ? PART(rows, 2, 1) : PART(rows, 2, 0);                                            \
    } while (0)
#define PART(rows, vectors, half)                                                                  \
    tile_product(rows, vectors, half, left, right, right_row, out, out_row, add)

/* any number of rows by one panel of 16 or 32 columns */
static void product(int rows, int panel, int half, Left left, const float *right, long right_row,
                    float *out, long out_row, int add)
{
    for (int step; rows > 0; rows -= step, left.at += step * left.row, out += step * out_row) {
        step = rows >= 8 ? 8 : rows >= 4 ? 4 : 1;
        if (step == 8) PRODUCT(8);
        else if (step == 4) PRODUCT(4);
        else PRODUCT(1);
    }
}

/* --- Winograd's transforms: B', A' and A of F(4, 3) ------------------------------------------

   At the points 0, A, -A, 1 / A, -1 / A and infinity, A = 1 / sqrt(2): they lose half as much to
   rounding as 0, 1, -1, 2, -2 do (reciprocal points: Alam et al. 2022). */

static const float A = 0.70710678f, A_CUBED = 0.35355339f;

static inline void into_domain(const vec d[6], vec t[6])
{
    vec even = d[4] - 2 * d[2], odd = A * (d[3] - 2 * d[1]);
    vec even2 = d[4] - 0.5f * d[2], odd2 = 2 * A * (d[3] - 0.5f * d[1]);
    t[0] = d[0] - 2.5f * d[2] + d[4];
    t[1] = even + odd;
    t[2] = even - odd;
    t[3] = even2 + odd2;
    t[4] = even2 - odd2;
    t[5] = d[1] - 2.5f * d[3] + d[5];
}

static inline void out_of_domain(const vec m[6], vec y[4])
{
    vec sum12 = m[1] + m[2], less12 = m[1] - m[2], sum34 = m[3] + m[4], less34 = m[3] - m[4];
    y[0] = m[0] + sum12 + sum34;
    y[1] = A * (less12 + 2 * less34);
    y[2] = 0.5f * sum12 + 2 * sum34;
    y[3] = A_CUBED * (less12 + 8 * less34) + m[5];
}

static inline void adjoint(const vec y[4], vec m[6])
{
    vec even = y[0] + 0.5f * y[2], odd = A * y[1] + A_CUBED * y[3];
    vec even2 = y[0] + 2 * y[2], odd2 = 2 * A * y[1] + 8 * A_CUBED * y[3];
    m[0] = y[0];
    m[1] = even + odd;
    m[2] = even - odd;
    m[3] = even2 + odd2;
    m[4] = even2 - odd2;
    m[5] = y[3];
}

typedef struct { /* tiles of a group of images (36, count, words of the channels) */
    float *at;
    int count, channels, half;
    long row; /* words from tile to tile */
} Tiles;

/* few channels take four places, so that a vector of them may reach into what follows */
static int places(int channels) { return channels <= 4 ? 4 : (int)round_up(channels); }

/* words from one of the 36 to the next: were it a power of two, all would share a set of the cache */
static long plane_of(int count, long row) { return round_up(count * row) + LANES; }

static Tiles tiles_at(float *at, int count, int channels, int half)
{
    return (Tiles){at, count, channels, half, words(places(channels), half)};
}

/* image (side, side, places) -> tiles, from tile `first` on */
static inline __attribute__((always_inline)) void
image_into_tiles(const float *image, int side, Tiles tiles, int first, const int is_output,
                 const int half, const int few)
{
    const int size = is_output ? 4 : 6, border = is_output ? 0 : 1, across = (side + 3) / 4;
    const long plane = plane_of(tiles.count, tiles.row), pixel = places(tiles.channels);
    for (int tile = 0; tile < across * across; tile++) {
        const int top = tile / across * 4 - border, left = tile % across * 4 - border;
        for (int c = 0; c < tiles.channels; c += LANES) {
            vec patch[6][6], turned[6][6], line[6], out[6];
            for (int y = 0; y < size; y++)
                for (int x = 0; x < size; x++) {
                    int r = top + y, q = left + x;
                    int inside = r >= 0 && r < side && q >= 0 && q < side;
                    const float *at = image + ((long)r * side + q) * pixel + c;
                    patch[y][x] = inside ? load(at) : (vec){0};
                }
            for (int x = 0; x < size; x++) {
                for (int y = 0; y < size; y++) line[y] = patch[y][x];
                if (is_output) adjoint(line, out);
                else into_domain(line, out);
                for (int y = 0; y < 6; y++) turned[y][x] = out[y];
            }
            float *to = tiles.at + (first + tile) * tiles.row + words(c, half);
            for (int y = 0; y < 6; y++) {
                if (is_output) adjoint(turned[y], out);
                else into_domain(turned[y], out);
                for (int x = 0; x < 6; x++)
                    store_words(to + (y * 6 + x) * plane, out[x], half, few);
            }
        }
    }
}

static void tiles_of_image(const float *image, int side, Tiles tiles, int first)
{
    if (tiles.channels <= 4 && tiles.half) image_into_tiles(image, side, tiles, first, 0, 1, 1);
    else if (tiles.channels <= 4) image_into_tiles(image, side, tiles, first, 0, 0, 1);
    else if (tiles.half) image_into_tiles(image, side, tiles, first, 0, 1, 0);
    else image_into_tiles(image, side, tiles, first, 0, 0, 0);
}

/* the transform of an output's gradient, for the gradient by kernels */
static void tiles_of_gradient(const float *image, int side, Tiles tiles, int first)
{
    image_into_tiles(image, side, tiles, first, 1, 0, 0);
}

/* products (36, count, row) -> one channel block of an image, (side, side) pixels `pixel` apart */
static void image_of_products(const float *products, int side, long row, int first, int count,
                              float *image, long pixel)
{
    const int across = (side + 3) / 4;
    const long plane = plane_of(count, row);
    for (int tile = 0; tile < across * across; tile++) {
        const float *from = products + (first + tile) * row;
        vec turned[4][6], line[6], out[4];
        for (int x = 0; x < 6; x++) {
            for (int y = 0; y < 6; y++) line[y] = load(from + (y * 6 + x) * plane);
            out_of_domain(line, out);
            for (int y = 0; y < 4; y++) turned[y][x] = out[y];
        }
        const int top = tile / across * 4, left = tile % across * 4;
        for (int y = 0; y < least(4, side - top); y++) {
            out_of_domain(turned[y], out);
            for (int x = 0; x < least(4, side - left); x++)
                store(image + ((long)(top + y) * side + left + x) * pixel, out[x]);
        }
    }
}

/* one of the 36 products tiles · kernels (36, width / panel, words, panel) -> the panel of outputs
   from o on of products (36, count, row), or added to it */
static void multiply_plane(Tiles tiles, int f, const float *kernels, int width, int o,
                           float *products, long row, int add)
{
    const int panel = panel_of(width), terms = words(tiles.channels, tiles.half);
    Left left = {tiles.at + f * plane_of(tiles.count, tiles.row), tiles.row, 0, 1, 1, terms};
    const float *right = kernels + ((long)f * width + o) * terms;
    float *out = products + f * plane_of(tiles.count, row);
    product(tiles.count, panel, tiles.half, left, right, panel, out, row, add);
}

/* all 36 for one panel */
static void multiply_tiles(Tiles tiles, const float *kernels, int width, int o, float *products,
                           long row, int add)
{
    for (int f = 0; f < TILE; f++)
        multiply_plane(tiles, f, kernels, width, o, products, row, add);
}

/* the same for all panels, while a plane of the tiles is in the cache */
static void multiply_all(Tiles tiles, const float *kernels, int width, float *products, int add)
{
    for (int f = 0; f < TILE; f++)
        for (int o = 0; o < width; o += panel_of(width))
            multiply_plane(tiles, f, kernels, width, o, products + o, width, add);
}

/* --- norm, ReLU, 2 x 2 average pool, of one channel block ------------------------------------ */

/* 16 or 32 channels at once: one vector's sum waits for itself */
static inline __attribute__((always_inline)) void
norm_vectors(const int vectors, const float *z, int side, const float *gain, const float *shift,
             float *pooled, long width, float *normalised, float *scale, int far)
{
    const int count = side * side, pixel = vectors * LANES;
    vec mean[2], deviation[2], by[2], offset[2], sum[2] = {{0}}, squares[2] = {{0}};
    for (int p = 0; p < count; p++)
        for (int j = 0; j < vectors; j++) sum[j] += load(z + p * pixel + j * LANES);
    for (int j = 0; j < vectors; j++) mean[j] = sum[j] / (float)count;
    for (int p = 0; p < count; p++)
        for (int j = 0; j < vectors; j++) {
            vec d = load(z + p * pixel + j * LANES) - mean[j];
            squares[j] += d * d;
        }
    for (int j = 0; j < vectors; j++) {
        for (int i = 0; i < LANES; i++)
            deviation[j][i] = 1 / sqrtf(squares[j][i] / (float)count + EPSILON);
        by[j] = load(gain + j * LANES) * deviation[j];
        offset[j] = load(shift + j * LANES) - mean[j] * by[j];
        if (scale) store(scale + j * LANES, deviation[j]);
    }
    for (int y = 0; y < side; y += 2)
        for (int x = 0; x < side; x += 2)
            for (int j = 0; j < vectors; j++) {
                vec total = {0};
                for (int i = 0; i < 4; i++) {
                    const long at = (long)(y + i / 2) * side + x + i % 2;
                    vec value = load(z + at * pixel + j * LANES);
                    vec y_value = value * by[j] + offset[j];
                    total += where_positive(y_value, y_value);
                    if (normalised)
                        keep(normalised + ((long)j * count + at) * LANES,
                             (value - mean[j]) * deviation[j], far);
                }
                store(pooled + ((long)y / 2 * (side / 2) + x / 2) * width + j * LANES,
                      total * 0.25f);
            }
}

/* a panel's channels in z (side, side, panel) */
static void norm_relu_pool(const float *z, int panel, int side, const float *gain,
                           const float *shift, float *pooled, long width, float *normalised,
                           float *scale, int far)
{
    if (panel == LANES)
        norm_vectors(1, z, side, gain, shift, pooled, width, normalised, scale, far);
    else
        norm_vectors(2, z, side, gain, shift, pooled, width, normalised, scale, far);
}

/* gradient by the pooled values (side/2, side/2), `width` apart -> by the convolution's (side, side),
   same width */
static void pool_relu_norm_back(const float *gradient, const float *normalised, const float *scale,
                                const float *gain, const float *shift, int side, long width,
                                float *out, float *gain_sum, float *shift_sum)
{
    const float count = (float)(side * side);
    const vec g = load(gain), s = load(shift);
    vec sum = {0}, products = {0};
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            vec n = load(normalised + ((long)y * side + x) * LANES), y_value = n * g + s;
            vec d = load(gradient + ((long)y / 2 * (side / 2) + x / 2) * width) * 0.25f;
            d = where_positive(y_value, d);
            sum += d;
            products += d * n;
        }
    const vec by = g * load(scale), less = sum / count, tilt = products / count;
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            const long at = (long)y * side + x;
            vec n = load(normalised + at * LANES), y_value = n * g + s;
            vec d = load(gradient + ((long)y / 2 * (side / 2) + x / 2) * width) * 0.25f;
            d = where_positive(y_value, d);
            store(out + at * width, (d - less - n * tilt) * by);
        }
    if (gain_sum) {
        store(gain_sum, load(gain_sum) + products);
        store(shift_sum, load(shift_sum) + sum);
    }
}

/* --- the first block ------------------------------------------------------------------------- */

/* image (C, h, w) -> (side + 2 border, same, places) with zeros around */
static void pad_image(const Net *net, const float *image, int border, int places, float *padded)
{
    const int own = net->side - 2 * net->pad, row = net->side + 2 * border;
    border += net->pad;
    memset(padded, 0, sizeof(float) * row * row * places);
    for (int c = 0; c < net->channels; c++)
        for (int y = 0; y < own; y++)
            for (int x = 0; x < own; x++)
                padded[((y + border) * row + x + border) * places + c] =
                    image[(c * own + y) * own + x];
}

/* panel by panel, so that products stay in the second cache */
static void first_forward(const Net *net, const float *padded, Tiles tiles, float *products,
                          float *z, float *pooled, float *normalised, float *scale, int far)
{
    const int side = net->side, width = net->width, panel = panel_of(width);
    tiles_of_image(padded, side, tiles, 0);
    for (int o = 0; o < width; o += panel) {
        multiply_tiles(tiles, net->kernels[0], width, o, products, panel, 0);
        for (int c = 0; c < panel; c += LANES)
            image_of_products(products + c, side, panel, 0, tiles.count, z + c, panel);
        norm_relu_pool(z, panel, side, net->gain[0] + o, net->shift[0] + o, pooled + o, width,
                       normalised ? normalised + (long)o * side * side : NULL,
                       scale ? scale + o : NULL, far);
    }
}

/* gradient (side, side, O) -> image's (C, h, w), of the first block's kernels; with another
   gradient, of other kernels, added. terms (side, columns) and padded are scratch. */
static void first_back(const Net *net, const float *gradient, const Net *other_net,
                       const float *other, float *terms, float *padded, float *image)
{
    const int side = net->side, width = net->width, channels = net->channels;
    const int row = side + 2, run = 3 * channels;
    const int columns = columns_of(channels);
    memset(padded, 0, sizeof(float) * row * row * channels);
    for (int y = 0; y < side; y++) {
        const long line = (long)y * side * width;
        for (int o = 0; o < columns; o += 2 * LANES) {
            Left left = {gradient + line, width, 0, 1, 1, width};
            product(side, 2 * LANES, 0, left, net->first_back + o, columns, terms + o, columns, 0);
            if (!other) continue;
            left.at = other + line;
            product(side, 2 * LANES, 0, left, other_net->first_back + o, columns, terms + o, columns,
                    1);
        }
        for (int x = 0; x < side; x++)
            for (int k = 0; k < 3; k++)
                for (int i = 0; i < run; i++)
                    padded[((y + k) * row + x) * channels + i] += terms[x * columns + k * run + i];
    }
    const int own = side - 2 * net->pad, border = net->pad + 1;
    for (int c = 0; c < channels; c++)
        for (int y = 0; y < own; y++)
            for (int x = 0; x < own; x++)
                image[(c * own + y) * own + x] =
                    padded[((y + border) * row + x + border) * channels + c];
}

static void first_weights(const Net *net, const float *padded, const float *gradient, float *sums)
{
    const int side = net->side, width = net->width, channels = net->channels;
    const int panel = panel_of(width);
    const long row = (long)(side + 2) * channels;
    for (int k = 0; k < 3; k++)
        for (int o = 0; o < width; o += panel) {
            Left left = {padded + k * row, 1, row, channels, side, side};
            product(3 * channels, panel, 0, left, gradient + o, width,
                    sums + (long)k * 3 * channels * width + o, width, 1);
        }
}

/* --- the network ----------------------------------------------------------------------------- */

static _Thread_local float *scratch_at;
static _Thread_local size_t scratch_size;

/* floats that stay with the thread: fresh pages would cost more than the work */
float *scratch(size_t floats)
{
    if (floats > scratch_size) {
        free(scratch_at);
        scratch_at = aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64);
        scratch_size = scratch_at ? floats : 0;
    }
    return scratch_at;
}

static int tiles_across(int side) { return (side + 3) / 4 * ((side + 3) / 4); }

static float *part(float *const *kept, int block, long image, long size)
{
    return kept[block] ? kept[block] + image * size : NULL;
}

/* (count, rows, columns) -> (count, columns, rows): between embeddings and the last block */
void transpose(const float *from, int count, int rows, int columns, float *to)
{
    for (int n = 0; n < count; n++)
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++)
                to[((long)n * columns + c) * rows + r] = from[((long)n * rows + r) * columns + c];
}

/* words for the tiles or products of a group, or of the first block's image */
static long tiles_room(const Net *net)
{
    const int lanes = places(net->channels);
    return TILE * most(plane_of(GROUP * tiles_across(net->side / 2), net->width),
                       plane_of(tiles_across(net->side), most(lanes, 2 * LANES)));
}

/* one group's embeddings, from image `first` on */
int group_forward(const Net *net, const float *images, int first, int group, float *embeddings,
                  const Kept *kept)
{
    const int side = net->side, width = net->width, lanes = places(net->channels);
    const long padded_size = round_up((long)side * side * lanes + LANES);
    const int panel = panel_of(width);
    const long z_size = (long)side * side * panel, image_size = (long)side * side / 4 * width;
    const long tiles_size = tiles_room(net);
    float *padded = scratch(padded_size + z_size + 2 * GROUP * image_size + 2 * tiles_size);
    if (!padded) return 1;
    float *z = padded + padded_size, *here = z + z_size, *next = here + GROUP * image_size;
    float *tiles = next + GROUP * image_size, *products = tiles + tiles_size;
    const int own = side - 2 * net->pad;

    float *in = kept->pooled[0] ? kept->pooled[0] + first * image_size : here;
    for (int n = 0; n < group; n++) {
        pad_image(net, images + (long)(first + n) * net->channels * own * own, 0, lanes, padded);
        first_forward(net, padded, tiles_at(tiles, tiles_across(side), net->channels, net->half),
                      products, z, in + n * image_size,
                      part(kept->normalised, 0, first + n, image_size * 4),
                      part(kept->scale, 0, first + n, width), kept->far);
    }
    for (int block = 1; block < net->depth; block++) {
        const int now = side >> block, across = tiles_across(now), all = group * across;
        const long pixels = (long)now * now * width, less = pixels / 4;
        float *out = kept->pooled[block] ? kept->pooled[block] + first * less
                     : in == here       ? next
                                        : here;
        const Tiles here_tiles = tiles_at(tiles, all, width, net->half);
        for (int n = 0; n < group; n++) tiles_of_image(in + n * pixels, now, here_tiles, n * across);
        multiply_all(here_tiles, net->kernels[block], width, products, 0);
        for (int n = 0; n < group; n++) {
            float *normalised = part(kept->normalised, block, first + n, pixels);
            float *scale = part(kept->scale, block, first + n, width);
            for (int o = 0; o < width; o += panel) {
                for (int c = 0; c < panel; c += LANES)
                    image_of_products(products + o + c, now, width, n * across, all, z + c, panel);
                norm_relu_pool(z, panel, now, net->gain[block] + o, net->shift[block] + o,
                               out + n * less + o, width,
                               normalised ? normalised + (long)o * now * now : NULL,
                               scale ? scale + o : NULL, kept->far);
            }
        }
        in = out;
    }
    const int last = side >> net->depth;
    transpose(in, group, last * last, width, embeddings + (long)first * width * last * last);
    return 0;
}

/* embeddings (n, O h w) of images (n, C, h, w); keeps for backward what `kept` has room for.
   Returns 0, or 1 where there is no memory. */
int forward(const Net *net, const float *images, int count, float *embeddings, const Kept *kept,
            int threads)
{
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(| : failed)
    for (int first = 0; first < count; first += GROUP)
        failed |= (net->half == AMX ? amx_forward : group_forward)(
            net, images, first, least(GROUP, count - first), embeddings, kept);
    return failed;
}

/* one group's gradients from those by its embeddings, the weights' added to `sums` */
int group_backward(const Net *net, const float *images, int first, int group,
                   const float *by_embeddings, const Kept *kept, float *by_images,
                   const Gradients *sums)
{
    const int side = net->side, width = net->width, own = side - 2 * net->pad;
    const long padded_size = round_up((long)(side + 2) * (side + 2) * net->channels);
    const long z_size = (long)side * side * width, image_size = z_size / 4;
    const long columns = columns_of(net->channels);
    const long tiles_size = tiles_room(net);
    float *padded = scratch(padded_size + side * columns + z_size + 2 * GROUP * image_size +
                            3 * tiles_size);
    if (!padded) return 1;
    float *terms = padded + padded_size, *z = terms + side * columns, *here = z + z_size;
    float *next = here + GROUP * image_size, *tiles = next + GROUP * image_size;
    float *products = tiles + tiles_size, *outer = products + tiles_size;
    const int trains = sums->first != NULL;

    const int last = side >> net->depth;
    transpose(by_embeddings + (long)first * width * last * last, group, width, last * last, here);
    float *in = here, *out = next;
    for (int block = net->depth - 1; block >= 0; block--) {
        const int now = side >> block, across = tiles_across(now), all = group * across;
        const long size = (long)now * now * width;
        for (int n = 0; n < group; n++) {
            const float *normalised = kept->normalised[block] + (first + n) * size;
            for (int c = 0; c < width; c += LANES)
                pool_relu_norm_back(in + n * size / 4 + c, normalised + (long)c * now * now,
                                    kept->scale[block] + (long)(first + n) * width + c,
                                    net->gain[block] + c, net->shift[block] + c, now, width,
                                    z + c, trains ? sums->gain[block] + c : NULL,
                                    trains ? sums->shift[block] + c : NULL);
            const long image = (long)(first + n) * net->channels * own * own;
            if (block > 0) {
                tiles_of_image(z, now, tiles_at(tiles, all, width, net->half), n * across);
                if (trains) tiles_of_gradient(z, now, tiles_at(outer, all, width, 0), n * across);
                continue;
            }
            if (by_images) first_back(net, z, NULL, NULL, terms, padded, by_images + image);
            if (trains) {
                pad_image(net, images + image, 1, net->channels, padded);
                first_weights(net, padded, z, sums->first);
            }
        }
        if (block == 0) break;
        multiply_all(tiles_at(tiles, all, width, net->half), net->kernels_back[block], width,
                     products, 0);
        for (int n = 0; n < group; n++)
            for (int c = 0; c < width; c += LANES)
                image_of_products(products + c, now, width, n * across, all, out + n * size + c,
                                  width);
        if (trains) {
            const float *inputs = kept->pooled[block - 1] + first * size;
            const int panel = panel_of(width);
            for (int n = 0; n < group; n++)
                tiles_of_image(inputs + n * size, now, tiles_at(tiles, all, width, 0), n * across);
            for (int f = 0; f < TILE; f++)
                for (int o = 0; o < width; o += panel) {
                    Left left = {tiles + f * plane_of(all, width), 1, 0, width, 1, all};
                    product(width, panel, 0, left, outer + f * plane_of(all, width) + o, width,
                            sums->kernels[block] + (long)f * width * width + o, width, 1);
                }
        }
        float *swap = in;
        in = out;
        out = swap;
    }
    return 0;
}

/* gradients from those by embeddings: by images (NULL: not wanted), and by weights, added to the
   sums of each slice of `slice` images (sums[0].first NULL: not wanted; slice is then a group).
   Returns 0, or 1 where there is no memory. */
int backward(const Net *net, const float *images, int count, const float *by_embeddings,
             const Kept *kept, float *by_images, const Gradients *sums, int slice, int threads)
{
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(| : failed)
    for (int start = 0; start < count; start += slice)
        for (int first = start; first < least(start + slice, count); first += GROUP) {
            const int group = least(GROUP, least(start + slice, count) - first);
            const Gradients *own = sums[0].first ? sums + start / slice : sums;
            failed |= net->half == AMX ? amx_backward(net, first, group, by_embeddings, kept, by_images)
                                       : group_backward(net, images, first, group, by_embeddings,
                                                        kept, by_images, own);
        }
    return failed;
}

/* --- tangents: derivatives along a direction in the weights ---------------------------------- */

/* The tangent of a channel block's norm, ReLU and pooling. z is the convolution's tangent, n and
   scale the norm's, of which tangent_n and the logarithmic tangent of scale are made. */
static void tangent_norm_relu_pool(const float *z, int side, const float *n, long width,
                                   const float *scale, const float *gain, const float *shift,
                                   const float *tangent_gain, const float *tangent_shift,
                                   float *tangent_n, float *log_scale, float *pooled)
{
    const int count = side * side;
    const vec s = load(scale), g = load(gain), b = load(shift);
    const vec tg = load(tangent_gain), tb = load(tangent_shift);
    vec sum = {0}, products = {0};
    for (int p = 0; p < count; p++) {
        vec value = load(z + (long)p * LANES);
        sum += value;
        products += value * load(n + p * LANES);
    }
    const vec mean = sum / (float)count, tilt = products / (float)count;
    store(log_scale, -s * tilt);
    for (int y = 0; y < side; y += 2)
        for (int x = 0; x < side; x += 2) {
            vec total = {0};
            for (int i = 0; i < 4; i++) {
                const long at = (long)(y + i / 2) * side + x + i % 2;
                vec own = load(n + at * LANES);
                vec moved = s * (load(z + at * LANES) - mean - own * tilt);
                store(tangent_n + at * LANES, moved);
                total += where_positive(own * g + b, own * tg + moved * g + tb);
            }
            store(pooled + ((long)y / 2 * (side / 2) + x / 2) * width, total * 0.25f);
        }
}

/* Gradient by the pooled values and its tangent -> by the convolution's. */
static void tangent_pool_relu_norm_back(const float *gradient, const float *tangent, int side,
                                        const float *n, const float *tangent_n, long width,
                                        const float *scale, const float *log_scale,
                                        const float *gain, const float *shift,
                                        const float *tangent_gain, float *out, float *tangent_out)
{
    const float count = (float)(side * side);
    const vec g = load(gain), b = load(shift), tg = load(tangent_gain), s = load(scale);
    vec sum = {0}, products = {0}, tangent_sum = {0}, tangent_products = {0};
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            const long pixel = (long)y * side + x, at = pixel * width, own_at = pixel * LANES;
            const long from = ((long)y / 2 * (side / 2) + x / 2) * width;
            vec own = load(n + own_at), key = own * g + b;
            vec d = where_positive(key, load(gradient + from) * 0.25f);
            vec t = where_positive(key, load(tangent + from) * 0.25f) * g + d * tg;
            d *= g;
            sum += d;
            products += d * own;
            tangent_sum += t;
            tangent_products += t * own + d * load(tangent_n + own_at);
            store(out + at, d);
            store(tangent_out + at, t);
        }
    const vec less = sum / count, tilt = products / count, log_s = load(log_scale);
    const vec tangent_less = tangent_sum / count, tangent_tilt = tangent_products / count;
    for (long pixel = 0; pixel < side * side; pixel++) {
        const long at = pixel * width, own_at = pixel * LANES;
        vec own = load(n + own_at), d = load(out + at) - less - own * tilt;
        vec t = load(tangent_out + at) - tangent_less - load(tangent_n + own_at) * tilt;
        store(out + at, s * d);
        store(tangent_out + at, s * (t - own * tangent_tilt + log_s * d));
    }
}

/* One group's tangents, along `direction` in the weights: of the embeddings, and of the images'
   gradient from by_embeddings. `kept` is forward's; both nets are in single precision. */
static int group_tangents(const Net *net, const Net *direction, const float *images, int first,
                          int group, const float *by_embeddings, const Kept *kept,
                          float *embeddings, float *by_images)
{
    const int side = net->side, width = net->width, own = side - 2 * net->pad;
    const int lanes = places(net->channels), depth = net->depth;
    const long padded_size = round_up((long)(side + 2) * (side + 2) * lanes + LANES);
    const long z_size = (long)side * side * width, image_size = z_size / 4;
    const long columns = columns_of(net->channels);
    const long tiles_size = tiles_room(net);
    const long n_size = 4 * z_size / 3 + LANES; /* of all blocks */
    float *padded = scratch(padded_size + side * columns + 2 * z_size + 4 * GROUP * image_size +
                            4 * tiles_size + GROUP * (n_size + depth * width));
    if (!padded) return 1;
    float *terms = padded + padded_size, *z = terms + side * columns, *tangent_z = z + z_size;
    float *here = tangent_z + z_size, *next = here + GROUP * image_size;
    float *tangent_here = next + GROUP * image_size, *tangent_next = tangent_here + GROUP * image_size;
    float *tiles = tangent_next + GROUP * image_size, *tangent_tiles = tiles + tiles_size;
    float *products = tangent_tiles + tiles_size, *tangent_products = products + tiles_size;
    float *tangent_n = tangent_products + tiles_size, *log_scale = tangent_n + GROUP * n_size;
    float *n_of[DEPTH];
    for (int block = 0; block < depth; block++) {
        n_of[block] = tangent_n;
        tangent_n += GROUP * (z_size >> (2 * block));
    }

    for (int block = 0; block < depth; block++) {
        const int now = side >> block, across = tiles_across(now), panel = panel_of(width);
        const int all = block ? group * across : across;
        const long size = (long)now * now * width;
        for (int n = 0; block && n < group; n++) {
            tiles_of_image(kept->pooled[block - 1] + (first + n) * size, now,
                           tiles_at(tiles, all, width, 0), n * across);
            tiles_of_image(tangent_here + n * size, now, tiles_at(tangent_tiles, all, width, 0),
                           n * across);
        }
        if (block) {
            const Tiles moved = tiles_at(tangent_tiles, all, width, 0);
            multiply_all(tiles_at(tiles, all, width, 0), direction->kernels[block], width, products, 0);
            multiply_all(moved, net->kernels[block], width, products, 1);
        }
        for (int n = 0; n < group; n++) {
            const Tiles of_image = tiles_at(tiles, across, net->channels, 0);
            if (!block) {
                const float *image = images + (long)(first + n) * net->channels * own * own;
                pad_image(net, image, 0, lanes, padded);
                tiles_of_image(padded, side, of_image, 0);
            }
            for (int c = 0; c < width; c += LANES) {
                const int place = block ? c : c % panel, row = block ? width : panel;
                if (!block && !place)
                    multiply_tiles(of_image, direction->kernels[0], width, c, products, panel, 0);
                image_of_products(products + place, now, row, block ? n * across : 0, all, z, LANES);
                tangent_norm_relu_pool(
                    z, now, kept->normalised[block] + (first + n) * size + (long)c * now * now, width,
                    kept->scale[block] + (long)(first + n) * width + c, net->gain[block] + c,
                    net->shift[block] + c, direction->gain[block] + c, direction->shift[block] + c,
                    n_of[block] + n * size + (long)c * now * now,
                    log_scale + (block * GROUP + n) * width + c,
                    tangent_next + n * size / 4 + c);
            }
        }
        float *swap = tangent_here;
        tangent_here = tangent_next;
        tangent_next = swap;
    }

    const int last = side >> depth, pixels = last * last;
    const long start = (long)first * width * pixels;
    transpose(tangent_here, group, pixels, width, embeddings + start);
    transpose(by_embeddings + start, group, width, pixels, here);
    memset(tangent_here, 0, sizeof(float) * group * pixels * width);
    for (int block = depth - 1; block >= 0; block--) {
        const int now = side >> block, across = tiles_across(now), all = group * across;
        const long size = (long)now * now * width;
        const Tiles plain = tiles_at(tiles, all, width, 0);
        const Tiles moved = tiles_at(tangent_tiles, all, width, 0);
        for (int n = 0; n < group; n++) {
            for (int c = 0; c < width; c += LANES)
                tangent_pool_relu_norm_back(
                    here + n * size / 4 + c, tangent_here + n * size / 4 + c, now,
                    kept->normalised[block] + (first + n) * size + (long)c * now * now,
                    n_of[block] + n * size + (long)c * now * now,
                    width, kept->scale[block] + (long)(first + n) * width + c,
                    log_scale + (block * GROUP + n) * width + c, net->gain[block] + c,
                    net->shift[block] + c, direction->gain[block] + c, z + c, tangent_z + c);
            if (block) {
                tiles_of_image(z, now, plain, n * across);
                tiles_of_image(tangent_z, now, moved, n * across);
            } else
                first_back(direction, z, net, tangent_z, terms, padded,
                           by_images + (long)(first + n) * net->channels * own * own);
        }
        if (block == 0) break;
        multiply_all(plain, net->kernels_back[block], width, products, 0);
        multiply_all(plain, direction->kernels_back[block], width, tangent_products, 0);
        multiply_all(moved, net->kernels_back[block], width, tangent_products, 1);
        for (int n = 0; n < group; n++)
            for (int c = 0; c < width; c += LANES) {
                image_of_products(products + c, now, width, n * across, all, next + n * size + c,
                                  width);
                image_of_products(tangent_products + c, now, width, n * across, all,
                                  tangent_next + n * size + c, width);
            }
        float *swap = here, *tangent_swap = tangent_here;
        here = next;
        next = swap;
        tangent_here = tangent_next;
        tangent_next = tangent_swap;
    }
    return 0;
}

/* Derivatives along `direction` in the weights: of the embeddings, and of the images' gradient
   from by_embeddings. Returns 0, or 1 where there is no memory. */
int tangents(const Net *net, const Net *direction, const float *images, int count,
             const float *by_embeddings, const Kept *kept, float *embeddings, float *by_images,
             int threads)
{
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(| : failed)
    for (int first = 0; first < count; first += GROUP)
        failed |= group_tangents(net, direction, images, first, least(GROUP, count - first),
                                 by_embeddings, kept, embeddings, by_images);
    return failed;
}

/* --- order statistics ------------------------------------------------------------------------ */

/* 16 features' samples, padded to a power of two, by Batcher's odd-even mergesort, whose
   comparisons do not depend on the values */
static void sort_vectors(vec *v, int size)
{
    for (int p = 1; p < size; p *= 2)
        for (int k = p; k >= 1; k /= 2)
            for (int j = k % p; j + k < size; j += 2 * k)
                for (int i = j; i < least(j + k, size - k); i++) {
                    if (i / (2 * p) != (i + k) / (2 * p)) continue;
                    vec a = v[i], b = v[i + k];
                    bits swap = a > b;
                    v[i] = (vec)((swap & (bits)b) | (~swap & (bits)a));
                    v[i + k] = (vec)((swap & (bits)a) | (~swap & (bits)b));
                }
}

/* (groups, n, D) -> the same, each feature's n values in ascending order; D is a multiple of 16.
   Returns 0, or 1 where there is no memory. */
int sort_samples(const float *values, int groups, int count, long features, float *sorted,
                 int threads)
{
    int size = 1, failed = 0;
    while (size < count) size *= 2;
#pragma omp parallel for num_threads(threads) collapse(2) reduction(| : failed)
    for (int group = 0; group < groups; group++)
        for (long d = 0; d < features; d += LANES) {
            const long start = (long)group * count * features + d;
            vec *v = (vec *)scratch((long)size * LANES);
            failed |= v == NULL;
            if (!v) continue;
            for (int i = 0; i < size; i++)
                v[i] = i < count ? load(values + start + i * features) : splat(INFINITY);
            sort_vectors(v, size);
            for (int i = 0; i < count; i++) store(sorted + start + i * features, v[i]);
        }
    return failed;
}
