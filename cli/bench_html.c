/* The page: its frame and style, and the parts in order. */
#include <string.h>

#include "bench.h"
#include "bench_pictures.h"

static const char style[] =
    ":root{color-scheme:light dark;--ink:#1a1a1a;--paper:#fff;--line:#ccc;--soft:#f3f3f3;--faint:#666}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:#16181b;--line:#444;--soft:#22262b;--faint:#aaa}}\n"
    "@media print{:root{color-scheme:light;--ink:#000;--paper:#fff;--line:#bbb;--soft:#f3f3f3;--faint:#444}\n"
    "body{font-size:9.5pt;max-width:none;padding:0}h2{break-after:avoid}figure,tr{break-inside:avoid}\n"
    "thead{display:table-header-group}}\n"
    "@page{size:A4;margin:15mm}\n"
    "body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1180px;\n"
    "margin:auto;padding:1.2em}\n"
    "h1{font-size:1.5em;margin:.2em 0}h2{font-size:1.2em;border-bottom:1px solid var(--line);margin-top:1.6em}\n"
    "p{margin:.4em 0}.note{color:var(--faint);font-size:.9em}\n"
    ".row{display:flex;flex-wrap:wrap;gap:14px}figure{margin:8px 0;flex:1 1 460px;max-width:580px;min-width:0}\n"
    "figcaption{font-size:.9em;font-weight:600;margin-bottom:2px}\n"
    "table{border-collapse:collapse;font-size:.88em;margin:8px 0}\n"
    "th,td{padding:2px 9px;text-align:right;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}\n"
    "th{background:var(--soft);text-align:right}th.l,td.l{text-align:left}td.best{font-weight:700}\n"
    ".wide{overflow-x:auto}svg{width:100%;height:auto;display:block}\n"
    "svg text{font:12px system-ui,sans-serif;fill:var(--ink)}svg .end{text-anchor:end}svg .mid{text-anchor:middle}\n"
    "svg .grid{stroke:var(--line);stroke-width:.7}svg .axis{stroke:var(--ink);fill:none}\n"
    "svg .key{paint-order:stroke;stroke:var(--paper);stroke-width:3px}svg .roof{stroke:var(--ink);fill:none;\n"
    "stroke-width:1.5}svg .dash{stroke-dasharray:5 4}svg .cell{font-size:9.5px;fill:#000}\n"
    "*{-webkit-print-color-adjust:exact;print-color-adjust:exact}\n";

static void put_machines(FILE *file, const json_t *documents) {
    size_t i;
    json_t *document;
    fputs("<div class=\"wide\"><table><thead><tr><th class=\"l\">machine</th><th class=\"l\">device</th>"
          "<th class=\"l\">processor</th><th>load before, after</th><th class=\"l\">date</th><th>Lorikeet</th></tr>"
          "</thead><tbody>\n",
          file);
    json_array_foreach(documents, i, document) {
        const json_t *machine = json_object_get(document, "machine");
        const char *const cells[] = {bench_text(machine, "label"), bench_text(machine, "device"),
                                     bench_text(machine, "processor")};
        fputs("<tr>", file);
        for (int c = 0; c < 3; c++) {
            fputs("<td class=\"l\">", file);
            bench_put_text(file, cells[c]);
            fputs("</td>", file);
        }
        fprintf(file, "<td>%.1f, %.1f</td><td class=\"l\">", bench_number(machine, "load_before"),
                bench_number(machine, "load_after"));
        bench_put_text(file, bench_text(document, "date"));
        fputs("</td><td>", file);
        bench_put_text(file, bench_text(document, "lorikeet"));
        fputs("</td></tr>\n", file);
    }
    fputs("</tbody></table></div>\n", file);
}

static bool has_part(const json_t *documents, const char *name) {
    size_t i;
    json_t *document;
    json_array_foreach(documents, i, document) {
        if (json_object_get(document, name) != NULL) {
            return true;
        }
    }
    return false;
}

static int write_page(FILE *file, void *user) {
    static const struct {
        const char *name, *title;
        void (*write)(FILE *file, const json_t *documents);
    } sections[] = {{"compare", "Beside PyTorch + PEFT", pictures_compare},
                    {"train", "Training", pictures_train},
                    {"scaling", "Scaling", pictures_scaling},
                    {"attention_grid", "Attention: LoRA against full fine-tuning", pictures_grid},
                    {"kernels", "Kernels", pictures_kernels}};
    const json_t *documents = user;
    fprintf(file,
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" "
            "content=\"width=device-width,initial-scale=1\">\n<title>Lorikeet: measurements</title>\n<style>\n%s"
            "</style></head><body>\n<h1>Lorikeet: measurements</h1>\n",
            style);
    put_machines(file, documents);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        if (has_part(documents, sections[i].name)) {
            fprintf(file, "<h2>%s</h2>\n", sections[i].title);
            sections[i].write(file, documents);
        }
    }
    fputs("</body></html>\n", file);
    return CLI_DONE;
}

int bench_html_write(const char *path, const json_t *documents) {
    return bench_write_file(path, write_page, (void *)(uintptr_t)documents);
}
