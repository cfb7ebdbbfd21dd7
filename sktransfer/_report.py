"""The report of a comparison: a table, a figure, and one HTML page that needs no other file and no internet."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from . import __version__
from ._strategies._result import StrategyComparison
from ._summaries import spread

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; --line: #8884; --accent: #c65d00; }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }}
  h1 {{ font-size: 1.6rem; line-height: 1.2; }}
  h2 {{ font-size: 1.15rem; margin-top: 2.5rem; }}
  .verdict {{ border-left: 4px solid var(--accent); padding: .2rem 0 .2rem 1rem; font-size: 1.1rem; }}
  .wide {{ overflow-x: auto; }}
  table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
  th, td {{ padding: .4rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }}
  th:first-child, td:first-child {{ text-align: left; }}
  tr.best td {{ font-weight: 600; }}
  td.reason {{ text-align: left; white-space: normal; }}
  figure {{ margin: 1rem 0; }}
  img {{ display: block; max-width: 100%; height: auto; background: white; }}
  figcaption, footer {{ font-size: .9rem; opacity: .75; }}
  footer {{ margin-top: 3rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="verdict">{verdict}</p>
<p>{facts}</p>
<h2>Scores</h2>
<div class="wide"><table>
<thead><tr><th>strategy</th><th>{scoring}</th><th>spread</th><th>seconds</th></tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
<figure><img alt="{caption}" src="data:image/png;base64,{figure}"><figcaption>{caption}</figcaption></figure>
<footer>sktransfer {version}. {scoring}: mean over the folds; spread: standard deviation over the folds; seconds: time
to fit and test on all folds. Shared frozen features count for the first strategy that needs them.</footer>
</body>
</html>
"""


def write_report(comparison: StrategyComparison, folder: Path, *, title: str, facts: str) -> Path:
    """Write ``scores.csv``, ``scores.png`` and ``report.html`` into a folder, which is created if needed.

    Return the path of the page. It contains the figure, so it can be sent alone. `facts` is about the images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    comparison.to_frame().to_csv(folder / "scores.csv")
    figure = _figure(comparison)
    (folder / "scores.png").write_bytes(figure)
    rows = []
    for name, scores in comparison.scores_.items():
        mark = ' class="best"' if name == comparison.best_strategy_ else ""
        cells = f"{scores.mean():.3f}", f"{spread(scores):.3f}", f"{comparison.seconds_[name]:.0f}"
        rows.append(f"<tr{mark}><td>{escape(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    for name, reason in comparison.left_out_.items():
        rows.append(f'<tr><td>{escape(name)}</td><td class="reason" colspan="3">left out: {escape(reason)}</td></tr>')
    html = _PAGE.format(
        title=escape(title),
        verdict=escape(" ".join([comparison.verdict(), *comparison.notes()])),
        facts=escape(facts),
        scoring=escape(comparison.scoring),
        rows="\n".join(rows),
        caption="Each fold's score, and their mean",
        figure=base64.b64encode(figure).decode(),
        version=__version__,
    )
    page = folder / "report.html"
    page.write_text(html, encoding="utf-8")
    return page


def _figure(comparison: StrategyComparison) -> bytes:
    from matplotlib.figure import Figure  # not pyplot, which may need a screen

    figure = Figure(figsize=(8, 1.4 + 0.45 * len(comparison.scores_)), layout="constrained")
    comparison.plot(ax=figure.subplots())
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()
