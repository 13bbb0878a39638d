/* The loss of a ConvNet that classifies, and its gradient by all weights, for training.

   Each group of images goes forwards, through the last layer and the loss, and backwards at once:
   what its forward pass keeps is read again from the cache. A group's softmax and its share of the
   mean need no other group. The sums' order is fixed by the slices, whatever the threads. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "convnet.h"

typedef struct { /* the last layer, linear on D features */
    int classes, features;
    const float *matrix, *bias; /* (classes, D), (classes) */
} Head;

typedef struct { /* sums over the images of a slice */
    Gradients blocks;
    float *matrix, *bias, *loss; /* (classes, D), (classes), (1) */
} Learned;

static float total(vec value)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += value[i];
    return sum;
}

/* cross-entropy of one embedding times `weight`; its gradient by the embedding, others added to sums;
   `scores` (classes) is scratch */
static void head_step(const Head *head, const float *embedding, int64_t label, float weight,
                      float *scores, float *by_embedding, const Learned *sums)
{
    const int features = head->features;
    float largest = -INFINITY, over = 0;
    for (int k = 0; k < head->classes; k++) {
        vec sum = {0};
        for (int d = 0; d < features; d += LANES)
            sum += load(embedding + d) * load(head->matrix + (long)k * features + d);
        scores[k] = total(sum) + head->bias[k];
        largest = fmaxf(largest, scores[k]);
    }
    for (int k = 0; k < head->classes; k++) over += expf(scores[k] - largest);
    *sums->loss += weight * (largest + logf(over) - scores[label]);
    memset(by_embedding, 0, sizeof(float) * features);
    for (int k = 0; k < head->classes; k++) {
        const float by_score = weight * (expf(scores[k] - largest) / over - (k == label));
        float *row = sums->matrix + (long)k * features;
        for (int d = 0; d < features; d += LANES) {
            const vec w = load(head->matrix + (long)k * features + d);
            store(by_embedding + d, load(by_embedding + d) + by_score * w);
            store(row + d, load(row + d) + by_score * load(embedding + d));
        }
        sums->bias[k] += by_score;
    }
}

static _Thread_local float *room_at;
static _Thread_local size_t room_size;

/* floats that stay with the thread, beside those of `scratch`, which the passes use themselves */
static float *room(size_t floats)
{
    if (floats > room_size) {
        free(room_at);
        room_at = aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64);
        room_size = room_at ? floats : 0;
    }
    return room_at;
}

static int group_learn(const Net *net, const Head *head, const float *images,
                       const int64_t *labels, int group, float weight, const Learned *sums)
{
    const long pixels = (long)net->side * net->side * net->width;
    const long features = head->features, classes = round_up(head->classes);
    const size_t kept_size = GROUP * (2 * pixels + (long)net->depth * net->width);
    float *at = room(kept_size + 2 * GROUP * features + classes);
    if (!at) return 1;
    Kept kept = {0};
    for (int block = 0; block < net->depth; block++) {
        const long own = pixels >> (2 * block);
        kept.normalised[block] = at;
        kept.pooled[block] = at + GROUP * own;
        kept.scale[block] = at + GROUP * own + GROUP * own / 4;
        at = kept.scale[block] + GROUP * net->width;
    }
    float *embeddings = at, *by_embeddings = at + GROUP * features;
    float *scores = by_embeddings + GROUP * features;
    if (group_forward(net, images, 0, group, embeddings, &kept)) return 1;
    for (int n = 0; n < group; n++)
        head_step(head, embeddings + n * features, labels[n], weight, scores,
                  by_embeddings + n * features, sums);
    return group_backward(net, images, 0, group, by_embeddings, &kept, NULL, &sums->blocks);
}

/* mean cross-entropy of images (n, C, h, w) with labels (n), and its gradients by the weights: added
   to the sums of each slice of `slice` images. Returns 0, or 1 where there is no memory. */
int learn(const Net *net, const Head *head, const float *images, const int64_t *labels, int count,
          const Learned *sums, int slice, int threads)
{
    const int own = net->side - 2 * net->pad, size = net->channels * own * own;
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(| : failed)
    for (int start = 0; start < count; start += slice)
        for (int first = start; first < least(start + slice, count); first += GROUP)
            failed |= group_learn(net, head, images + (long)first * size, labels + first,
                                  least(GROUP, least(start + slice, count) - first), 1.0f / count,
                                  sums + start / slice);
    return failed;
}
