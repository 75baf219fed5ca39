"""`mode bench kmeans` against PyTorch, FAISS, cuML and Flash-KMeans on the same GPU, alternating: one iteration of plain
k-means.

    PYTHON bench/peers/bench_cuda_kmeans.py build-gpu/bin/mode [--rows 1048576] [--centres 1024] [--width 768]
        [--backend cuda] [--peak 788] [--peers tf32,bf16,bf16+compiled,faiss,cuml,flash]

Rows are unit vectors around 4 K random directions; the first K rows are the initial centres. Both sides read the same
file, hold everything on the GPU and continue from their own centres with each iteration: every row is assigned to its
nearest centre, every centre becomes the mean of its rows. A round is as many iterations as fill --seconds, with one
synchronisation at its end; wall time; clocks are logged with each round.

Peers: tf32, bf16: a GEMM and an argmin for --chunk rows at a time, sums by index_add_ or, with +sorted, over rows sorted
by centre; +compiled: torch.compile. faiss: knn_gpu, on vectors in GPU memory. cuml: KMeans with max_iter=1, which
computes the labels once more at its end. flash: flash_kmeans' Triton kernels in bf16. A peer that is missing is reported.
Ours decides in double precision and finds exactly the nearest centre; how often a peer does, on 4096 rows, is printed
with the rates. Both sides are credited with 2 N K D FLOPs, whatever they execute.
"""
import tempfile

import turns

CHECKED = 4096


def draw(torch, device, n, k, d):
    """Unit rows [n, d] around 4 k random directions."""
    g = torch.Generator(device).manual_seed(1)
    around = torch.nn.functional.normalize(torch.randn(4 * k, d, generator=g, device=device), dim=1)
    x = torch.empty(n, d, device=device)
    for i in range(0, n, 1 << 16):
        m = min(1 << 16, n - i)
        some = around[torch.randint(4 * k, (m,), generator=g, device=device)]
        some = some + torch.randn(m, d, generator=g, device=device) * (0.8 / d ** 0.5)
        x[i:i + m] = torch.nn.functional.normalize(some, dim=1)
    return x


def exact_labels(torch, x, c):
    return torch.cdist(x.double(), c.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)


def by_torch(torch, a, how, x):
    state = {"c": x[:a.centres].clone()}
    rows = x.bfloat16() if "bf16" in how else x

    def dots(some, c):
        if some.dtype == torch.bfloat16 and some.is_cuda:
            return torch.mm(some, c, out_dtype=torch.float32)  # else the results are rounded to bf16
        return torch.mm(some, c).float()

    def labels_of(some, c, squares):
        return (squares - 2 * dots(some, c)).argmin(1)
    if "compiled" in how:
        labels_of = torch.compile(labels_of)

    def means_of(ids, old):
        count = torch.bincount(ids, minlength=a.centres)
        if "sorted" in how:
            sums = torch.segment_reduce(x[ids.argsort()], "sum", lengths=count, axis=0)
        else:
            sums = torch.zeros_like(old).index_add_(0, ids, x)
        return torch.where(count[:, None] > 0, sums / count[:, None].clamp(min=1), old)

    def assign(c):
        turned, squares = c.to(rows.dtype).t().contiguous(), (c * c).sum(1)
        return torch.cat([labels_of(rows[i:i + a.chunk], turned, squares) for i in range(0, len(x), a.chunk)])

    def iteration():
        state["c"] = means_of(assign(state["c"]), state["c"])
    return state, iteration, lambda c: assign(c)[:CHECKED]


def by_faiss(torch, a, how, x):
    import faiss
    import faiss.contrib.torch_utils  # noqa: F401  makes faiss accept tensors
    state = {"c": x[:a.centres].clone()}
    if a.device == "cuda":
        if not hasattr(faiss, "StandardGpuResources"):
            raise ImportError("the installed faiss is CPU-only")
        res = faiss.StandardGpuResources()

    def assign(c):
        return (faiss.knn_gpu(res, x, c, 1) if a.device == "cuda" else faiss.knn(x, c, 1))[1].view(-1)

    def iteration():
        ids, old = assign(state["c"]), state["c"]
        count = torch.bincount(ids, minlength=a.centres)
        sums = torch.zeros_like(old).index_add_(0, ids, x)
        state["c"] = torch.where(count[:, None] > 0, sums / count[:, None].clamp(min=1), old)
    return state, iteration, lambda c: assign(c)[:CHECKED]


def by_cuml(torch, a, how, x):
    import cupy
    from cuml.cluster import KMeans
    state, rows = {"c": x[:a.centres].clone()}, cupy.from_dlpack(x)

    def fit(c):
        return KMeans(n_clusters=a.centres, init=cupy.from_dlpack(c.contiguous()), n_init=1, max_iter=1, tol=0,
                      output_type="cupy").fit(rows)

    def iteration():
        state["c"] = torch.from_dlpack(fit(state["c"]).cluster_centers_)
    return state, iteration, None


def by_flash(torch, a, how, x):
    from flash_kmeans import batch_kmeans_Euclid
    state, rows = {"c": x[:a.centres].bfloat16()[None]}, x.bfloat16()[None]

    def step(c):
        return batch_kmeans_Euclid(rows, a.centres, max_iters=1, tol=-1.0, init_centroids=c)

    def iteration():
        state["c"] = step(state["c"])[1]
    return state, iteration, lambda c: step(c.bfloat16()[None])[0].view(-1)[:CHECKED]


def main():
    p = turns.arguments(__doc__)
    p.add_argument("--rows", type=int, default=1 << 20)
    p.add_argument("--centres", type=int, default=1024)
    p.add_argument("--width", type=int, default=768)
    p.add_argument("--chunk", type=int, default=1 << 15, help="rows at a time (torch peers)")
    p.add_argument("--backend", default="cuda", help="our backend; each of them uses fp16 GEMMs here")
    p.add_argument("--peak", type=float, default=788, help="TFLOP/s that count as 100 %%: what bf16 and fp16 GEMMs reach "
                   "on an H200; its data sheet says 989")
    p.add_argument("--peers", default="tf32,tf32+sorted,bf16,bf16+sorted,bf16+compiled,faiss,cuml,flash")
    turns.device_argument(p, "cuda")
    a = p.parse_args()
    torch = turns.begin(a)
    device, wait = turns.device(torch, a), turns.waiting(torch, a)
    x = draw(torch, device, a.rows, a.centres, a.width)
    start = x[:a.centres].clone()
    exact = exact_labels(torch, x[:CHECKED], start)
    peers, labels = {}, {}
    for how in a.peers.split(","):
        make = {"faiss": by_faiss, "cuml": by_cuml, "flash": by_flash}.get(how, by_torch)
        turns.tf32(torch, "tf32" in how)
        try:
            state, iteration, assign = make(torch, a, how.split("+"), x)
            iteration()  # an installed package may still fail to run
            wait()
        except Exception as e:  # whatever it is, report it
            print(f"peer {how} is left out: {type(e).__name__}: {str(e).splitlines()[0] if str(e) else 'no reason given'}")
            continue
        labels[how] = "labels are not compared" if not assign else \
            f"{100 * (assign(start) == exact).double().mean().item():.2f} % of its labels are the nearest centre's"
        state["c"] = state["c"] * 0 + start.to(state["c"].dtype).view(state["c"].shape)

        def turn(iteration=iteration, fast="tf32" in how):
            turns.tf32(torch, fast)
            iteration()
        peers[how] = turn
    clocks = turns.Clocks()
    with tempfile.TemporaryDirectory() as tmp:
        x.cpu().numpy().tofile(tmp + "/rows")
        cmd = [a.mode, "bench", "kmeans", "--data", tmp + "/rows", "--width", str(a.width), "--centres", str(a.centres),
               "--backend", a.backend]
        medians = turns.compare(f"k-means, one iteration (item) of {a.rows} rows, {a.centres} centres, {a.width} dimensions, "
                                f"{a.backend}", cmd, peers, 1, a.rounds, a.threads, clocks, a.seconds, wait)
    clocks.close()
    print()
    for how, both in medians.items():
        rates = [2e-12 * a.rows * a.centres * a.width / s for s in both]
        print(f"{how}: ours {rates[0]:.2f} TFLOP/s, {100 * rates[0] / a.peak:.1f} % of {a.peak:g} TFLOP/s; peer {rates[1]:.2f}, "
              f"{100 * rates[1] / a.peak:.1f} %; {labels[how]}")


if __name__ == "__main__":
    main()
