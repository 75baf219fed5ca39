/* runtime.h - inside of the worker runtime (job.c, compute.c, team.c, slot.c, worker.c and what they start); nobody
 * else includes it.
 *
 * DESIGN: the agent starts one compute process per slot and gives it two descriptors: a SOCK_SEQPACKET for
 * "do this" and "this became of it", and a shared page for what changes all the time or must be seen at once
 * (progress, stop, hold). Both ends are the same executable, so the messages are plain structs. */
#ifndef MODE_MSG_RUNTIME_H
#define MODE_MSG_RUNTIME_H

#include "base/file.h"
#include "base/index.h"
#include "msg/envelope.h"
#include "msg/job.h"
#include "msg/worker.h"
#include "store/artifacts.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

/* Of a training's evaluations, the newest of each task: so many tasks, and so many bytes of a name. */
enum { MODE_SCORES = 64, MODE_SCORE_TASK = 64, MODE_SCORE_METRIC = 48 };

/* Shared page. The compute process writes the first part, the agent the second. */
struct mode_job_page {
    atomic_uint_fast64_t done, total;
    /* What the stall clock watches: bumped whenever progress differs from before, and for every item of work that the
     * pool of threads has done, so that a batch may take as long as it does on a slow processor. */
    atomic_uint_fast64_t changes;
    atomic_bool holding; /* waits before publishing, for a lease that is certain */
    char unit[32];       /* display only */
    atomic_bool trains;  /* the next four are of a step; display only */
    _Atomic double loss, lr, logit_scale, samples_per_s;
    atomic_uint n_scores; /* display only; the names of a score stand before it is counted, and do not change */
    struct mode_job_page_score {
        char task[MODE_SCORE_TASK], metric[MODE_SCORE_METRIC];
        _Atomic double value;
        atomic_uint_fast64_t step;
    } score[MODE_SCORES];

    atomic_uint_fast64_t stop_fence; /* stop the job of this fence */
    /* Of mode_clock_s: from then on the lease may be lost, and nothing may be published; 0: there is none to lose. A time
     * and no flag, for the agent may be frozen when it comes. */
    _Atomic double publish_until;
};

enum { MODE_WORKER_NAME = 200, MODE_RUN_NAME = 128 };

struct mode_compute_job { /* agent -> compute */
    char key[MODE_DIGEST_HEX];
    uint64_t fence;
    uint32_t attempt;
    char worker[MODE_WORKER_NAME];
    char run[MODE_RUN_NAME]; /* that wanted it first; "" = not known */
};

enum { MODE_MOST_MACHINES = 64, MODE_MACHINE_NAME = 64, MODE_MEETING_PLACE = 280 };

struct mode_compute_others { /* machines beside this one whose GPUs a task may take, in the order of its processes */
    int n;
    int gpus[MODE_MOST_MACHINES];
    char name[MODE_MOST_MACHINES][MODE_MACHINE_NAME];
    char place[MODE_MEETING_PLACE]; /* HOST:PORT, where processes of several machines meet */
};

struct mode_compute_news { /* agent -> compute, while it does a task: of another machine */
    uint64_t fence;
    int rank;  /* that has ended, */
    int how;   /* so (a wait status); */
    bool gone; /* or the machine is gone that has it, and all that ran there */
};

struct mode_compute_call { /* compute -> agent, once in a task: other machines are to start processes of it */
    uint64_t fence;
    int size;                                             /* of the team */
    int first[MODE_MOST_MACHINES], n[MODE_MOST_MACHINES]; /* of each machine */
    uint8_t secret[MODE_TEAM_SECRET];
    char backend[32], inputs[PATH_MAX], checkpoint[PATH_MAX]; /* checkpoint: "" = none */
};

struct mode_compute_end { /* compute -> agent */
    uint64_t fence;
    enum mode_status status; /* MODE_OK: the commit record exists */
    Mode__FailClass fail_class;
    bool already;
    uint64_t rows_in, rows_out;
    double seconds;
    uint64_t peak_rss_bytes;
    char digest[MODE_DIGEST_HEX]; /* of an input that is damaged or missing; "" = none */
    char text[1024];
};

struct mode_to_compute { /* one message, as long as its kind is */
    enum { MODE_TO_COMPUTE_JOB, MODE_TO_COMPUTE_NEWS } kind;
    union {
        struct {
            struct mode_compute_job job;
            struct mode_compute_others others;
        };
        struct mode_compute_news news;
    };
};

struct mode_from_compute {
    enum { MODE_FROM_COMPUTE_END, MODE_FROM_COMPUTE_CALL } kind;
    union {
        struct mode_compute_end end;
        struct mode_compute_call call;
    };
};

struct mode_job_output_file {
    char *name, *path;
};
struct mode_job_input_file {
    char *name, *path;
};
struct mode_job_reject {
    char *reason;
    uint64_t n;
};

struct mode_job_kept { /* outlives the job, dies with the process */
    void *what;
    void (*drop)(void *what);
};

struct mode_job {
    struct mode_job_kept *kept, kept_here; /* kept: of the process, or kept_here in a local run */
    const uint8_t *request;
    size_t request_size;
    bool is_newer; /* the request: it says more than this build understands */
    struct mode_job_input_file *inputs;
    size_t n_inputs;
    struct mode_index input_at;               /* of a name: training has two inputs for each of many shards */
    char *in_dir, *out_dir;                   /* links to the inputs; where outputs are written */
    char *run_dir;                            /* or NULL */
    const char *backend;                      /* of the worker's options */
    int gpus;                                 /* likewise */
    int agent;                                /* a socket: for struct mode_from_compute and mode_to_compute */
    const struct mode_compute_others *others; /* NULL: there are none */
    struct mode_job_team team;
    struct mode_job_page *page;

    pthread_mutex_t lock; /* guards what follows: work functions may use threads */
    struct mode_job_output_file *outputs;
    size_t n_outputs;
    struct mode_job_reject *rejects;
    size_t n_rejects;
    uint64_t rows_in, rows_out;
    char *note, *made_on;
    char *ckpt_latest, *ckpt_mine;
    bool ckpt_looked;

    struct mode_store *store; /* NULL in a local run */
    const char *key;
    uint64_t fence;
};

/* ---- job.c ---- */
void mode_job_init(struct mode_job *job, struct mode_job_page *page);
void mode_job_clear(struct mode_job *job);
void mode_job_drop(struct mode_job_kept *kept);
/* Link path as the input of that name below job->in_dir. Names like "captions/0007" make folders. */
enum mode_status mode_job_add_input(struct mode_job *job, const char *name, const char *path, struct mode_error *err);
/* The input of that name lies below job->in_dir. */
void mode_job_found_input(struct mode_job *job, const char *name);
/* By name, so that the order of calls from threads does not show. */
void mode_job_sort_outputs(struct mode_job *job);

/* ---- compute.c ---- */
struct mode_compute_with { /* what the work function is told to compute with */
    const char *backend;
    int gpus, agent; /* agent: see struct mode_job */
    const struct mode_compute_others *others;
};
/* Do one task of the store from its key to its commit record. Never fails: what happened is in *end. kept: from one
 * task to the next, NULL = nothing is. */
void mode_compute_run(struct mode_compute_end *end, struct mode_store *store, const char *word, mode_work_fn *work,
                      const struct mode_compute_with *with, const struct mode_compute_job *task,
                      struct mode_job_page *page, struct mode_job_kept *kept);
/* The compute process: argv as made by mode_slot_start. */
int mode_compute_main(const char *word, mode_work_fn *work, int argc, char **argv);
/* The folder in tmp/ in which compute process pid does the task of this fence; malloc'd. */
char *mode_job_folder(const struct mode_store *store, uint64_t fence, pid_t pid);
/* Of which hand-out is an entry of tmp/ with this name? 0: of none. */
uint64_t mode_job_folder_fence(const char *name);
Mode__FailClass mode_fail_class(enum mode_status st);
#define MODE_COMPUTE_FLAG "--compute"

/* ---- look.c ---- */
enum { MODE_DEVICE_TEXT = 400 };
/* What the n GPUs from the first on are (n = 1: or whatever else the backend is), by a process for each; "" when a
 * signal arrived at signal_fd, which is left there. Errors: what the look says; MODE_E_DEVICE: it broke off, or took
 * too long. */
enum mode_status mode_worker_look(char text[MODE_DEVICE_TEXT], const char *argv0, const char *backend, int n,
                                  int signal_fd, struct mode_error *err);
/* That process: argv as made by mode_worker_look. */
int mode_look_main(const char *word, mode_look_fn *look, int argc, char **argv);
#define MODE_LOOK_FLAG "--look"

/* ---- slot.c: the agent's side of one compute process ---- */
enum { MODE_LOG_RING = 16 << 10 };

struct mode_slot {
    pid_t pid;        /* 0 = none */
    int sock, err_fd; /* valid while pid is */
    struct mode_job_page *page;
    char log[MODE_LOG_RING]; /* last bytes of its stderr since the job began */
    size_t log_len, log_at;
    double restart_at; /* not before */
    int deaths;        /* in a row without a finished job */
};

struct mode_slot_program { /* what every slot runs */
    const char *argv0, *workspace, *backend;
    int threads; /* 0 = default */
    int gpus;
};

enum mode_status mode_slot_start(struct mode_slot *s, const struct mode_slot_program *program, struct mode_error *err);
/* others: NULL: none. */
enum mode_status mode_slot_give(struct mode_slot *s, const struct mode_compute_job *job,
                                const struct mode_compute_others *others, struct mode_error *err);
/* false: it has much to read yet. */
bool mode_slot_tell(struct mode_slot *s, const struct mode_compute_news *news);
/* A message of the compute process: 1, none: 0, it is gone: -1. */
int mode_slot_read(struct mode_slot *s, struct mode_from_compute *word);
/* Pass its stderr on and keep the tail. */
void mode_slot_read_log(struct mode_slot *s);
size_t mode_slot_log_tail(const struct mode_slot *s, uint8_t *out, size_t cap);
uint64_t mode_slot_rss(const struct mode_slot *s);
/* Kill it and everything it started, wait for it, tell how it ended (waitpid's status). */
int mode_slot_reap(struct mode_slot *s, bool kill_first);
void mode_slot_close(struct mode_slot *s);

#endif
