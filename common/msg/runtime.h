/* runtime.h - internal to the worker runtime (job.c, compute.c, team.c, slot.c, worker.c and what they start); included
 * nowhere else.
 *
 * DESIGN: the agent starts one compute process per slot and passes it two descriptors: a SOCK_SEQPACKET for jobs and
 * results, and a shared page for state that changes often or must be seen at once (progress, stop, hold). Both ends are
 * the same executable, so the messages are plain structs. */
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

/* Limits on the evaluation results of a training: number of tasks (the latest result of each), bytes of a name. */
enum { MODE_SCORES = 64, MODE_SCORE_TASK = 64, MODE_SCORE_METRIC = 48 };

/* Shared page. The compute process writes the first part, the agent the second. */
struct mode_job_page {
    atomic_uint_fast64_t done, total;
    /* Watched by the stall timer: incremented whenever progress changes, and for every item finished by the thread
     * pool, so that a batch may take long on a slow processor. */
    atomic_uint_fast64_t changes;
    atomic_bool holding; /* waiting to publish until the lease is certain */
    char unit[32];       /* display only */
    atomic_bool trains;  /* the next four are valid; display only */
    _Atomic double loss, lr, logit_scale, samples_per_s;
    atomic_uint n_scores; /* display only; a score's names are written before it is counted, and do not change */
    struct mode_job_page_score {
        char task[MODE_SCORE_TASK], metric[MODE_SCORE_METRIC];
        _Atomic double value;
        atomic_uint_fast64_t step;
    } score[MODE_SCORES];

    atomic_uint_fast64_t stop_fence; /* stop the job of this fence */
    /* On the clock of mode_clock_s: from then on the lease may have expired and nothing may be published; 0: no lease.
     * A time, not a flag, because the agent may be frozen at that moment. */
    _Atomic double publish_until;
};

enum { MODE_WORKER_NAME = 200, MODE_RUN_NAME = 128 };

struct mode_compute_job { /* agent -> compute */
    char key[MODE_DIGEST_HEX];
    uint64_t fence;
    uint32_t attempt;
    char worker[MODE_WORKER_NAME];
    char run[MODE_RUN_NAME]; /* that first requested it; "" = not known */
};

enum { MODE_MOST_MACHINES = 64, MODE_MACHINE_NAME = 64, MODE_MEETING_PLACE = 280 };

struct mode_compute_others { /* other machines whose GPUs a task may use, in the order of its ranks */
    int n;
    int gpus[MODE_MOST_MACHINES];
    char name[MODE_MOST_MACHINES][MODE_MACHINE_NAME];
    char place[MODE_MEETING_PLACE]; /* HOST:PORT, rendezvous of processes on several machines */
};

struct mode_compute_news { /* agent -> compute, during a task: about another machine */
    uint64_t fence;
    int rank;  /* that has ended */
    int how;   /* its wait status */
    bool gone; /* or: its machine was lost, with all its processes */
};

struct mode_compute_call { /* compute -> agent, once per task: start its processes on other machines */
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

struct mode_to_compute { /* one message, of the length of its kind */
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
    bool is_newer; /* the request has fields unknown to this build */
    struct mode_job_input_file *inputs;
    size_t n_inputs;
    struct mode_index input_at;               /* by name: training has two inputs for each of many shards */
    char *in_dir, *out_dir;                   /* links to the inputs; where outputs are written */
    char *run_dir;                            /* or NULL */
    const char *backend;                      /* of the worker's options */
    int gpus;                                 /* likewise */
    int agent;                                /* a socket: for struct mode_from_compute and mode_to_compute */
    const struct mode_compute_others *others; /* NULL: there are none */
    struct mode_job_team team;
    struct mode_job_page *page;

    pthread_mutex_t lock; /* guards the fields below: work functions may use threads */
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
/* Registers an input that already is below job->in_dir. */
void mode_job_found_input(struct mode_job *job, const char *name);
/* Sorts by name, so that the order of calls from threads has no effect. */
void mode_job_sort_outputs(struct mode_job *job);

/* ---- compute.c ---- */
struct mode_compute_with { /* the resources of the work function */
    const char *backend;
    int gpus, agent; /* agent: see struct mode_job */
    const struct mode_compute_others *others;
};
/* Executes one task of the store from its key to its commit record. Never fails: the outcome is in *end. kept: state
 * kept between tasks, NULL = none. */
void mode_compute_run(struct mode_compute_end *end, struct mode_store *store, const char *word, mode_work_fn *work,
                      const struct mode_compute_with *with, const struct mode_compute_job *task,
                      struct mode_job_page *page, struct mode_job_kept *kept);
/* Main function of the compute process: argv as made by mode_slot_start. */
int mode_compute_main(const char *word, mode_work_fn *work, int argc, char **argv);
/* The work folder in tmp/ of compute process pid for the task of this fence; malloc'd. */
char *mode_job_folder(const struct mode_store *store, uint64_t fence, pid_t pid);
/* The fence of the attempt that an entry of tmp/ with this name belongs to; 0: none. */
uint64_t mode_job_folder_fence(const char *name);
Mode__FailClass mode_fail_class(enum mode_status st);
#define MODE_COMPUTE_FLAG "--compute"

/* ---- look.c ---- */
enum { MODE_DEVICE_TEXT = 400 };
/* Describes the first n GPUs (n = 1: or any other backend), probing each in a process of its own; "" when a signal
 * arrived at signal_fd, which is not consumed. Errors: those of the probe; MODE_E_DEVICE: it crashed or took too
 * long. */
enum mode_status mode_worker_look(char text[MODE_DEVICE_TEXT], const char *argv0, const char *backend, int n,
                                  int signal_fd, struct mode_error *err);
/* Main function of that process: argv as made by mode_worker_look. */
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

struct mode_slot_program { /* the program of every slot */
    const char *argv0, *workspace, *backend;
    int threads; /* 0 = default */
    int gpus;
};

enum mode_status mode_slot_start(struct mode_slot *s, const struct mode_slot_program *program, struct mode_error *err);
/* Sends a job; others: NULL = none. */
enum mode_status mode_slot_give(struct mode_slot *s, const struct mode_compute_job *job,
                                const struct mode_compute_others *others, struct mode_error *err);
/* False: its socket buffer is full. */
bool mode_slot_tell(struct mode_slot *s, const struct mode_compute_news *news);
/* 1: a message from the compute process; 0: none; -1: the process has ended. */
int mode_slot_read(struct mode_slot *s, struct mode_from_compute *word);
/* Forwards its stderr and keeps the tail. */
void mode_slot_read_log(struct mode_slot *s);
size_t mode_slot_log_tail(const struct mode_slot *s, uint8_t *out, size_t cap);
uint64_t mode_slot_rss(const struct mode_slot *s);
/* Kills it and everything it started, waits for it, returns its wait status. */
int mode_slot_reap(struct mode_slot *s, bool kill_first);
void mode_slot_close(struct mode_slot *s);

#endif
