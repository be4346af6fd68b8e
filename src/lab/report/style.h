// The style sheet of a report.
#pragma once

#include <string_view>

namespace logitlab {

inline constexpr std::string_view kReportStyle = R"css(
:root{color-scheme:light dark;--bg:#fbfbf9;--fg:#1d2126;--dim:#5d6670;--card:#fff;--edge:#d9dde2;
--accent:#1f6fb2;--on:#fff;--warn:#8a4b00;--warnbg:#fff4e2;--unknown:#e4e7ea;--mark:#c4314b;
--c0:#1f6fb2;--c1:#c4571b;--c2:#2e8540;--c3:#8146b0;--c4:#b3306d;--c5:#6b5a00;--c6:#007c89;--c7:#5a5f66}
@media (prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e6e9ec;--dim:#9aa5b1;--card:#1c2127;
--edge:#343b44;--accent:#5aa9e6;--on:#0d1217;--warn:#ffc069;--warnbg:#33270f;--unknown:#2b3138;
--mark:#ff6b81;--c0:#5aa9e6;--c1:#f0935a;--c2:#6cc07c;--c3:#bb8ee6;--c4:#ec7db2;--c5:#cfba4a;
--c6:#4cc3cf;--c7:#a5acb5}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.55 system-ui,sans-serif;
overflow-wrap:anywhere}
main{max-width:60rem;margin:0 auto;padding:1.2rem}
h1{font-size:1.7rem;line-height:1.2}h2{font-size:1.35rem;margin:2.6rem 0 .5rem;
border-top:1px solid var(--edge);padding-top:1.4rem}h3{font-size:1.05rem;margin:1.6rem 0 .4rem}
a{color:var(--accent)}.dim{color:var(--dim);font-size:.9rem}
.answer{font-size:1.15rem;background:var(--card);border:1px solid var(--edge);
border-left:5px solid var(--accent);border-radius:6px;padding:.8rem 1rem}
.warn{background:var(--warnbg);border-left:5px solid var(--warn);border-radius:6px;
padding:.5rem 1rem;margin:.6rem 0}
.box{overflow-x:auto;background:var(--card);border:1px solid var(--edge);border-radius:6px;
padding:.7rem;margin:.5rem 0}
table{border-collapse:collapse;font-size:.9rem;overflow-wrap:normal}
th,td{padding:.25rem .7rem .25rem 0;text-align:left;vertical-align:top}
th{color:var(--dim);border-bottom:1px solid var(--edge);font-weight:600}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tbody tr:nth-child(even){background:color-mix(in srgb,var(--edge) 30%,transparent)}
pre,.tokens{font:.88rem/1.7 ui-monospace,monospace;white-space:pre-wrap}
.tokens span{border-radius:2px}.p1{background:color-mix(in srgb,var(--c2) 22%,transparent)}
.p2{background:color-mix(in srgb,var(--c5) 30%,transparent)}
.p3{background:color-mix(in srgb,var(--c1) 36%,transparent)}
.p4{background:color-mix(in srgb,var(--mark) 44%,transparent)}
.part{outline:2px solid var(--mark)}
svg{display:block;max-width:none;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--fg)}
svg .label{fill:var(--dim)}svg .mono{font-family:ui-monospace,monospace}svg .on-heat{fill:var(--on)}svg .in-heat{fill:var(--fg)}
.grid{stroke:var(--edge)}.line{stroke-width:2;fill:none}.heat{fill:var(--accent)}
.unknown,.track{fill:var(--unknown)}.mark{fill:var(--mark)}
.c0{fill:var(--c0);stroke:var(--c0)}.c1{fill:var(--c1);stroke:var(--c1)}
.c2{fill:var(--c2);stroke:var(--c2)}.c3{fill:var(--c3);stroke:var(--c3)}
.c4{fill:var(--c4);stroke:var(--c4)}.c5{fill:var(--c5);stroke:var(--c5)}
.c6{fill:var(--c6);stroke:var(--c6)}.c7{fill:var(--c7);stroke:var(--c7)}
rect.c0,rect.c1{stroke:none}
@media (max-width:480px){main{padding:.8rem}body{font-size:15px}}
@media print{:root{--bg:#fff;--card:#fff;--fg:#000;--dim:#444;--edge:#ccc}body{font-size:11pt}
.box{overflow:visible;break-inside:avoid}svg{max-width:100%}h2{break-after:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
)css";

}  // namespace logitlab
