/* Flags of countries: evaluation only, against the flags of the emoji font and of openclipart. */
#include "data/items.h"

#include "base/file.h"

#include <ctype.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>

#define ROOT  "usr/share/iso-flags-png-320x240"
#define NAMES "usr/share/unicode/cldr/common/main/en.xml"

static xmlNode *child(xmlNode *node, const char *name)
{
    for (xmlNode *c = node ? node->children : NULL; c; c = c->next)
        if (c->type == XML_ELEMENT_NODE && !strcmp((const char *)c->name, name)) return c;
    return NULL;
}

/* Name of a territory ("TG" -> "Togo"); NULL when unknown. The entries with alt are short forms. */
static char *territory_name(xmlNode *territories, const char *code)
{
    for (xmlNode *c = territories->children; c; c = c->next) {
        if (c->type != XML_ELEMENT_NODE) continue;
        xmlChar *type = xmlGetProp(c, (const xmlChar *)"type"), *alt = xmlGetProp(c, (const xmlChar *)"alt");
        bool found = type && !alt && !strcmp((const char *)type, code);
        xmlFree(type);
        xmlFree(alt);
        if (!found) continue;
        xmlChar *text = xmlNodeGetContent(c);
        char *name = mode_demo_clean((const char *)text);
        xmlFree(text);
        return name;
    }
    return NULL;
}

enum mode_status mode_demo_flags(struct mode_demo_set *set, const char *root, struct mode_error *err)
{
    char *dir = mode_path_join(root, ROOT), *names_path = mode_path_join(root, NAMES);
    struct mode_demo_files files = {0};
    xmlDoc *doc = NULL;
    enum mode_status st = mode_demo_files_list(&files, dir, "iso-flags-png-320x240", err);
    if (st != MODE_OK) goto out;
    if (!mode_file_exists(names_path)) {
        st = MODE_FAIL(err, MODE_E_NOINPUT,
                       "%s does not exist: it comes with the Debian package unicode-cldr-core. "
                       "HINT: run deploy/demo/packages.sh, which fetches and unpacks it",
                       names_path);
        goto out;
    }
    doc = xmlReadFile(names_path, NULL, XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NONET);
    xmlNode *territories = child(child(doc ? xmlDocGetRootElement(doc) : NULL, "localeDisplayNames"), "territories");
    if (!territories) {
        st = MODE_FAIL(err, MODE_E_FORMAT, "%s has no list of territories", names_path);
        goto out;
    }
    for (int64_t i = 0; i < files.n; i++) {
        char *code = mode_demo_path_stem(files.path[i]), *name = NULL;
        if (mode_demo_path_ends(files.path[i], ".png")) {
            for (char *p = code; *p; p++) *p = (char)toupper((unsigned char)*p);
            name = territory_name(territories, code);
        }
        if (name) {
            struct mode_demo_item *it = mode_demo_item_add(set, MODE_DEMO_FLAGS);
            char *text = mode_xasprintf("flag of %s", name);
            it->path = mode_path_join(dir, files.path[i]);
            it->origin = mode_xstrdup(files.path[i]);
            it->category = mode_xstrdup("flags");
            it->held = true;
            it->series = MODE_DEMO_SERIES_FLAG;
            mode_demo_texts_add(&it->texts, text);
            mode_demo_item_label(it, MODE_DEMO_TASK_FLAGS, name);
            free(text);
        } else {
            mode_demo_tally(set, MODE_DEMO_FLAGS, "the CLDR has no territory of that code", 1);
        }
        free(code);
        free(name);
    }
    mode_demo_tally(set, MODE_DEMO_FLAGS, "symbolic link", files.n_links);
out:
    xmlFreeDoc(doc);
    mode_demo_files_clear(&files);
    free(dir);
    free(names_path);
    return st;
}
