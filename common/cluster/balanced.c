#include "cluster/balanced.h"

#include "base/parallel.h"
#include "cluster/cheapest.h"
#include "tensor/tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    COST_ROWS = 8192, /* whose costs are made at a time, to begin with          */
    AHEAD_ROWS = 256, /* the same later, of rows that look beyond their lists   */
    AHEAD_LEAST = 8,  /* fewer may be measured in another way, to other bits    */
    AHEAD_LOOK = 2048 /* of those without a place, to find them                 */
};

struct bid {
    double level;
    int32_t who; /* row, or n + i for the i-th imaginary row */
};

struct auction {
    const struct mode_cost *cost;
    int64_t n, imaginary;
    int k, n_cand;
    int64_t cap;                  /* places per centre: ceil(n / k) */
    struct mode__candidate *cand; /* [n, n_cand] */
    float *limit;                 /* [n] no centre outside the list was below this when the list was made */
    struct bid *heap;             /* [k, cap] min-heaps by (level, who) */
    int64_t *size;                /* [k] */
    double *price;                /* [k] what a row must beat: the lowest bid once all places are taken */
    double *seat;                 /* [k] what an imaginary row must beat; each centre holds at most one */
    int32_t *tree;                /* [2 * leaves] tournament over seat[]; leaf leaves + k is centre k; -1 = nobody */
    int leaves;                   /* a power of two >= k */
    unsigned char *held;          /* [k] an imaginary row sits here */
    int32_t *queue;               /* [n + imaginary] ring of those without a place */
    float *scratch;               /* [COST_ROWS, k], costs of the rows measured last; NULL when all is kept */
    int32_t *slot, *holder;       /* [n] where there, or -1; [COST_ROWS] whose, or -1 */
    int64_t next_slot;
    float *rows; /* [AHEAD_ROWS, d] */
    float *all;  /* [n, k] costs, or NULL */
    char *room;  /* of each thread's choice of candidates */
    double eps;
    int64_t bids, refreshed;
};

/* The n_cand cheapest centres of one row at current prices. */
static void pick(struct auction *a, int64_t row, const float *cost, int thread)
{
    double dearest = mode__cheapest(a->cand + row * a->n_cand, a->n_cand, cost, a->price, a->k,
                                    a->room + (size_t)thread * mode__cheapest_room(a->k));
    /* rounded down, so that comparing in float stays on the safe side */
    a->limit[row] = a->n_cand == a->k ? INFINITY : nextafterf((float)dearest, -INFINITY);
}

struct picking {
    struct auction *a;
    const float *cost; /* [rows, k] */
    int64_t first, rows;
};

static void pick_item(void *ctx, int64_t item, int thread)
{
    const struct picking *p = ctx;
    int64_t end = (item + 1) * MODE_ROWS_BLOCK < p->rows ? (item + 1) * MODE_ROWS_BLOCK : p->rows;
    for (int64_t i = item * MODE_ROWS_BLOCK; i < end; i++) pick(p->a, p->first + i, p->cost + i * p->a->k, thread);
}

static void pick_all(struct auction *a)
{
    for (int64_t first = 0; first < a->n; first += COST_ROWS) {
        float *cost = a->all ? a->all + first * a->k : a->scratch;
        struct picking p = {a, cost, first, a->n - first < COST_ROWS ? a->n - first : COST_ROWS};
        mode_cost_rows(a->cost, cost, first, p.rows);
        mode_parallel_for((p.rows + MODE_ROWS_BLOCK - 1) / MODE_ROWS_BLOCK, pick_item, &p);
    }
}

static bool below(struct bid a, struct bid b)
{
    return a.level < b.level || (a.level == b.level && a.who < b.who);
}

static void sift_down(struct bid *h, int64_t size, int64_t at)
{
    for (;;) {
        int64_t least = at, l = 2 * at + 1;
        if (l < size && below(h[l], h[least])) least = l;
        if (l + 1 < size && below(h[l + 1], h[least])) least = l + 1;
        if (least == at) return;
        struct bid t = h[at];
        h[at] = h[least];
        h[least] = t;
        at = least;
    }
}

static void sift_up(struct bid *h, int64_t at)
{
    while (at > 0 && below(h[at], h[(at - 1) / 2])) {
        struct bid t = h[at];
        h[at] = h[(at - 1) / 2];
        h[(at - 1) / 2] = t;
        at = (at - 1) / 2;
    }
}

/* The tournament over seats: every node holds the centre of its half whose seat is cheaper, ties to the lower
 * id. */
static int32_t winner(const struct auction *a, int32_t left, int32_t right)
{
    if (right < 0) return left;
    return left >= 0 && a->seat[left] <= a->seat[right] ? left : right;
}

static void seat_changed(struct auction *a, int k)
{
    for (int at = (a->leaves + k) / 2; at >= 1; at /= 2) a->tree[at] = winner(a, a->tree[2 * at], a->tree[2 * at + 1]);
}

/* Cheapest seat, its price, and the next cheapest price. */
static int best_of_seats(const struct auction *a, double *best, double *next)
{
    int k = a->tree[1];
    *best = a->seat[k];
    for (int at = a->leaves + k; at > 1; at /= 2) { /* the runner-up lost to k somewhere on k's way up */
        int32_t rival = a->tree[at ^ 1];
        if (rival >= 0 && a->seat[rival] < *next) *next = a->seat[rival];
    }
    return k;
}

/* Put a bid into centre k; returns who lost the place, or -1. */
static int32_t place(struct auction *a, int k, struct bid b)
{
    struct bid *h = a->heap + k * a->cap;
    bool imaginary = b.who >= a->n;
    int32_t loser = -1;
    if (imaginary && a->held[k]) { /* takes the one seat from its holder */
        int64_t at = 0;
        while (h[at].who < a->n) at++;
        loser = h[at].who;
        h[at] = b;
        sift_down(h, a->size[k], at);
    } else if (a->size[k] < a->cap) {
        h[a->size[k]] = b;
        sift_up(h, a->size[k]++);
    } else {
        loser = h[0].who;
        if (loser >= a->n) a->held[k] = 0;
        h[0] = b;
        sift_down(h, a->size[k], 0);
    }
    if (imaginary) {
        a->held[k] = 1;
        a->seat[k] = b.level;
    }
    if (a->size[k] == a->cap) a->price[k] = h[0].level;
    if (!a->held[k]) a->seat[k] = a->price[k];
    if (a->imaginary) seat_changed(a, k);
    return loser;
}

/* Best centre of a row, its value, and the next best value. */
static int best_of_row(const struct auction *a, int64_t row, double *best, double *next)
{
    const struct mode__candidate *c = a->cand + row * a->n_cand;
    int who = -1;
    *best = *next = INFINITY;
    for (int i = 0; i < a->n_cand; i++) {
        double v = c[i].cost + a->price[c[i].id];
        if (v < *best || (v == *best && c[i].id < who)) {
            *next = *best;
            *best = v;
            who = c[i].id;
        } else if (v < *next) {
            *next = v;
        }
    }
    return who;
}

/* Costs of the rows in list [AHEAD_ROWS], into the next slots. */
static void measure(struct auction *a, int32_t *list, int64_t n)
{
    const int64_t d = a->cost->d;
    while (n < AHEAD_LEAST) list[n++] = list[0];
    if (a->next_slot + n > COST_ROWS) a->next_slot = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t slot = a->next_slot + i;
        memcpy(a->rows + i * d, (a->cost->host ? a->cost->host : a->cost->x) + list[i] * d,
               (size_t)d * sizeof *a->rows);
        if (a->holder[slot] >= 0) a->slot[a->holder[slot]] = -1;
        a->holder[slot] = list[i];
    }
    for (int64_t i = 0; i < n; i++) a->slot[list[i]] = (int32_t)(a->next_slot + i);
    const struct mode_cost some = {a->cost->be, a->cost->metric, a->rows, a->cost->c, n, a->k, a->cost->d, NULL};
    mode_cost_rows(&some, a->scratch + a->next_slot * a->k, 0, n);
    a->next_slot += n;
}

/* Costs of the row at the head of the queue. Where they are not kept, those of rows behind it that will soon look
 * beyond their lists, too, are made in the same product: prices only rise. */
static const float *costs_of_head(struct auction *a, int64_t head, int64_t left)
{
    const int32_t who = a->queue[head];
    const int64_t all = a->n + a->imaginary;
    int32_t list[AHEAD_ROWS] = {who};
    int64_t n = 1;
    if (a->all) return a->all + (int64_t)who * a->k;
    for (int64_t i = 1; a->slot[who] < 0 && i < left && i < AHEAD_LOOK && n < AHEAD_ROWS; i++) {
        const int32_t row = a->queue[head + i >= all ? head + i - all : head + i];
        double best, next;
        if (row >= a->n || a->slot[row] >= 0) continue;
        best_of_row(a, row, &best, &next);
        if (next + 4 * a->eps > a->limit[row]) list[n++] = row;
    }
    if (a->slot[who] < 0) measure(a, list, n);
    return a->scratch + (int64_t)a->slot[who] * a->k;
}

/* Of the one at the head of the queue, of `left`. */
static int32_t bid_once(struct auction *a, int64_t head, int64_t left)
{
    const int32_t who = a->queue[head];
    double best = INFINITY, next = INFINITY;
    int k = -1;
    a->bids++;
    if (who < a->n) {
        k = best_of_row(a, who, &best, &next);
        if (next > a->limit[who]) { /* a centre outside the list might be better by now */
            pick(a, who, costs_of_head(a, head, left), 0);
            a->refreshed++;
            k = best_of_row(a, who, &best, &next);
        }
    } else {
        k = best_of_seats(a, &best, &next);
    }
    double now = who < a->n ? a->price[k] : a->seat[k];
    double rise = isfinite(next) ? next - best : 0; /* k = 1: nothing else to compare with */
    return place(a, k, (struct bid){now + rise + a->eps, who});
}

/* One round at the current epsilon, from current prices, everyone without a place. */
static void run_phase(struct auction *a)
{
    int64_t all = a->n + a->imaginary, head = 0, left = all, limit = a->bids + 64 * all + 100000;
    for (int k = 0; k < a->k; k++) {
        a->size[k] = 0;
        a->held[k] = 0;
        a->seat[k] = a->price[k];
    }
    for (int at = a->leaves - 1; at >= 1; at--) a->tree[at] = winner(a, a->tree[2 * at], a->tree[2 * at + 1]);
    for (int64_t i = 0; i < all; i++) a->queue[i] = (int32_t)i;
    while (left > 0) {
        int32_t loser = bid_once(a, head, left);
        head = head + 1 == all ? 0 : head + 1;
        left--;
        if (loser >= 0) {
            int64_t tail = head + left;
            a->queue[tail >= all ? tail - all : tail] = loser;
            left++;
        }
        if (a->bids >= limit) { /* many equal rows: coarser steps end the haggling; epsilon says so */
            a->eps *= 2;
            limit = a->bids + 64 * all + 100000;
        }
    }
}

static void collect(const struct auction *a, int32_t *id, struct mode_balanced_stats *s)
{
    s->largest = 0;
    s->smallest = INT64_MAX;
    for (int k = 0; k < a->k; k++) {
        int64_t rows = 0;
        for (int64_t i = 0; i < a->size[k]; i++) {
            int32_t who = a->heap[k * a->cap + i].who;
            if (who >= a->n) continue;
            id[who] = k;
            rows++;
        }
        if (rows > s->largest) s->largest = rows;
        if (rows < s->smallest) s->smallest = rows;
    }
    s->objective = 0;
    for (int64_t i = 0; i < a->n; i++) {
        const struct mode__candidate *c = a->cand + i * a->n_cand;
        while (c->id != id[i]) c++; /* a row bids only for centres of its list */
        s->objective += c->cost;
    }
    /* any prices give a lower bound (linear programming duality): what everyone would pay for the best place,
     * less what the places take in */
    double least_seat = INFINITY;
    s->bound = 0;
    for (int64_t i = 0; i < a->n; i++) {
        double best, next;
        best_of_row(a, i, &best, &next);
        s->bound += best < a->limit[i] ? best : a->limit[i];
    }
    for (int k = 0; k < a->k; k++) {
        s->bound -= (double)(a->n / a->k) * a->price[k] + (a->imaginary ? a->seat[k] : 0);
        least_seat = a->seat[k] < least_seat ? a->seat[k] : least_seat;
    }
    s->bound += (double)a->imaginary * least_seat;
}

enum mode_status mode_balanced_assign(int32_t *id, double *price, struct mode_balanced_stats *stats,
                                      const struct mode_cost *cost, const struct mode_balanced_params *params,
                                      struct mode_error *err)
{
    enum mode_status st = MODE_OK;
    int64_t n = cost->n, rest = n % cost->k;
    int k = cost->k;
    MODE_ASSERT(n >= 1 && n + k < INT32_MAX && params->candidates >= 2 && params->tolerance > 0);
    int want = params->candidates < MODE__CHEAPEST_MOST ? params->candidates : MODE__CHEAPEST_MOST;
    struct auction a = {.cost = cost, .n = n, .k = k, .n_cand = want < k ? want : k, .cap = (n + k - 1) / k};
    a.imaginary = rest ? k - rest : 0;
    a.cand = malloc((size_t)n * (size_t)a.n_cand * sizeof *a.cand);
    a.limit = malloc((size_t)n * sizeof *a.limit);
    a.heap = malloc((size_t)k * (size_t)a.cap * sizeof *a.heap);
    a.size = calloc((size_t)k, sizeof *a.size);
    a.price = calloc((size_t)k, sizeof *a.price);
    a.seat = malloc((size_t)k * sizeof *a.seat);
    for (a.leaves = 1; a.leaves < k;) a.leaves *= 2;
    a.tree = malloc(2 * (size_t)a.leaves * sizeof *a.tree);
    a.held = calloc((size_t)k, 1);
    a.queue = malloc((size_t)(n + a.imaginary) * sizeof *a.queue);
    a.room = malloc((size_t)mode_parallel_threads() * mode__cheapest_room(k));
    if ((size_t)n <= params->keep_bytes / sizeof *a.all / (size_t)k)
        a.all = malloc((size_t)n * (size_t)k * sizeof *a.all);
    if (!a.all) {
        a.scratch = malloc((size_t)COST_ROWS * (size_t)k * sizeof *a.scratch);
        a.slot = malloc((size_t)n * sizeof *a.slot);
        a.holder = malloc(COST_ROWS * sizeof *a.holder);
        a.rows = malloc(AHEAD_ROWS * (size_t)cost->d * sizeof *a.rows);
    }
    if (!a.cand || !a.limit || !a.heap || !a.size || !a.price || !a.seat || !a.tree || !a.held || !a.queue || !a.room ||
        (!a.all && (!a.scratch || !a.slot || !a.holder || !a.rows))) {
        st = MODE_FAIL(err, MODE_E_MEMORY, "balanced assignment: no memory for %lld rows and %d centres", (long long)n,
                       k);
        goto out;
    }
    for (int j = 0; j < a.leaves; j++) a.tree[a.leaves + j] = j < k ? j : -1;
    if (price) memcpy(a.price, price, (size_t)k * sizeof *price);
    for (int64_t i = 0; !a.all && i < n; i++) a.slot[i] = -1;
    for (int i = 0; !a.all && i < COST_ROWS; i++) a.holder[i] = -1;
    pick_all(&a);

    double nearest = 0, spread = 0;
    for (int64_t i = 0; i < n; i++) {
        const struct mode__candidate *c = a.cand + i * a.n_cand;
        nearest += c[0].cost;
        spread += fabs((double)c[a.n_cand - 1].cost - c[0].cost);
    }
    double last = params->tolerance * nearest / (double)n;
    if (last < 1e-9 * (spread / (double)n) || !(last > 0)) last = 1e-9 * (spread / (double)n) + 1e-12;
    double first = params->start > 0 ? params->start : spread / (double)n / 4;
    for (a.eps = first > last ? first : last;;) {
        double asked = a.eps;
        run_phase(&a);
        if (a.eps > asked || asked <= last) break; /* had to be made coarser: finer would only haggle again */
        a.eps = asked / 5 > last ? asked / 5 : last;
    }
    struct mode_balanced_stats s = {.epsilon = a.eps, .bids = a.bids, .refreshed = a.refreshed};
    collect(&a, id, &s);
    if (stats) *stats = s;
    if (price) {
        double least = a.price[0];
        for (int j = 1; j < k; j++) least = a.price[j] < least ? a.price[j] : least;
        for (int j = 0; j < k; j++) price[j] = a.price[j] - least;
    }
out:
    free(a.cand);
    free(a.limit);
    free(a.heap);
    free(a.size);
    free(a.price);
    free(a.seat);
    free(a.tree);
    free(a.held);
    free(a.queue);
    free(a.scratch);
    free(a.slot);
    free(a.holder);
    free(a.rows);
    free(a.all);
    free(a.room);
    return st;
}
