/* parse.cpp - from the text of a .ptx file to functions: registers become rows, names addresses, labels positions. It
 * reads what nvcc writes, a directive or a statement per line, and the blocks of inline assembly. */
#include "ptx.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>

namespace mode_ptx
{

using std::string;

const operand &statement::at(size_t i) const
{
    if (i >= operands.size()) unknown();
    return operands[i];
}

void statement::unknown() const
{
    fprintf(stderr, "ptx: %s: \"%s\" with %zu operands is not known to this interpreter\n", where.c_str(), op.c_str(),
            operands.size());
    abort();
}

bool statement::has(const char *word) const
{
    for (const string &w : words)
        if (w == word) return true;
    return false;
}

namespace
{

struct lane_register {
    uint32_t row;
    int width; /* bytes per lane; 0: a predicate */
};
struct array { /* of shared memory that is declared outside of functions; each that uses it has its own */
    size_t align, bytes;
    bool is_dynamic;
};

class parser
{
  public:
    explicit parser(const string &p) : path(p)
    {
    }
    std::vector<std::unique_ptr<function>> run();

  private:
    string path;
    int number = 0; /* of the line */
    std::map<string, array> outer;
    std::vector<std::unique_ptr<function>> all;
    /* of the current function */
    function *f = nullptr;
    std::vector<std::map<string, lane_register>> scopes;
    std::map<string, uint64_t> symbols; /* address in its own space */
    std::map<string, uint32_t> labels, special_rows;
    std::map<std::pair<uint64_t, int>, uint32_t> constant_rows;
    std::vector<std::pair<size_t, string>> branches; /* position, label */
    string rest;                                     /* an unfinished statement */
    int source_line = 0, source = 0;
    std::shared_ptr<std::map<int, string>> sources = std::make_shared<std::map<int, string>>();

    [[noreturn]] void stop(const string &what) const;
    void directive(const string &line);
    void text(const string &line);
    void begin_function(const string &line);
    void parameters(string list);
    void end_function();
    void mark_accumulators();
    void one(string s);
    void declare(const string &s);
    void variable(const string &s);
    void place(const string &name, size_t align, size_t bytes, bool is_local);
    void instruction(const string &s);
    operand parse_operand(string s);
    uint32_t value_of(const string &s, operand *o);
    uint32_t take(size_t bytes);
    uint32_t constant(uint64_t value, int width);
    uint32_t special_row(const string &s);
};

string trimmed(const string &s)
{
    const size_t from = s.find_first_not_of(" \t\r\n"), to = s.find_last_not_of(" \t\r\n");
    return from == string::npos ? "" : s.substr(from, to - from + 1);
}

bool begins(const string &s, const char *with)
{
    return s.compare(0, strlen(with), with) == 0;
}

std::vector<string> words_of(const string &s, const char *separators)
{
    std::vector<string> w;
    size_t at = 0;
    while ((at = s.find_first_not_of(separators, at)) != string::npos) {
        const size_t end = s.find_first_of(separators, at);
        w.push_back(s.substr(at, end == string::npos ? end : end - at));
        if (end == string::npos) break;
        at = end;
    }
    return w;
}

/* At commas that are in no braces or brackets */
std::vector<string> parts_of(const string &s)
{
    std::vector<string> p;
    int depth = 0;
    string now;
    for (char c : s) {
        if (c == '{' || c == '[') depth++;
        if (c == '}' || c == ']') depth--;
        if (c == ',' && depth == 0) {
            p.push_back(trimmed(now));
            now.clear();
        } else
            now += c;
    }
    if (!trimmed(now).empty()) p.push_back(trimmed(now));
    return p;
}

void parser::stop(const string &what) const
{
    fprintf(stderr, "ptx: %s:%d: %s\n", path.c_str(), number, what.c_str());
    abort();
}

std::vector<std::unique_ptr<function>> parser::run()
{
    std::ifstream in(path);
    if (!in) {
        fprintf(stderr, "ptx: %s: cannot be read\n", path.c_str());
        abort();
    }
    string line;
    while (std::getline(in, line)) {
        number++;
        line = trimmed(line.substr(0, line.find("//")));
        if (line.empty()) continue;
        if (begins(line, ".section")) break; /* what debuggers read */
        directive(line);
    }
    return std::move(all);
}

/* One line: a directive, which ends with the line, or part of statements. */
void parser::directive(const string &line)
{
    const std::vector<string> w = words_of(line, " \t,");
    if (w[0] == ".version" || w[0] == ".target" || w[0] == ".address_size" || w[0] == ".minnctapersm") return;
    if (w[0] == ".file") {
        const size_t from = line.find('"') + 1;
        (*sources)[atoi(w[1].c_str())] = line.substr(from, line.find('"', from) - from);
        return;
    }
    if (w[0] == ".loc") {
        source = atoi(w[1].c_str());
        source_line = atoi(w[2].c_str());
        return;
    }
    if (w[0] == ".maxntid") {
        f->most_threads = (unsigned)(atoi(w[1].c_str()) * (w.size() > 2 ? atoi(w[2].c_str()) : 1) *
                                     (w.size() > 3 ? atoi(w[3].c_str()) : 1));
        return;
    }
    if (line.find(".entry") != string::npos) return begin_function(line);
    text(line);
}

void parser::begin_function(const string &line)
{
    all.push_back(std::make_unique<function>());
    f = all.back().get();
    f->file = path;
    f->sources = sources;
    const size_t at = line.find(".entry") + 6, open = line.find('(');
    f->name = trimmed(line.substr(at, open == string::npos ? open : open - at));
    scopes.clear();
    symbols.clear();
    labels.clear();
    special_rows.clear();
    constant_rows.clear();
    branches.clear();
    rest = open == string::npos ? "" : line.substr(open);
}

uint32_t parser::take(size_t bytes)
{
    const size_t at = f->register_bytes;
    f->register_bytes += (bytes + 63) / 64 * 64;
    return (uint32_t)at;
}

uint32_t parser::constant(uint64_t value, int width)
{
    const auto key = std::make_pair(value, width);
    const auto found = constant_rows.find(key);
    if (found != constant_rows.end()) return found->second;
    const uint32_t row = take((size_t)WARP * (size_t)width);
    f->constants.push_back({row | (width == 8), value});
    return constant_rows[key] = row;
}

uint32_t parser::special_row(const string &s)
{
    static const char *const known[] = {"%tid.x",    "%tid.y",    "%tid.z",   "%ntid.x",         "%ntid.y",
                                        "%ntid.z",   "%ctaid.x",  "%ctaid.y", "%ctaid.z",        "%nctaid.x",
                                        "%nctaid.y", "%nctaid.z", "%laneid",  "%cluster_ctarank"};
    const auto found = special_rows.find(s);
    if (found != special_rows.end()) return found->second;
    for (int k = TID_X; k <= CTARANK; k++)
        if (s == known[k]) {
            const uint32_t row = take(WARP * 4);
            f->specials.push_back({row, k});
            return special_rows[s] = row;
        }
    stop("\"" + s + "\" is not a register that is known here");
}

/* The parameters: `.param .u64 NAME, .param .align 8 .b8 NAME[72]` */
void parser::parameters(string list)
{
    for (const string &p : parts_of(list)) {
        std::vector<string> w = words_of(p, " \t");
        size_t align = 0, bytes = 0;
        string name = w.back();
        for (size_t i = 1; i + 1 < w.size(); i++) {
            if (w[i] == ".align")
                align = (size_t)atoi(w[++i].c_str());
            else if (w[i].size() > 2)
                bytes = (size_t)atoi(w[i].c_str() + 2) / 8;
        }
        if (!align) align = bytes;
        const size_t open = name.find('[');
        if (open != string::npos) {
            bytes *= (size_t)atoi(name.c_str() + open + 1);
            name.resize(open);
        }
        const size_t at = (f->parameter_bytes + align - 1) / align * align;
        f->parameters.push_back({at, bytes});
        f->parameter_bytes = at + bytes;
        symbols[name] = at;
    }
}

/* Part of statements: these end with ; or are scopes or labels. */
void parser::text(const string &line)
{
    rest += line + " ";
    if (f && scopes.empty()) { /* the head of a function */
        const size_t open = rest.find('('), close = rest.find(')'), body = rest.find('{');
        if (body == string::npos) return;
        if (open != string::npos && close != string::npos) parameters(rest.substr(open + 1, close - open - 1));
        scopes.emplace_back();
        rest = rest.substr(body + 1);
    }
    for (;;) {
        rest = trimmed(rest);
        if (rest.empty()) return;
        if (rest[0] == '{') {
            scopes.emplace_back();
            rest.erase(0, 1);
        } else if (rest[0] == '}') {
            scopes.pop_back();
            rest.erase(0, 1);
            if (scopes.empty()) return end_function();
        } else {
            const size_t end = rest.find_first_of(";:");
            /* `::` is part of a name */
            size_t at = end;
            while (at != string::npos && rest[at] == ':' && rest.compare(at, 2, "::") == 0)
                at = rest.find_first_of(";:", at + 2);
            if (at == string::npos) {
                rest += " ";
                return;
            }
            const string s = trimmed(rest.substr(0, at));
            const bool is_label = rest[at] == ':';
            rest.erase(0, at + 1);
            if (is_label)
                labels[s] = (uint32_t)f->code.size();
            else if (!s.empty())
                one(s);
        }
    }
}

void parser::one(string s)
{
    if (begins(s, ".pragma")) return;
    if (begins(s, ".reg")) return declare(s);
    if (s.find(".shared") != string::npos && (s[0] == '.')) return variable(s);
    if (begins(s, ".local")) return variable(s);
    if (s[0] == '.') stop("the directive \"" + s + "\" is not known here");
    instruction(s);
}

/* .reg .f32 %f<100>; .reg .b32 there; */
void parser::declare(const string &s)
{
    const std::vector<string> w = words_of(s, " \t,");
    const int width = w[1] == ".pred" ? 0 : w[1].find("64") != string::npos ? 8 : 4;
    const size_t bytes = width ? (size_t)WARP * (size_t)width : 4;
    for (size_t i = 2; i < w.size(); i++) {
        const size_t many = w[i].find('<');
        const int n = many == string::npos ? 1 : atoi(w[i].c_str() + many + 1);
        const uint32_t first = take(bytes * (size_t)n);
        for (int k = 0; k < n; k++)
            scopes.back()[many == string::npos ? w[i] : w[i].substr(0, many) + std::to_string(k)] = {
                first + (uint32_t)(bytes * (size_t)k), width};
    }
}

/* .shared .align 4 .b8 NAME[128]; .extern .shared .align 16 .b8 NAME[]; .local .align 16 .b8 NAME[64]; */
void parser::variable(const string &s)
{
    const std::vector<string> w = words_of(s, " \t");
    size_t align = 1, bytes = 0;
    for (size_t i = 0; i + 1 < w.size(); i++) {
        if (w[i] == ".align")
            align = (size_t)atoi(w[++i].c_str());
        else if (w[i].size() > 2 && isdigit((unsigned char)w[i][2]))
            bytes = (size_t)atoi(w[i].c_str() + 2) / 8;
    }
    string name = w.back();
    const size_t open = name.find('[');
    const bool is_dynamic = w[0] == ".extern";
    if (open != string::npos) {
        bytes *= (size_t)atoi(name.c_str() + open + 1);
        name.resize(open);
    }
    if (is_dynamic || !f)
        outer[name] = {align, bytes, is_dynamic};
    else
        place(name, align, bytes, w[0] == ".local");
}

void parser::place(const string &name, size_t align, size_t bytes, bool is_local)
{
    size_t &total = is_local ? f->local_bytes : f->shared_bytes;
    total = (total + align - 1) / align * align;
    symbols[name] = total + (is_local ? 0 : (size_t)SHARED_BASE);
    total += bytes;
}

/* The row of a register or name; immediates get one of 4 and one of 8 bytes per lane (o->second). */
uint32_t parser::value_of(const string &s, operand *o)
{
    if (s == "_") return NONE;
    for (size_t i = scopes.size(); i-- > 0;) {
        const auto found = scopes[i].find(s);
        if (found == scopes[i].end()) continue;
        if (o) o->width = found->second.width;
        return found->second.row;
    }
    if (s[0] == '%') return special_row(s);
    uint64_t value;
    if (begins(s, "0f") || begins(s, "0F") || begins(s, "0d") || begins(s, "0D"))
        value = strtoull(s.c_str() + 2, nullptr, 16);
    else if (isdigit((unsigned char)s[0]) || s[0] == '-')
        value = s[0] == '-' ? (uint64_t)strtoll(s.c_str(), nullptr, 0) : strtoull(s.c_str(), nullptr, 0);
    else if (outer.count(s) && outer[s].is_dynamic) {
        if (f->dynamic_row == NONE) f->dynamic_row = take(WARP * 4);
        return f->dynamic_row;
    } else {
        if (outer.count(s) && !symbols.count(s)) place(s, outer[s].align, outer[s].bytes, false);
        if (!symbols.count(s)) stop("\"" + s + "\" is not declared");
        value = symbols[s];
    }
    if (o) {
        o->is_immediate = true;
        o->number = (int64_t)value;
        o->second = constant(value, 8);
    }
    return constant(value, 4);
}

operand parser::parse_operand(string s)
{
    operand o;
    if (s[0] == '{') {
        o.is_list = true;
        for (const string &p : parts_of(s.substr(1, s.find('}') - 1))) o.rows.push_back(value_of(p, &o));
        return o;
    }
    if (s[0] == '[') {
        o.is_address = true;
        s = s.substr(1, s.find(']') - 1);
        const size_t plus = s.find('+');
        if (plus != string::npos) o.offset = strtoll(s.c_str() + plus + 1, nullptr, 0);
        s = trimmed(s.substr(0, plus));
    }
    const size_t bar = s.find('|');
    o.rows.push_back(value_of(s.substr(0, bar), &o));
    if (bar != string::npos) o.second = value_of(s.substr(bar + 1), nullptr); /* a predicate */
    return o;
}

void parser::instruction(const string &whole)
{
    insn i;
    statement st;
    string s = whole;
    if (s[0] == '@') {
        const size_t end = s.find_first_of(" \t");
        i.negated = s[1] == '!';
        i.guard = value_of(s.substr(i.negated ? 2 : 1, end - (i.negated ? 2 : 1)), nullptr);
        s = trimmed(s.substr(end));
    }
    const size_t end = s.find_first_of(" \t");
    st.op = s.substr(0, end);
    st.words = words_of(st.op, ".");
    st.where = path + ":" + std::to_string(number) + " (" + f->name + ")";
    i.line = source_line;
    i.source = source;
    f->texts.push_back(whole);
    if (st.words[0] == "bra") {
        i.kind = BRANCH;
        i.unit = CONTROL;
        branches.push_back({f->code.size(), trimmed(s.substr(end))});
    } else if (st.words[0] == "ret" || st.words[0] == "exit") {
        i.kind = EXIT;
        i.unit = CONTROL;
    } else {
        if (end != string::npos)
            for (const string &p : parts_of(s.substr(end))) st.operands.push_back(parse_operand(p));
        if (!decode_arithmetic(st, i) && !decode_memory(st, i) && !decode_warp(st, i) && !decode_tensor(st, i))
            st.unknown();
    }
    f->code.push_back(std::move(i));
}

void parser::end_function()
{
    for (const auto &[at, label] : branches) {
        const auto found = labels.find(label);
        if (found == labels.end()) stop("no label \"" + label + "\"");
        f->code[at].target = found->second;
    }
    for (size_t i = 0; i < f->code.size(); i++) f->code[i].text = &f->texts[i];
    mark_accumulators();
    f = nullptr;
}

void parser::mark_accumulators()
{
    const auto is_product = [](const insn &i) { return i.text->find("wgmma.mma_async") != string::npos; };
    std::set<uint32_t> rows;
    for (const insn &i : f->code)
        if (is_product(i)) rows.insert(i.list.begin(), i.list.end());
    if (rows.empty()) return;
    for (insn &i : f->code) {
        for (uint32_t row : {i.d, i.d2, i.a, i.b, i.c, i.e}) i.of_accumulator |= rows.count(row) != 0;
        for (uint32_t row : i.list) i.of_accumulator |= rows.count(row) != 0;
        if (is_product(i)) i.of_accumulator = false;
    }
}

} // namespace

std::vector<std::unique_ptr<function>> parse(const string &path)
{
    return parser(path).run();
}

} // namespace mode_ptx
