"""The page's style sheet. Colours of texts keep 4.5:1 to their ground in light and dark, lines 3:1."""

CSS = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--text:#1b2127;--soft:#55606b;--edge:#d9dee4;--grid:#e6eaee;
--good:#0f6b3c;--good-bg:#e0f4e8;--bad:#a3161b;--bad-bg:#fde7e7;--open:#55606b;--open-bg:#eceff2;--limit:#c0262d;--gap:#f3e3c3;
--s0:#0b62c4;--s1:#b8480a;--s2:#147a4b;--s3:#7a3fd0;--s4:#a8186c;--s5:#6b6400;--s6:#00707f;--s7:#7c4a1e}
@media (prefers-color-scheme:dark){:root{--bg:#0f1317;--card:#171c22;--text:#e8ecf0;--soft:#a7b1bb;--edge:#2c343c;--grid:#262d35;
--good:#6fdca0;--good-bg:#12301f;--bad:#ff9a9a;--bad-bg:#3a1719;--open:#a7b1bb;--open-bg:#242b32;--limit:#ff7b7b;--gap:#3a321d;
--s0:#6cb2ff;--s1:#ff9e64;--s2:#5fd39b;--s3:#c3a1ff;--s4:#ff8ac4;--s5:#d3d85c;--s6:#57d3e3;--s7:#d9a878}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif;
overflow-wrap:anywhere}
main{max-width:1180px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 14px}
h2{font-size:1.12rem;margin:36px 0 12px}
h3{font-size:.95rem;margin:0 0 4px}
p{margin:.4em 0}
.soft{color:var(--soft)}
.card{background:var(--card);border:1px solid var(--edge);border-radius:10px;padding:16px 18px}
.verdict{border-left:8px solid var(--open);display:flex;gap:20px;align-items:flex-start;flex-wrap:wrap}
.verdict.good{border-left-color:var(--good)}
.verdict.bad{border-left-color:var(--bad)}
.badge{font-size:1.9rem;font-weight:750;letter-spacing:.02em;padding:6px 18px;border-radius:8px;white-space:nowrap}
.good .badge,td.good span{color:var(--good);background:var(--good-bg)}
.bad .badge,td.bad span{color:var(--bad);background:var(--bad-bg)}
.open .badge,td.open span{color:var(--open);background:var(--open-bg)}
.verdict>div{flex:1 1 300px}
ul.reasons{margin:.5em 0 0;padding-left:1.2em}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin-top:14px}
.tile b{display:block;font-size:1.35rem;line-height:1.3}
.tile span{color:var(--soft);font-size:.85rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:7px 12px 7px 0;border-bottom:1px solid var(--edge);vertical-align:top}
tr:last-child>td{border-bottom:0}
th{font-weight:600;color:var(--soft);font-size:.85rem}
td small{display:block;color:var(--soft)}
td.good span,td.bad span,td.open span{font-weight:600;padding:1px 9px;border-radius:6px;white-space:nowrap;font-size:.88rem}
th{overflow-wrap:normal}
td.short{overflow-wrap:normal;white-space:nowrap}
td.number{font-variant-numeric:tabular-nums}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,500px),1fr));gap:16px}
figure{margin:0}
svg{display:block;width:100%;height:auto}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif;fill:var(--soft)}
svg .limit-label{fill:var(--limit);paint-order:stroke;stroke:var(--card);stroke-width:3px;font-weight:600}
.grid{stroke:var(--grid);fill:none}
.gap{fill:var(--gap)}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.limit{stroke:var(--limit);stroke-width:1.4;stroke-dasharray:6 4;fill:none}
.dashed{stroke-dasharray:3 4}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;margin:6px 0 0;padding:0;list-style:none;font-size:.85rem}
.legend svg{display:inline-block;width:20px;height:10px;margin-right:6px}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}.s6{--c:var(--s6)}.s7{--c:var(--s7)}
.missed{--c:var(--limit)}
.line{stroke:var(--c)}
circle{fill:var(--c)}
table+h3{margin-top:16px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 18px;margin:0}
dt{color:var(--soft)}
dd{margin:0}
footer{margin-top:36px;color:var(--soft);font-size:.85rem}
@media (max-width:640px){
main{padding:14px 12px 32px}
.card{padding:13px 13px}
.tiles{grid-template-columns:1fr 1fr}
svg text{font-size:19px}
.legend svg text{font-size:12px}
table.stack thead{position:absolute;clip-path:inset(50%);height:1px;width:1px;overflow:hidden}
table.stack tr{display:block;padding:9px 0;border-bottom:1px solid var(--edge)}
table.stack tr:last-child{border-bottom:0}
table.stack td.short{white-space:normal}
table.stack td{display:block;border:0;padding:1px 0}
table.stack td[data-label]:before{content:attr(data-label) ": ";color:var(--soft)}
dl{grid-template-columns:1fr}
dd{margin-bottom:6px}
}
@media print{
:root{color-scheme:light;--bg:#fff;--card:#fff;--text:#000;--soft:#444;--edge:#bbb;--grid:#ddd;--good:#0f6b3c;--good-bg:#fff;--bad:#a3161b;--bad-bg:#fff;
--open:#444;--open-bg:#fff;--limit:#c0262d;--gap:#eee;--s0:#0b62c4;--s1:#b8480a;--s2:#147a4b;--s3:#7a3fd0;--s4:#a8186c;--s5:#6b6400;--s6:#00707f;--s7:#7c4a1e}
main{max-width:none;padding:0}
.card,tr{break-inside:avoid}
h2,h3{break-after:avoid}
.plots{grid-template-columns:1fr 1fr}
@page{margin:14mm}
}
"""
