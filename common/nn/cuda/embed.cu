/* embed.cu - token and patch embedding.
 *
 * DESIGN: in the backward pass a table row gets the sum of its token's rows of dx. (token, row) pairs are sorted, so
 * that a token's rows are adjacent and in order; a block sums each run of PIECE sorted rows, and sums of tokens that
 * span several pieces are combined afterwards: otherwise tokens that every text has (its first and its last) would keep
 * one block busy for the whole batch. No atomics: the order of every sum follows from the ids. The sort is Batcher's
 * bitonic sort: keys are distinct, so the result is unique. */
#include "nn/cuda/store.cuh"

/* AHEAD: rows that a thread loads before it uses them. DEEP: warps that share a column of rows. */
enum {
    THREADS = 128,
    ROWS = 8,
    DEEP = 16,
    AHEAD = 4,
    PIECE = 64,
    SORT_THREADS = 512,
    SORT_BLOCK = 2 * SORT_THREADS
};

typedef unsigned long long key; /* token << 32 | row */

/* A warp per row. */
template <typename T, int V>
static __global__ void embed(T *x, const float *table, const float *pos, const int32_t *ids, const int32_t *offsets,
                             int64_t rows, int64_t n_seq, int64_t d)
{
    const int64_t r = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    if (r >= rows) return;
    const float *word = table + ids[r] * d, *place = pos + (r - offsets[sequence_of(offsets, n_seq, r)]) * d;
    for (int64_t j = threadIdx.x * V; j < d; j += WARP * V) {
        float a[V], b[V];
        load<V>(a, word + j);
        load<V>(b, place + j);
        for (int v = 0; v < V; v++) a[v] += b[v];
        store<V>(x + r * d + j, a);
    }
}

void mode__cuda_embed(cudaStream_t stream, bool bf16, void *x, const float *table, const float *pos,
                      const int32_t *ids, const int32_t *offsets, int64_t r, int64_t n_seq, int64_t d)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (T *)x, table, pos),
                           embed<T, V><<<blocks_of(r, ROWS), dim3(WARP, ROWS), 0, stream>>>((T *)x, table, pos, ids,
                                                                                            offsets, r, n_seq, d)));
}

static int64_t padded(int64_t rows)
{
    int64_t n = SORT_BLOCK;
    while (n < rows) n *= 2;
    return n;
}

size_t mode__cuda_sorted_bytes(int64_t rows)
{
    return (size_t)padded(rows) * sizeof(key);
}

size_t mode__cuda_embed_work(int64_t rows, int64_t d)
{
    return mode__cuda_sorted_bytes(rows) + 2 * (size_t)(ceil_div(rows, PIECE) * d) * sizeof(float);
}

static __global__ void make_keys(key *keys, const int32_t *ids, int64_t rows, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) keys[i] = i < rows ? (key)(uint32_t)ids[i] << 32 | (key)i : ~(key)0;
}

static __device__ inline void put_in_order(key *a, key *b, bool rising)
{
    key x = *a, y = *b;
    if ((x > y) != rising) return;
    *a = y;
    *b = x;
}

/* The steps of stages `from` to `to` that stay within SORT_BLOCK keys, one block each. Stage s produces sorted runs of
 * s. */
static __global__ void __launch_bounds__(SORT_THREADS) sort_within(key *keys, int64_t from, int64_t to)
{
    __shared__ key k[SORT_BLOCK];
    const int64_t at = (int64_t)blockIdx.x * SORT_BLOCK;
    const int t = threadIdx.x;
    for (int i = t; i < SORT_BLOCK; i += SORT_THREADS) k[i] = keys[at + i];
    __syncthreads();
    for (int64_t stage = from; stage <= to; stage *= 2)
        for (int step = (int)(stage / 2 < SORT_BLOCK / 2 ? stage / 2 : SORT_BLOCK / 2); step > 0; step /= 2) {
            int i = t / step * 2 * step + t % step;
            put_in_order(&k[i], &k[i + step], ((at + i) & stage) == 0);
            __syncthreads();
        }
    for (int i = t; i < SORT_BLOCK; i += SORT_THREADS) keys[at + i] = k[i];
}

static __global__ void __launch_bounds__(SORT_THREADS) sort_across(key *keys, int64_t stage, int64_t step)
{
    int64_t t = (int64_t)blockIdx.x * SORT_THREADS + threadIdx.x, i = t / step * 2 * step + t % step;
    put_in_order(&keys[i], &keys[i + step], (i & stage) == 0);
}

static void sort_keys(cudaStream_t stream, key *keys, int64_t n)
{
    unsigned blocks = blocks_of(n, SORT_BLOCK);
    sort_within<<<blocks, SORT_THREADS, 0, stream>>>(keys, 2, SORT_BLOCK);
    for (int64_t stage = 2 * SORT_BLOCK; stage <= n; stage *= 2) {
        for (int64_t step = stage / 2; step >= SORT_BLOCK; step /= 2)
            sort_across<<<blocks, SORT_THREADS, 0, stream>>>(keys, stage, step);
        sort_within<<<blocks, SORT_THREADS, 0, stream>>>(keys, stage, stage);
    }
}

void mode__cuda_sorted(cudaStream_t stream, void *keys, const int32_t *ids, int64_t rows)
{
    const int64_t n = padded(rows);
    make_keys<<<blocks_of(n, THREADS), THREADS, 0, stream>>>((key *)keys, ids, rows, n);
    sort_keys(stream, (key *)keys, n);
}

static __device__ inline int64_t token_at(const key *keys, int64_t i)
{
    return (int64_t)(keys[i] >> 32);
}

/* Block: PIECE sorted rows. Tokens whose rows are all in the piece are added to the table; sums of the others go to
 * head (begun in an earlier piece) or tail (begins here, continues in the next one), [pieces, d] each. */
template <typename T, int V>
static __global__ void table_pieces(float *dtable, float *head, float *tail, const T *dx, const key *keys, int64_t rows,
                                    int64_t d)
{
    const int64_t first = (int64_t)blockIdx.x * PIECE, end = first + PIECE < rows ? first + PIECE : rows;
    const int64_t before = first > 0 ? token_at(keys, first - 1) : -1, after = end < rows ? token_at(keys, end) : -1;
    for (int64_t j = threadIdx.x * V; j < d; j += THREADS * V) {
        float s[V];
        for (int v = 0; v < V; v++) s[v] = 0;
        for (int64_t i = first; i < end; i += AHEAD) {
            pack<T, V> row[AHEAD];
            pack<float, V> whole[AHEAD]; /* the table's row, where a token's rows end */
            int64_t token[AHEAD], next;
#pragma unroll
            for (int u = 0; u < AHEAD; u++) {
                token[u] = i + u < end ? token_at(keys, i + u) : -1;
                if (token[u] < 0) continue;
                row[u] = *(const pack<T, V> *)(dx + (int64_t)(uint32_t)keys[i + u] * d + j);
                next = i + u + 1 < end ? token_at(keys, i + u + 1) : -1;
                if (next == token[u]) {
                    token[u] = -1; /* it continues */
                    continue;
                }
                if (token[u] != before && token[u] != after)
                    whole[u] = *(const pack<float, V> *)(dtable + token[u] * d + j);
            }
#pragma unroll
            for (int u = 0; u < AHEAD; u++) {
                if (i + u >= end) continue;
                for (int v = 0; v < V; v++) s[v] += widen(row[u].x[v]);
                if (token[u] < 0) continue;
                if (token[u] == before) {
                    store<V>(head + blockIdx.x * d + j, s);
                } else if (token[u] == after) {
                    store<V>(tail + blockIdx.x * d + j, s);
                } else {
                    for (int v = 0; v < V; v++) s[v] += whole[u].x[v];
                    store<V>(dtable + token[u] * d + j, s);
                }
                for (int v = 0; v < V; v++) s[v] = 0;
            }
        }
    }
}

/* Block: the token that begins in a piece and continues in the next one, if any. */
static __global__ void table_joins(float *dtable, const float *head, const float *tail, const key *keys, int64_t rows,
                                   int64_t d)
{
    int64_t p = blockIdx.x, first = p * PIECE, end = first + PIECE;
    if (end >= rows) return;
    int64_t token = token_at(keys, end - 1);
    if (token_at(keys, end) != token) return;
    if (first > 0 && token_at(keys, first - 1) == token) return; /* begun earlier */
    int64_t last = p + 1, beyond = (rows + PIECE - 1) / PIECE; /* the last piece with the token, and one without */
    while (last + 1 < beyond) {
        const int64_t mid = (last + beyond) / 2;
        if (token_at(keys, mid * PIECE) == token)
            last = mid;
        else
            beyond = mid;
    }
    for (int64_t j = threadIdx.x; j < d; j += THREADS) {
        float s = tail[p * d + j];
        for (int64_t i = p + 1; i <= last; i++) s += head[i * d + j];
        dtable[token * d + j] += s;
    }
}

/* Reduces the warps' sums of 32 V columns from j on, in order, into s of the first warp, whose threads return true. */
template <int V> static __device__ inline bool add_up(float (&s)[V], int64_t j, int64_t d)
{
    __shared__ float sums[DEEP][V * WARP]; /* [V, lanes]: lanes are in different banks */
    for (int v = 0; v < V; v++) sums[threadIdx.y][v * WARP + threadIdx.x] = s[v];
    __syncthreads();
    if (threadIdx.y > 0 || j >= d) return false;
    for (int i = 1; i < DEEP; i++)
        for (int v = 0; v < V; v++) s[v] += sums[i][v * WARP + threadIdx.x];
    return true;
}

/* Block: 32 V columns of one position; DEEP sequences at a time. */
template <typename T, int V>
static __global__ void __launch_bounds__(WARP *DEEP)
    pos_back(float *dpos, const T *dx, const int32_t *offsets, int64_t n_seq, int64_t d)
{
    const int64_t place = blockIdx.y, j = ((int64_t)blockIdx.x * WARP + threadIdx.x) * V;
    float s[V];
    for (int v = 0; v < V; v++) s[v] = 0;
    for (int64_t b = threadIdx.y; b < n_seq && j < d; b += DEEP * AHEAD) {
        pack<T, V> row[AHEAD];
        bool here[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            const int64_t q = b + u * DEEP, r = q < n_seq ? offsets[q] + place : 0;
            here[u] = q < n_seq && r < offsets[q + 1];
            if (here[u]) row[u] = *(const pack<T, V> *)(dx + r * d + j);
        }
#pragma unroll
        for (int u = 0; u < AHEAD; u++)
            if (here[u])
                for (int v = 0; v < V; v++) s[v] += widen(row[u].x[v]);
    }
    if (!add_up<V>(s, j, d)) return;
    for (int v = 0; v < V; v++) dpos[place * d + j + v] += s[v];
}

void mode__cuda_embed_back(cudaStream_t stream, bool bf16, float *dtable, float *dpos, void *work, const void *dx,
                           const int32_t *ids, const int32_t *offsets, int64_t r, int64_t n_seq, int64_t n_pos,
                           int64_t d)
{
    int64_t n = padded(r), pieces = ceil_div(r, PIECE);
    key *keys = (key *)work;
    float *head = (float *)(keys + n), *tail = head + pieces * d;
    mode__cuda_sorted(stream, keys, ids, r);
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (const T *)dx, dtable, head),
                           table_pieces<T, V><<<(unsigned)pieces, THREADS, 0, stream>>>(dtable, head, tail,
                                                                                        (const T *)dx, keys, r, d)));
    table_joins<<<(unsigned)pieces, THREADS, 0, stream>>>(dtable, head, tail, keys, r, d);
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (const T *)dx),
                           pos_back<T, V><<<dim3(blocks_of(d, WARP * V), (unsigned)n_pos), dim3(WARP, DEEP), 0,
                                            stream>>>(dpos, (const T *)dx, offsets, n_seq, d)));
}

/* A warp per row of pixels, V of a patch at a time. */
template <typename T, int V>
static __global__ void patches(T *cols, const float *pixels, int64_t rows, int side, int p)
{
    const int64_t r = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    if (r >= rows) return;
    const int y = (int)(r % side), c = (int)(r / side % 3), g = side / p;
    const int64_t patch = (r / side / 3 * g + y / p) * g; /* the row's first patch */
    for (int x = (int)threadIdx.x * V; x < side; x += WARP * V) {
        float a[V];
        load<V>(a, pixels + r * side + x);
        store<V>(cols + ((patch + x / p) * 3 + c) * p * p + y % p * p + x % p, a);
    }
}

template <int V>
static void patches_by(cudaStream_t stream, bool bf16, void *cols, const float *pixels, int64_t rows, int side, int p)
{
    BY_TYPE(bf16, patches<T, V><<<blocks_of(rows, ROWS), dim3(WARP, ROWS), 0, stream>>>((T *)cols, pixels, rows, side,
                                                                                         p));
}

void mode__cuda_patches(cudaStream_t stream, bool bf16, void *cols, const float *pixels, int64_t n, int64_t side,
                        int64_t p)
{
    const bool aligned = wide_rows(0, 1, (const float *)cols, pixels);
    const auto by = aligned && p % 4 == 0 ? patches_by<4> : aligned && p % 2 == 0 ? patches_by<2> : patches_by<1>;
    by(stream, bf16, cols, pixels, 3 * n * side, (int)side, (int)p);
}

/* tokens: rows of an image; positions: of all patches and the class token. kept: which patches those rows are, or NULL:
 * all (nn/ops.h). */
template <typename T, int V>
static __global__ void image_tokens(T *x, const T *patch, const float *cls, const float *pos, const int32_t *kept,
                                    int64_t tokens, int64_t positions, int64_t d)
{
    int64_t r = blockIdx.x, b = r / tokens, t = r % tokens;
    const int64_t place = kept && t > 0 ? 1 + kept[b * (tokens - 1) + t - 1] % (positions - 1) : t;
    for (int64_t j = threadIdx.x * V; j < d; j += THREADS * V) {
        float a[V], q[V];
        if (t == 0)
            load<V>(a, cls + j);
        else
            load<V>(a, patch + (b * (tokens - 1) + t - 1) * d + j);
        load<V>(q, pos + place * d + j);
        for (int v = 0; v < V; v++) a[v] += q[v];
        store<V>(x + r * d + j, a);
    }
}

void mode__cuda_image_tokens(cudaStream_t stream, bool bf16, void *x, const void *patch, const float *cls,
                             const float *pos, const int32_t *kept, int64_t n, int64_t tokens, int64_t positions,
                             int64_t d)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (T *)x, (const T *)patch, cls, pos),
                           image_tokens<T, V><<<(unsigned)(n * tokens), THREADS, 0, stream>>>(
                               (T *)x, (const T *)patch, cls, pos, kept, tokens, positions, d)));
}

/* The row of image b that has this position, or -1: its patch is not kept. The kept ones of an image ascend. */
static __device__ inline int64_t row_at(const int32_t *kept, int64_t b, int64_t place, int64_t tokens,
                                        int64_t positions)
{
    if (!kept || place == 0) return place;
    const int64_t patch = b * (positions - 1) + place - 1, n = tokens - 1;
    const int32_t *row = kept + b * n;
    int64_t low = 0, high = n;
    while (low < high) {
        const int64_t mid = (low + high) / 2;
        if (row[mid] < patch)
            low = mid + 1;
        else
            high = mid;
    }
    return low < n && row[low] == patch ? 1 + low : -1;
}

/* Block: 32 V columns of one position; DEEP pictures at a time. */
template <typename T, int V>
static __global__ void __launch_bounds__(WARP *DEEP)
    image_tokens_back(T *dpatch, float *dcls, float *dpos, const T *dx, const int32_t *kept, int64_t n, int64_t tokens,
                      int64_t positions, int64_t d)
{
    const int64_t place = blockIdx.y, j = ((int64_t)blockIdx.x * WARP + threadIdx.x) * V;
    float s[V];
    for (int v = 0; v < V; v++) s[v] = 0;
    for (int64_t b = threadIdx.y; b < n && j < d; b += DEEP * AHEAD) {
        pack<T, V> row[AHEAD];
        int64_t t[AHEAD]; /* -1: none */
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            t[u] = b + u * DEEP < n ? row_at(kept, b + u * DEEP, place, tokens, positions) : -1;
            if (t[u] >= 0) row[u] = *(const pack<T, V> *)(dx + ((b + u * DEEP) * tokens + t[u]) * d + j);
        }
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            if (t[u] < 0) continue;
            for (int v = 0; v < V; v++) s[v] += widen(row[u].x[v]);
            if (t[u] > 0) *(pack<T, V> *)(dpatch + ((b + u * DEEP) * (tokens - 1) + t[u] - 1) * d + j) = row[u];
        }
    }
    if (!add_up<V>(s, j, d)) return;
    for (int v = 0; v < V; v++) {
        dpos[place * d + j + v] += s[v];
        if (place == 0) dcls[j + v] += s[v];
    }
}

void mode__cuda_image_tokens_back(cudaStream_t stream, bool bf16, void *dpatch, float *dcls, float *dpos,
                                  const void *dx, const int32_t *kept, int64_t n, int64_t tokens, int64_t positions,
                                  int64_t d)
{
    BY_TYPE(bf16, BY_WIDTH(wide_rows(d, sizeof(T), (T *)dpatch, (const T *)dx),
                           image_tokens_back<T, V><<<dim3(blocks_of(d, WARP * V), (unsigned)positions), dim3(WARP, DEEP),
                                                     0, stream>>>((T *)dpatch, dcls, dpos, (const T *)dx, kept, n, tokens,
                                                                  positions, d)));
}
