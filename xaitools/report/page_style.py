"""The style of every page that we write: light, dark, and on paper."""

STYLE = """
:root{--ink:#1c1917;--soft:#57534e;--paper:#fdfcfb;--line:#e2dedb;--card:#fff;--cue:#d9622b;--other:#2f7fb5;--warn:#fff6e0;--edge:#e0a526}
@media(prefers-color-scheme:dark){:root{--ink:#e7e5e4;--soft:#a8a29e;--paper:#171513;--line:#3a3633;--card:#1f1c1a;
--cue:#f08a52;--other:#5aa9dd;--warn:#2f2611;--edge:#b98a1d}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
main{max-width:1060px;margin:0 auto;padding:28px 24px 60px}
header{border-bottom:2px solid var(--ink);margin-bottom:18px}
h1{font-size:28px;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:18px;margin:0 0 8px}
.kind{margin:0;color:var(--soft);letter-spacing:.08em;text-transform:uppercase;font-size:12px}
.on{margin:4px 0 12px;color:var(--soft);overflow-wrap:anywhere}
.lead{font-size:17px;max-width:48em}
section{margin:26px 0}
.warn{background:var(--warn);border-left:4px solid var(--edge);padding:12px 16px;border-radius:4px}
.warn ul{margin:0;padding-left:20px}
small{color:var(--soft);font-size:12.5px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}.wide table{width:100%}
th,td{text-align:left;padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:middle;overflow-wrap:break-word}
th{font-weight:600;font-size:12.5px;color:var(--soft);vertical-align:bottom;overflow-wrap:normal}
.n{text-align:right;white-space:nowrap}td.n{padding-left:8px}
.group th{padding-top:14px;color:var(--ink)}
.compare td{vertical-align:top}
a{color:inherit;text-decoration-color:var(--soft);text-underline-offset:2px}
svg{display:block}
svg.axis{overflow:visible}
.axis text{font-size:11px;fill:var(--soft)}
.cue{fill:var(--cue);opacity:.8}.other{fill:var(--other);opacity:.8}
.ci{stroke:var(--ink);stroke-width:1.6;fill:none}.zero{stroke:var(--soft);stroke-width:1}
.part-object{fill:#0f766e;background:#0f766e}.part-artefact{fill:#9333ea;background:#9333ea}
.part-context{fill:#cfc8c2;background:#cfc8c2}.chance{stroke:var(--ink);stroke-width:1.4}
.keys{white-space:nowrap}.key{display:inline-block;width:10px;height:10px;margin:0 4px 0 8px;border-radius:2px}
img{display:block;width:100%;height:auto;margin-top:12px;border:1px solid var(--line);border-radius:4px;background:#fff}
.cards{display:grid;gap:14px}
.card{background:var(--card);border:1px solid var(--line);border-left:5px solid var(--soft);border-radius:4px;padding:12px 16px}
.card h3{margin:0;font-size:17px;display:inline}.card p{margin:4px 0}
.card.relies{border-left-color:var(--cue)}.card.open{border-left-color:var(--edge)}
.verdict{float:right;font-size:12.5px;letter-spacing:.06em;text-transform:uppercase;color:var(--soft)}
.relies .verdict{color:var(--cue);font-weight:700}
.pair{display:flex;flex-wrap:wrap;gap:8px 40px;align-items:flex-start}
.notes{margin:4px 0 10px;padding-left:20px;color:var(--soft)}
summary{cursor:pointer;color:var(--soft);padding:6px 0}
@media(max-width:900px){main{padding:16px 12px 40px}th,td{padding:5px 8px 5px 0}}
@media print{body{font-size:11px;background:#fff;color:#000}main{max-width:none;padding:0}section{break-inside:avoid}}
"""
