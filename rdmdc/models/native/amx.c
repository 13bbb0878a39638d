/* The passes of convnet.c for frozen weights, with factors of bf16 in the tiles of AMX: direct
   convolutions, whose sums are of single precision.

   A tile holds 16 rows of 64 bytes: of the left factor 16 pixels with 32 channels each, of the
   kernels 16 pairs of channels for 16 outputs, of the product 16 pixels with 16 outputs. What a
   convolution reads lies as (row, column, image, channel) with zeros around; where a row of an
   image has fewer than 16 pixels, so many images lie side by side that theirs are a multiple of 16.

   An image's numbers depend on itself alone: a row of a tile meets no other row. */

#include <stdint.h>
#include <string.h>

#include "convnet.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef uint16_t half; /* a bf16 */
enum { DEEP = 32, WORDS = 512 }; /* channels, and bf16, of a tile */

/* The kernel hands out the tiles' registers on request, to the whole process. */
int has_amx(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}

static void take_tiles(void)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shape.bytes[i] = 64;
        shape.rows[i] = 16;
    }
    _tile_loadconfig(&shape);
}

/* --- products ------------------------------------------------------------------------------ */

static int side_by_side(int side)
{
    int images = 1;
    while (side * images % 16) images *= 2;
    return images;
}

static long deep(int channels) { return (channels + DEEP - 1) / DEEP * DEEP; }

typedef struct { /* the left factor of a convolution: pixels of images side by side */
    half *at;
    int side, images;
    long channels; /* a multiple of 32 */
    int taps;      /* 9, with a border of zeros; 1: channels are those of all taps */
} Grid;

static Grid grid_at(half *at, int side, int channels)
{
    return (Grid){at, side, side_by_side(side), deep(channels), 9};
}

static long row_of(Grid grid) /* bf16 from row to row */
{
    return (long)(grid.side + (grid.taps > 1 ? 2 : 0)) * grid.images * grid.channels;
}

static long size_of(Grid grid) { return (grid.side + 2) * row_of(grid); }

static half *pixel_of(Grid grid, int image, int y, int x)
{
    const int border = grid.taps > 1;
    return grid.at + (y + border) * row_of(grid) +
           ((long)(x + border) * grid.images + image) * grid.channels;
}

/* 32 or 16 pixels by 32 or 16 outputs, over all taps and channels */
static inline __attribute__((always_inline)) void
tile_products(const int rows, const int panels, Grid grid, const half *left, const half *second,
              const half *kernels, long panel, float *out, long out_row)
{
    const long stride = grid.channels * sizeof(half), line = out_row * sizeof(float);
    const int across = grid.taps > 1 ? 3 : 1;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int y = 0; y < across; y++)
        for (int x = 0; x < across; x++) {
            const long tap = y * row_of(grid) + x * grid.images * grid.channels;
            for (long c = tap; c < tap + grid.channels; c += DEEP, kernels += WORDS) {
                _tile_loadd(4, left + c, stride);
                _tile_loadd(6, kernels, 64);
                _tile_dpbf16ps(0, 4, 6);
                if (panels > 1) {
                    _tile_loadd(7, kernels + panel, 64);
                    _tile_dpbf16ps(1, 4, 7);
                }
                if (rows > 1) {
                    _tile_loadd(5, second + c, stride);
                    _tile_dpbf16ps(2, 5, 6);
                    if (panels > 1) _tile_dpbf16ps(3, 5, 7);
                }
            }
        }
    _tile_stored(0, out, line);
    if (panels > 1) _tile_stored(1, out + LANES, line);
    if (rows > 1) _tile_stored(2, out + 16 * out_row, line);
    if (rows > 1 && panels > 1) _tile_stored(3, out + 16 * out_row + LANES, line);
}

/* grid · kernels (O / 16, taps, channels / 32, 16, 16, 2) -> 16 or 32 outputs from o on, of
   (row, column, image, out_row) */
static void convolve(Grid grid, const half *kernels, int o, int panels, float *out, long out_row)
{
    const int across = grid.side * grid.images / 16, all = across * grid.side;
    const long panel = grid.taps * grid.channels * LANES;
    kernels += o / LANES * panel;
    __asm__ volatile("" ::: "memory"); /* what the tiles load has been stored */
    for (int t = 0; t < all; t += 2, out += 32 * out_row) {
        const half *left[2];
        for (int i = 0; i < 2; i++)
            left[i] = grid.at + (t + i) / across * row_of(grid) +
                      (t + i) % across * 16 * grid.channels;
        const int rows = least(2, all - t);
        if (rows == 2 && panels == 2)
            tile_products(2, 2, grid, left[0], left[1], kernels, panel, out, out_row);
        else if (rows == 2)
            tile_products(2, 1, grid, left[0], left[1], kernels, panel, out, out_row);
        else if (panels == 2)
            tile_products(1, 2, grid, left[0], left[1], kernels, panel, out, out_row);
        else
            tile_products(1, 1, grid, left[0], left[1], kernels, panel, out, out_row);
    }
}

/* --- norm, ReLU, pool ------------------------------------------------------------------------ */

static inline void store_half(half *to, vec value)
{
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)value));
}

static inline vec load_half(const half *at)
{
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)at));
    return (vec)_mm512_slli_epi32(wide, 16);
}

static inline vec positive(vec value) { return (vec)_mm512_max_ps((__m512)value, _mm512_setzero_ps()); }

typedef struct { /* where the norm's results go: NULL, where they do not */
    half *pooled;  /* into the next grid, row and pixel apart */
    long row, pixel;
    float *last;      /* or the embedding (h/2, w/2, O) */
    half *normalised; /* (O / 16, h, w, 16) */
    float *scale;     /* (O) */
    long width;
    int far; /* as Kept.far */
} Results;

/* one image's 16 or 32 channels, its pixels `pixel` apart in z */
static inline __attribute__((always_inline)) void
norm_relu_pool(const int vectors, const float *z, long pixel, int side, const float *gain,
               const float *shift, Results to)
{
    const int count = side * side;
    vec mean[2], deviation[2], by[2], offset[2];
    for (int j = 0; j < vectors; j++) {
        const float *at = z + j * LANES;
        vec sum[4] = {{0}}, squares[4] = {{0}};
        for (int p = 0; p < count; p += 4)
            for (int i = 0; i < 4; i++) sum[i] += load(at + (p + i) * pixel);
        mean[j] = (sum[0] + sum[1] + (sum[2] + sum[3])) / (float)count;
        for (int p = 0; p < count; p += 4)
            for (int i = 0; i < 4; i++) {
                vec d = load(at + (p + i) * pixel) - mean[j];
                squares[i] += d * d;
            }
        vec variance = (squares[0] + squares[1] + (squares[2] + squares[3])) / (float)count;
        deviation[j] = 1 / (vec)_mm512_sqrt_ps((__m512)(variance + EPSILON));
        by[j] = load(gain + j * LANES) * deviation[j];
        offset[j] = load(shift + j * LANES) - mean[j] * by[j];
        if (to.scale) store(to.scale + j * LANES, deviation[j]);
    }
    for (int y = 0; y < side; y += 2)
        for (int x = 0; x < side; x += 2)
            for (int j = 0; j < vectors; j++) {
                vec total = {0};
                for (int i = 0; i < 2; i++) {
                    const long at = (long)(y + i) * side + x;
                    const vec left = load(z + at * pixel + j * LANES);
                    const vec right = load(z + (at + 1) * pixel + j * LANES);
                    total += positive(left * by[j] + offset[j]) +
                             positive(right * by[j] + offset[j]);
                    if (to.normalised) {
                        const vec n = (left - mean[j]) * deviation[j];
                        const vec next = (right - mean[j]) * deviation[j];
                        keep((float *)(to.normalised + (j * count + at) * LANES),
                             (vec)_mm512_cvtne2ps_pbh((__m512)next, (__m512)n), to.far);
                    }
                }
                if (to.pooled)
                    store_half(to.pooled + y / 2 * to.row + x / 2 * to.pixel + j * LANES,
                               total * 0.25f);
                else
                    store(to.last + ((long)y / 2 * (side / 2) + x / 2) * to.width + j * LANES,
                          total * 0.25f);
            }
}

/* gradient by the pooled values, `from` apart -> by the convolution's, into the image's grid:
   channels from c on */
static void pool_relu_norm_back(const float *gradient, long from, const half *normalised,
                                const float *scale, const float *gain, const float *shift, int side,
                                Grid grid, int image, int c)
{
    const float count = (float)(side * side);
    const vec g = load(gain + c), s = load(shift + c), by = g * load(scale + c);
    vec sum[4] = {{0}}, products[4] = {{0}};
    gradient += c;
    normalised += (long)c * side * side;
    for (int y = 0; y < side; y += 2)
        for (int x = 0; x < side; x += 2) {
            const vec d = load(gradient + ((long)y / 2 * (side / 2) + x / 2) * from) * 0.25f;
            for (int i = 0; i < 4; i++) {
                vec n = load_half(normalised + ((long)(y + i / 2) * side + x + i % 2) * LANES);
                vec own = where_positive(n * g + s, d);
                sum[i] += own;
                products[i] += own * n;
            }
        }
    const vec less = (sum[0] + sum[1] + (sum[2] + sum[3])) / count;
    const vec tilt = (products[0] + products[1] + (products[2] + products[3])) / count;
    for (int y = 0; y < side; y++) {
        half *to = pixel_of(grid, image, y, 0) + c;
        for (int x = 0; x < side; x++) {
            vec d = load(gradient + ((long)y / 2 * (side / 2) + x / 2) * from) * 0.25f;
            vec n = load_half(normalised + ((long)y * side + x) * LANES);
            vec own = where_positive(n * g + s, d);
            store_half(to + x * grid.images * grid.channels, (own - less - n * tilt) * by);
        }
    }
}

/* --- the network ----------------------------------------------------------------------------- */

/* image (C, h, w) -> bf16 (side + 2, side + 2, C); what is around the image in padded stays */
static void pad_image(const Net *net, const float *image, half *padded)
{
    const int channels = net->channels, own = net->side - 2 * net->pad, border = net->pad + 1;
    const int row = (net->side + 2) * channels;
    for (int c = 0; c < channels; c++)
        for (int y = 0; y < own; y++)
            for (int x = 0; x < own; x += LANES) {
                const int few = least(LANES, own - x);
                const __m512 values = _mm512_maskz_loadu_ps(0xffff >> (LANES - few),
                                                            image + (c * own + y) * own + x);
                half line[LANES];
                store_half(line, (vec)values);
                half *to = padded + (y + border) * row + (x + border) * channels + c;
                for (int i = 0; i < few; i++) to[i * channels] = line[i];
            }
}

/* padded (side + 2, side + 2, C) -> what each pixel's convolution reads, three runs of 3 C and
   zeros, `apart` from pixel to pixel. Reads up to 64 bytes more than padded. */
static void neighbourhoods(const Net *net, const half *padded, half *to, long apart)
{
    const int row = (net->side + 2) * net->channels, run = 3 * net->channels;
    uint16_t second[DEEP], third[DEEP]; /* whence the terms of two runs, and of the third, come */
    for (int i = 0; i < DEEP; i++) {
        second[i] = i < run ? i : DEEP + i - run;
        third[i] = i < 2 * run ? i : DEEP + i - 2 * run;
    }
    const __m512i two = _mm512_loadu_si512(second), three = _mm512_loadu_si512(third);
    const __mmask32 all = 0xffffffffu >> (DEEP - least(DEEP, 3 * run));
    for (int y = 0; y < net->side; y++)
        for (int x = 0; x < net->side; x++, to += apart) {
            const half *from = padded + y * row + x * net->channels;
            if (3 * run > DEEP) {
                for (int k = 0; k < 3; k++) memcpy(to + k * run, from + k * row, run * sizeof(half));
                continue;
            }
            const __m512i top = _mm512_loadu_si512(from), middle = _mm512_loadu_si512(from + row);
            const __m512i bottom = _mm512_loadu_si512(from + 2 * row);
            const __m512i runs = _mm512_permutex2var_epi16(top, two, middle);
            _mm512_storeu_si512(to, _mm512_maskz_permutex2var_epi16(all, runs, three, bottom));
        }
}

static int panels_of(int width, int o) { return least(2, (width - o) / LANES); }

/* bf16 of the grids of a group */
static long room(Grid grid) { return GROUP / grid.images * size_of(grid); }

/* pixels of images side by side, the most of any block */
static long most_pixels(const Net *net)
{
    long pixels = 0;
    for (int block = 0; block < net->depth; block++) {
        const int now = net->side >> block;
        pixels = most(pixels, (long)now * now * side_by_side(now));
    }
    return pixels;
}

int amx_forward(const Net *net, const float *images, int first, int group, float *embeddings,
                const Kept *kept)
{
    const int side = net->side, width = net->width, own = side - 2 * net->pad;
    const int last = side >> net->depth, depth = net->depth;
    const long columns = deep(9 * net->channels);
    const long padded_size = (long)(side + 2) * (side + 2) * net->channels + DEEP;
    const long z_size = most_pixels(net) * 2 * LANES;
    const long end_size = round_up((long)GROUP * last * last * width);
    const long near_size = (long)side * side * side_by_side(side) * columns;
    long grid_size = 0;
    for (int block = 1; block < depth; block++)
        grid_size = most(grid_size, room(grid_at(NULL, side >> block, width)));
    float *z = scratch(z_size + end_size + (near_size + 2 * grid_size + padded_size + 1) / 2);
    if (!z) return 1;
    float *end = z + z_size;
    half *near = (half *)(end + end_size), *in = near + near_size, *next = in + grid_size;
    half *padded = next + grid_size;
    memset(padded, 0, padded_size * sizeof(half));
    memset(near, 0, near_size * sizeof(half));
    take_tiles();
    for (int block = 0; block < depth; block++) {
        const int now = side >> block, is_last = block + 1 == depth;
        Grid here = block ? grid_at(in, now, width)
                          : (Grid){near, side, side_by_side(side), columns, 1};
        const Grid there = grid_at(next, now / 2, width);
        if (!is_last) memset(next, 0, room(there) * sizeof(half));
        for (int n = 0; n < group; n += here.images) {
            const int count = least(here.images, group - n);
            for (int i = 0; !block && i < count; i++) {
                pad_image(net, images + (long)(first + n + i) * net->channels * own * own, padded);
                neighbourhoods(net, padded, near + i * columns, here.images * columns);
            }
            for (int o = 0; o < width; o += 2 * LANES) {
                const int panels = panels_of(width, o);
                convolve(here, (const half *)net->kernels[block], o, panels, z, 2 * LANES);
                for (int image = n; image < n + count; image++) {
                    Results to = {.width = width, .far = kept->far};
                    if (is_last) to.last = end + (long)image * last * last * width + o;
                    else {
                        Grid pooled = there;
                        pooled.at += image / there.images * size_of(there);
                        to.pooled = pixel_of(pooled, image % there.images, 0, 0) + o;
                        to.row = row_of(there);
                        to.pixel = there.images * there.channels;
                    }
                    if (kept->normalised[block]) {
                        to.normalised = (half *)kept->normalised[block] +
                                        ((long)(first + image) * width + o) * now * now;
                        to.scale = kept->scale[block] + (long)(first + image) * width + o;
                    }
                    const float *at = z + (image - n) * 2 * LANES;
                    const long pixel = here.images * 2 * LANES;
                    const float *gain = net->gain[block] + o, *shift = net->shift[block] + o;
                    if (panels == 2) norm_relu_pool(2, at, pixel, now, gain, shift, to);
                    else norm_relu_pool(1, at, pixel, now, gain, shift, to);
                }
            }
            if (block) here.at += size_of(here);
        }
        half *swap = in;
        in = next;
        next = swap;
    }
    _tile_release();
    transpose(end, group, last * last, width, embeddings + (long)first * width * last * last);
    return 0;
}

int amx_backward(const Net *net, int first, int group, const float *by_embeddings,
                 const Kept *kept, float *by_images)
{
    const int side = net->side, width = net->width, own = side - 2 * net->pad;
    const int last = side >> net->depth, channels = net->channels;
    const long outputs = round_up(channels);
    const long by_pooled = (long)GROUP * side * side / 4 * width;
    const long image_size = (long)side * side * side_by_side(side) * outputs;
    long grid_size = 0;
    for (int block = 0; block < net->depth; block++)
        grid_size = most(grid_size, size_of(grid_at(NULL, side >> block, width)));
    float *in = scratch(2 * by_pooled + image_size + grid_size / 2);
    if (!in) return 1;
    float *out = in + by_pooled, *image = out + by_pooled;
    half *grid = (half *)(image + image_size);
    transpose(by_embeddings + (long)first * width * last * last, group, width, last * last, in);
    take_tiles();
    int before = 1; /* images side by side in `in` */
    for (int block = net->depth - 1; block >= 0; block--) {
        const int now = side >> block;
        const long pixels = (long)now * now;
        const Grid here = grid_at(grid, now, width);
        memset(grid, 0, size_of(here) * sizeof(half));
        for (int n = 0; n < group; n += here.images) {
            const int count = least(here.images, group - n);
            for (int i = 0; i < count; i++) {
                const float *gradient = in + (n + i) / before * (before * pixels / 4 * width) +
                                        (n + i) % before * width;
                const half *normalised =
                    (half *)kept->normalised[block] + (first + n + i) * pixels * width;
                const float *scale = kept->scale[block] + (long)(first + n + i) * width;
                for (int c = 0; c < width; c += LANES)
                    pool_relu_norm_back(gradient, before * width, normalised, scale,
                                        net->gain[block], net->shift[block], now, here, i, c);
            }
            const half *kernels = (const half *)net->kernels_back[block];
            for (int o = 0; block && o < width; o += 2 * LANES)
                convolve(here, kernels, o, panels_of(width, o), out + n * pixels * width + o, width);
            if (block) continue;
            for (int o = 0; o < outputs; o += LANES) convolve(here, kernels, o, 1, image + o, outputs);
            for (int i = 0; i < count; i++)
                for (int c = 0; c < channels; c++)
                    for (int y = 0; y < own; y++)
                        for (int x = 0; x < own; x++) {
                            const long at = (long)(y + net->pad) * side + x + net->pad;
                            by_images[(((long)(first + n + i) * channels + c) * own + y) * own + x] =
                                image[(at * here.images + i) * outputs + c];
                        }
        }
        before = here.images;
        float *swap = in;
        in = out;
        out = swap;
    }
    _tile_release();
    return 0;
}

#else

int has_amx(void) { return 0; }
int amx_forward(const Net *net, const float *images, int first, int group, float *embeddings,
                const Kept *kept)
{
    return 1;
}
int amx_backward(const Net *net, int first, int group, const float *by_embeddings,
                 const Kept *kept, float *by_images)
{
    return 1;
}

#endif
