/* preprocess_cfg: the options of open_clip's evaluation transform are read, anything else is refused by name. */
#include "models/clip_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct mode_preprocess p;
static struct mode_error err;

static void taken(const char *json)
{
    if (mode_clip_preprocess_parse(&p, json, 224, "cfg", &err)) fail_msg("%s: %s", json ? json : "(none)", err.text);
    assert_int_equal(p.size, 224);
}

static void refused(const char *json, const char *name)
{
    assert_int_not_equal(mode_clip_preprocess_parse(&p, json, 224, "cfg", &err), MODE_OK);
    if (!strstr(err.text, name) || !strstr(err.text, "cfg")) fail_msg("%s: %s", json, err.text);
}

static void test_what_is_read(void **state)
{
    (void)state;
    struct mode_preprocess standard;
    mode_preprocess_default(&standard, 224);
    taken(NULL);
    assert_memory_equal(&p, &standard, sizeof p);
    taken("{}");
    assert_memory_equal(&p, &standard, sizeof p);
    taken("{\"mean\": null, \"interpolation\": null, \"resize_mode\": null, \"fill_color\": 0, \"mode\": \"RGB\"}");
    assert_memory_equal(&p, &standard, sizeof p);
    taken("{\"size\": [224, 224], \"mean\": [0.5, 0.25, 0], \"std\": 0.5, \"interpolation\": \"bilinear\", "
          "\"resize_mode\": \"longest\", \"fill_color\": 114}");
    assert_true(p.mean[0] == 0.5f && p.mean[1] == 0.25f && p.mean[2] == 0 && p.std[2] == 0.5f);
    assert_int_equal(p.filter, MODE_FILTER_BILINEAR);
    assert_int_equal(p.resize_mode, MODE_RESIZE_LONGEST);
    assert_int_equal(p.fill, 114);
    taken("{\"interpolation\": \"random\", \"resize_mode\": \"squash\", \"size\": 224}");
    assert_int_equal(p.filter, MODE_FILTER_BICUBIC);
    assert_int_equal(p.resize_mode, MODE_RESIZE_SQUASH);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    refused("{\"interpolation\": \"lanczos\"}", "interpolation");
    refused("{\"interpolation\": 3}", "interpolation");
    refused("{\"resize_mode\": \"stretch\"}", "resize_mode");
    refused("{\"fill_color\": 256}", "fill_color");
    refused("{\"fill_color\": [1, 2, 3]}", "fill_color");
    refused("{\"size\": 336}", "size");
    refused("{\"size\": [224, 160]}", "size");
    refused("{\"size\": [224, 224, 3]}", "size");
    refused("{\"mode\": \"L\"}", "mode");
    refused("{\"mean\": [0.5, 0.5]}", "mean");
    refused("{\"std\": [0.5, 0, 0.5]}", "std");
    refused("{\"crop_pct\": 0.9}", "crop_pct");
    refused("[]", "cfg");
}

static void test_a_file_whose_part_is_no_object_is_refused(void **state)
{
    (void)state;
    static const char *const parts[] = {"\"bicubic\"", "null", "[]", "3"};
    char json[96], *model, *preprocess;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        snprintf(json, sizeof json, "{\"model_cfg\": {}, \"preprocess_cfg\": %s}", parts[i]);
        assert_int_equal(mode_clip_config_split(&model, &preprocess, json, "file", &err), MODE_E_FORMAT);
        assert_non_null(strstr(err.text, "preprocess_cfg"));
        assert_true(!model && !preprocess);
    }
}

/* as in open_clip's own model_configs */
static void test_a_bare_model_config_is_one(void **state)
{
    (void)state;
    char *model, *preprocess;
    assert_int_equal(
        mode_clip_config_split(&model, &preprocess, "{\"embed_dim\": 8, \"vision_cfg\": {}}", "file", &err), MODE_OK);
    assert_string_equal(model, "{\"embed_dim\":8,\"vision_cfg\":{}}");
    assert_null(preprocess);
    free(model);
    assert_int_equal(mode_clip_config_split(&model, &preprocess, "{\"embed_dim\": 8}", "file", &err), MODE_E_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_read), cmocka_unit_test(test_what_is_refused),
                                       cmocka_unit_test(test_a_file_whose_part_is_no_object_is_refused),
                                       cmocka_unit_test(test_a_bare_model_config_is_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
