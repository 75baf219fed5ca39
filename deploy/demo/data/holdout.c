#include "data/holdout.h"

#include "base/error.h"
#include "base/str.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

uint32_t mode_demo_hash_mod(const char *text, uint32_t n)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    int ok = EVP_Digest(text, strlen(text), digest, NULL, EVP_sha1(), NULL);
    MODE_ASSERT(ok == 1);
    uint32_t head = (uint32_t)digest[0] << 24 | (uint32_t)digest[1] << 16 | (uint32_t)digest[2] << 8 | digest[3];
    return head % n;
}

static bool has_folder(const char *folders, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = folders; *p;) {
        size_t len = strcspn(p, "/");
        if (len == n && !memcmp(p, name, n)) return true;
        p += len + (p[len] == '/');
    }
    return false;
}

bool mode_demo_holdout_clipart(const char *folders, const char *words)
{
    if (has_folder(folders, "icons") || has_folder(folders, "flags") || has_folder(folders, "special") ||
        has_folder(folders, "unsorted"))
        return false;
    char *key = mode_xasprintf("oca:%s/%s", folders, words);
    bool held = mode_demo_hash_mod(key, 7) == 0;
    free(key);
    return held;
}

static bool is_skin_tone(uint32_t c)
{
    return c >= 0x1f3fb && c <= 0x1f3ff;
}

bool mode_demo_emoji_has_skin_tone(const uint32_t *code, int n)
{
    for (int i = 0; i < n; i++)
        if (is_skin_tone(code[i])) return true;
    return false;
}

void mode_demo_emoji_family(const uint32_t *code, int n, char *family, size_t size)
{
    size_t used = 0;
    for (int i = 0; i < n; i++) {
        uint32_t c = code[i];
        if (is_skin_tone(c) || c == 0x2640 || c == 0x2642 || c == 0xfe0f || c == 0x200d) continue;
        if (c == 0x1f468 || c == 0x1f469 || c == 0x1f9d1) c = 'P';
        if (c == 0x1f466 || c == 0x1f467 || c == 0x1f9d2) c = 'K';
        if (c == 0x1f474 || c == 0x1f475 || c == 0x1f9d3) c = 'O';
        uint8_t utf8[4];
        utf8proc_ssize_t bytes = utf8proc_encode_char((int32_t)c, utf8);
        MODE_ASSERT(used + (size_t)bytes < size);
        memcpy(family + used, utf8, (size_t)bytes);
        used += (size_t)bytes;
    }
    MODE_ASSERT(size > 0);
    family[used] = 0;
}

bool mode_demo_holdout_emoji(const char *family)
{
    char *key = mode_xasprintf("emo:%s", family);
    bool held = mode_demo_hash_mod(key, 10) == 0;
    free(key);
    return held;
}

bool mode_demo_holdout_card(char suit, int rank)
{
    const char *suits = "cdhs", *at = strchr(suits, suit);
    MODE_ASSERT(suit && at && rank >= 1);
    return (rank - 1) % 4 == at - suits;
}

bool mode_demo_holdout_folder(const char *colour, const char *kind)
{
    char *key = mode_xasprintf("fold:%s:%s", colour, kind);
    bool held = mode_demo_hash_mod(key, 6) == 0;
    free(key);
    return held;
}
