#include "fates.h"

void fates_add(struct mode_str *s, const uint64_t fate[MODE_FATE_COUNT])
{
    bool more = false;
    for (int f = MODE_FATE_KEPT + 1; f < MODE_FATE_COUNT; f++) {
        if (!fate[f]) continue;
        mode_str_printf(s, "%s%llu %s", more ? ", " : "", (unsigned long long)fate[f],
                        mode_fate_name((enum mode_fate)f));
        more = true;
    }
}

const char *fates_hint(const uint64_t fate[MODE_FATE_COUNT])
{
    /* pictures and captions in separate places of the tar give incomplete samples whose key reappears */
    if (fate[MODE_FATE_DUPLICATE_KEY])
        return " HINT: the members of a sample must follow one another in the tar, as `tar --sort=name` writes them";
    if (fate[MODE_FATE_NO_CAPTION] > fate[MODE_FATE_NO_IMAGE])
        return " HINT: captions are looked for where --text-keys says; `mode inspect` lists a shard's members";
    if (fate[MODE_FATE_NO_IMAGE]) return " HINT: pictures are members that end in .jpg, .jpeg, .png or .webp";
    return "";
}
