/* counts.cpp - what kernels executed, for questions of speed that need no clock: instructions by unit, and for each
 * access to memory the sectors of 32 bytes that it touches against the fewest that its bytes fit into, or its passes
 * over the banks of shared memory against the fewest. When the program ends, three tables are appended to
 * MODE_EMULATOR_PTX_COUNTS: kernels; accesses whose numbers differ; instructions by source line. */
#include "ptx.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace mode_ptx
{

static const char *const file_of_counts = getenv("MODE_EMULATOR_PTX_COUNTS");
bool counting = file_of_counts != nullptr;

static std::string readable(const std::string &name)
{
    int status;
    char *s = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
    std::string text = s ? s : name;
    free(s);
    if (text.compare(0, 5, "void ") == 0) text.erase(0, 5);
    return text.substr(0, text.find('('));
}

struct access { /* of one instruction */
    const function *f;
    uint64_t touched, fewest;
};
struct all_counts {
    std::map<const function *, counts> of;
    std::map<const insn *, access> accesses;
    void print_kernels(FILE *out) const;
    void print_accesses(FILE *out) const;
    void print_lines(FILE *out) const;
    ~all_counts();
};

static all_counts all;

static std::string base_of(const std::string &path)
{
    const std::string file = path.substr(path.rfind('/') + 1);
    return file.substr(0, file.rfind('.'));
}

using number = unsigned long long; /* what printf takes */

void all_counts::print_kernels(FILE *out) const
{
    static const char *const units[] = {"fp32",   "fp64",   "integer", "convert", "special",
                                        "tensor", "shared", "global",  "local",   "control"};
    fprintf(out, "file\tkernel\tlaunches\tthreads\tlanes");
    for (const char *u : units) fprintf(out, "\t%s", u);
    fprintf(out, "\tbytes\tsectors\tfewest\tpasses\tfewest\n");
    for (const auto &[f, c] : of) {
        uint64_t issued = 0;
        for (uint64_t n : c.issued) issued += n;
        fprintf(out, "%s\t%s\t%llu\t%llu\t%.1f", base_of(f->file).c_str(), readable(f->name).c_str(),
                (number)c.launches, (number)c.threads, (double)c.lanes / (double)std::max<uint64_t>(issued, 1));
        for (uint64_t n : c.issued) fprintf(out, "\t%llu", (number)n);
        fprintf(out, "\t%llu\t%llu\t%llu\t%llu\t%llu\n", (number)c.global_bytes, (number)c.sectors,
                (number)c.fewest_sectors, (number)c.passes, (number)c.fewest_passes);
    }
}

void all_counts::print_accesses(FILE *out) const
{
    fprintf(out, "\nfile\tkernel\tline\texecuted\ttouched\tfewest\tinstruction\n");
    for (const auto &[i, a] : accesses)
        if (a.touched > a.fewest)
            fprintf(out, "%s\t%s\t%d\t%llu\t%llu\t%llu\t%s\n", base_of(a.f->file).c_str(), readable(a.f->name).c_str(),
                    i->line, (number)i->executed, (number)a.touched, (number)a.fewest, i->text->c_str());
}

/* Source lines are those of the innermost function that was inlined. */
void all_counts::print_lines(FILE *out) const
{
    fprintf(out, "\nfile\tkernel\tline\texecuted\toperation\n");
    for (const auto &[f, c] : of) {
        std::map<std::pair<int, std::string>, uint64_t> lines;
        for (const insn &i : f->code) {
            const size_t guard = (*i.text)[0] == '@' ? i.text->find_first_of(" \t") + 1 : 0;
            lines[{i.line, i.text->substr(guard, i.text->find_first_of(" \t", guard) - guard)}] += i.executed;
        }
        for (const auto &[at, n] : lines)
            if (n)
                fprintf(out, "%s\t%s\t%d\t%llu\t%s\n", base_of(f->file).c_str(), readable(f->name).c_str(), at.first,
                        (number)n, at.second.c_str());
    }
}

all_counts::~all_counts()
{
    FILE *out = counting ? fopen(file_of_counts, "a") : nullptr;
    if (!out) return;
    print_kernels(out);
    print_accesses(out);
    print_lines(out);
    fclose(out);
}

static void note(warp &w, uint64_t touched, uint64_t fewest)
{
    access &a = all.accesses[w.now];
    a.f = w.f;
    a.touched += touched;
    a.fewest += fewest;
}

counts &counts_of(const function &f)
{
    return all.of[&f];
}

void count_global(warp &w, const uint64_t *address, uint32_t lanes, size_t bytes)
{
    counts &c = counts_of(*w.f);
    std::vector<uint64_t> sectors, words; /* words: distinct elements */
    for (uint32_t m = lanes; m; m &= m - 1) {
        const uint64_t a = address[__builtin_ctz(m)];
        for (uint64_t s = a / 32; s <= (a + bytes - 1) / 32; s++) sectors.push_back(s);
        words.push_back(a);
    }
    std::sort(sectors.begin(), sectors.end());
    std::sort(words.begin(), words.end());
    const size_t distinct = (size_t)(std::unique(words.begin(), words.end()) - words.begin());
    const uint64_t touched = (uint64_t)(std::unique(sectors.begin(), sectors.end()) - sectors.begin()),
                   fewest = (distinct * bytes + 31) / 32;
    c.sectors += touched;
    c.fewest_sectors += fewest;
    c.global_bytes += distinct * bytes;
    note(w, touched, fewest);
}

/* 32 banks of 4 bytes. Accesses of 8 and 16 bytes are served by half and quarter warps. */
void count_shared(warp &w, const uint32_t *address, uint32_t lanes, size_t bytes)
{
    counts &c = counts_of(*w.f);
    uint64_t touched = 0, fewest = 0;
    const int group = bytes > 8 ? 8 : bytes > 4 ? 16 : 32;
    for (int first = 0; first < WARP; first += group) {
        std::vector<uint32_t> words;
        unsigned per_bank[32] = {0}, most = 0;
        for (int l = first; l < first + group; l++)
            if (lanes >> l & 1)
                for (uint32_t at = address[l] / 4; at <= (address[l] + (uint32_t)bytes - 1) / 4; at++)
                    words.push_back(at);
        if (words.empty()) continue;
        std::sort(words.begin(), words.end());
        words.erase(std::unique(words.begin(), words.end()), words.end());
        for (uint32_t at : words) most = std::max(most, ++per_bank[at % 32]);
        touched += most;
        fewest += (words.size() + 31) / 32;
    }
    c.passes += touched;
    c.fewest_passes += fewest;
    note(w, touched, fewest);
}

} // namespace mode_ptx
