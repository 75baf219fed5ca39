/* The stylesheet of report.html: one column, system fonts, light and dark. */
#include "pipeline/report_parts.h"

const char *const mode_report_css[] = {
    ":root{color-scheme:light "
    "dark;--bg:#fbfbfa;--card:#ffffff;--ink:#1d2126;--soft:#626b75;--line:#e3e5e8;--faint:#f1f2f3;--accent:#2f62c9;"
    "--good:#1d7f4c;--bad:#b3362e;--heat:47,98,201;--mine:#333c47}\n",
    "@media(prefers-color-scheme:dark){:root{--bg:#15181c;--card:#1c2025;--ink:#e4e7ea;--soft:#98a1ab;--line:#30363d;--"
    "faint:#23282e;"
    "--accent:#7aa5f5;--good:#58c48a;--bad:#ee8177;--heat:98,147,240;--mine:#d4dae1}}\n",
    /* experts, task-specific models (their lines and chips are dashed), dense, seed: apart from each other for the
     * colour-blind as well, and from the card in both schemes */
    ".x0{--c:#5e72f0}.x1{--c:#b55e0d}.x2{--c:#199865}.x3{--c:#af3ba8}.x4{--c:#460662}.x5{--c:#b62a4b}.x6{--c:#089bd9}."
    "x7{--c:#9e9410}\n",
    ".y0{--c:#4f1b04}.y1{--c:#f15c79}.y2{--c:#2a5815}.y3{--c:#5025ac}\n",
    ".xd{--c:#606871}.xs{--c:#8c939b}.xe{--c:var(--mine)}\n",
    "@media(prefers-color-scheme:dark){.x0{--c:#6694fe}.x1{--c:#cb7d18}.x2{--c:#74fc9e}.x3{--c:#9c5580}"
    ".x4{--c:#804fd9}.x5{--c:#cd3017}.x6{--c:#22d3ff}.x7{--c:#fdde35}\n",
    ".y0{--c:#fea387}.y1{--c:#f7547b}.y2{--c:#abbb11}.y3{--c:#5276b1}.xd{--c:#8b939c}.xs{--c:#b9bfc6}}\n",
    "*{box-sizing:border-box}\n",
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,-apple-system,\"Segoe "
    "UI\",Roboto,\"Helvetica Neue\",Arial,sans-serif;"
    "-webkit-text-size-adjust:100%}\n",
    "header,main{max-width:1060px;margin:0 auto;padding:0 24px}\n",
    "header{padding-top:40px}.brand{margin:0;color:var(--soft);font-size:13px;letter-spacing:.02em}\n",
    "h1{font-size:32px;line-height:1.2;margin:2px 0 "
    "20px;font-weight:650;letter-spacing:-.015em;overflow-wrap:anywhere}\n",
    "h2{font-size:20px;margin:0 0 "
    "4px;font-weight:650;letter-spacing:-.01em}h3{font-size:15px;margin:0;font-weight:650}\n",
    "section{margin:0 0 52px}section>p.lead{margin:0 0 18px;color:var(--soft);max-width:76ch}\n",
    ".note{color:var(--soft);font-size:13px;max-width:92ch;margin:14px 0 0}\n",
    ".verdict p{margin:0 0 6px;max-width:92ch}.verdict "
    "p.first{font-size:19px;line-height:1.45;font-weight:550;margin-bottom:10px}\n",
    ".verdict .note{font-size:13px;margin-top:16px}\n",
    ".mark{display:inline-block;width:10px;height:10px;border-radius:50%;margin-right:9px;background:var(--soft)}"
    ".mark.better{background:var(--good)}.mark.worse{background:var(--bad)}\n",
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:20px 0 0}\n",
    ".tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:13px 15px 12px}"
    ".tile "
    "b{display:block;font-size:25px;line-height:1.15;font-weight:650;font-variant-numeric:tabular-nums;letter-spacing:-"
    ".01em}"
    ".tile span{display:block;font-size:14px}.tile "
    "small{display:block;color:var(--soft);font-size:12.5px;line-height:1.35;margin-top:2px}\n",
    ".card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;margin:0 0 "
    "14px;overflow-x:auto}\n",
    "svg{display:block;max-width:100%;height:auto;font:12px system-ui,-apple-system,\"Segoe "
    "UI\",Roboto,Arial,sans-serif}\n",
    "svg text{fill:var(--ink)}svg .soft{fill:var(--soft)}svg .grid{stroke:var(--line);stroke-width:1}svg "
    ".axis{stroke:var(--soft);stroke-width:1}\n",
    ".fill{fill:var(--c)}.stroke{stroke:var(--c);fill:none}.halo{paint-order:stroke;stroke:var(--card);stroke-width:"
    "4px;stroke-linejoin:round}\n",
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:13.5px}\n",
    "th{text-align:right;font-weight:550;color:var(--soft);padding:5px 9px;border-bottom:1px solid "
    "var(--line);white-space:nowrap}"
    "td{text-align:right;padding:4px 9px;border-bottom:1px solid var(--faint);white-space:nowrap}"
    "th:first-child,td:first-child{text-align:left;padding-left:0}tr.sum td{border-top:1px solid "
    "var(--line);font-weight:600}td.left,th.left{text-align:left}\n",
    "td.best{font-weight:650}td.wrap{white-space:normal}tr:last-child td{border-bottom:0}\n",
    "td.heat{text-align:center;min-width:62px;border-bottom:2px solid var(--card);border-left:2px solid var(--card)}\n",
    ".chip{display:inline-block;width:10px;height:10px;border-radius:3px;background:var(--c);margin-right:7px;vertical-"
    "align:-0.5px}\n",
    ".stroke[class*=\" y\"]{stroke-dasharray:7 4}[class^=y]>.chip{background:"
    "repeating-linear-gradient(90deg,var(--c) 0 4px,transparent 4px 6px)}\n",
    ".key{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;color:var(--soft);margin:0 0 12px}\n",
    ".charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr));gap:16px 24px}.charts "
    "h3,.card>div>h3{font-size:13px;font-weight:550;overflow-wrap:anywhere}\n",
    ".expert{border-left:4px solid var(--c)}.expert "
    ".head{display:flex;justify-content:space-between;align-items:baseline;gap:16px;flex-wrap:wrap}"
    ".expert .head small{color:var(--soft);font-size:13px}\n",
    ".bar{height:6px;border-radius:3px;background:var(--faint);margin:8px 0 10px;overflow:hidden}.bar "
    "i{display:block;height:100%;background:var(--c)}\n",
    ".words{margin:0 0 12px}.words span{display:inline-block;padding:1px 9px;margin:0 5px 5px "
    "0;border-radius:20px;background:var(--faint);font-size:13.5px}\n",
    ".pics{display:grid;grid-template-columns:repeat(auto-fill,minmax(84px,1fr));gap:12px "
    "10px}figure{margin:0;min-width:0}"
    "figure div{background:#fff;border:1px solid "
    "var(--line);border-radius:8px;height:92px;display:flex;align-items:center;justify-content:center;padding:5px}"
    "figure "
    "img{max-width:100%;max-height:80px;display:block}figcaption{font-size:11.5px;line-height:1.3;color:var(--soft);"
    "margin-top:4px;"
    "display:-webkit-box;-webkit-line-clamp:2;-webkit-box-orient:vertical;overflow:hidden;overflow-wrap:anywhere}\n",
    "details{margin:8px 0 "
    "0}summary{cursor:pointer;color:var(--accent);font-size:14px}details>*:not(summary){margin-top:10px}\n",
    "pre{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px "
    "16px;overflow:auto;font:12.5px/1.5 ui-monospace,Menlo,Consolas,monospace;"
    "white-space:pre-wrap;overflow-wrap:anywhere}code{font:.92em ui-monospace,Menlo,Consolas,monospace}\n",
    ".ok{color:var(--good)}.no{color:var(--bad);font-weight:600}ul.checks{list-style:none;margin:14px 0 "
    "0;padding:0;font-size:14px}ul.checks li{margin:2px 0}\n",
    "dl.why{margin:0;font-size:13.5px;display:grid;grid-template-columns:max-content 1fr;gap:3px 14px}dl.why "
    "dt{white-space:nowrap}dl.why dd{margin:0;color:var(--soft)}\n",
    /* wide and narrow: two drawings of a chart, of which one is shown */
    ".narrow{display:none}@media(max-width:640px){.wide{display:none}.narrow{display:block}"
    "header,main{padding:0 14px}.card{padding:14px}.map .narrow{font-size:38px}}\n",
    "@media print{body{background:#fff}.card,.tile{break-inside:avoid}}\n", NULL};
