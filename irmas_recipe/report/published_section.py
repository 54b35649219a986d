"""The card's section on systems that were published on the same test set, with their protocols."""

from irmas_recipe.report.published import FULL_TEST_SET_CLIPS, OPENMIC_SYSTEMS, PUBLISHED_SYSTEMS
from irmas_recipe.report.results import Results
from irmas_recipe.report.text import markdown_table

IRMAS = (
    f"All on IRMAS's {FULL_TEST_SET_CLIPS:,} test clips unless the protocol says otherwise. Thresholds, windows and test clips "
    "differ between them, and some figures are quoted from secondary sources: read the protocols before the ranks."
)
OPENMIC = (
    "Mean average precision on the judged labels of OpenMIC-2018's official test split. A probe trains a small head on the "
    "frozen embeddings of a network: read the protocols before the ranks."
)


def published_section(results: Results) -> str:
    """Return the section, or nothing for a run on other music or on a part of a test set."""
    if results.music not in ("irmas", "openmic"):
        return ""
    words, table = (IRMAS, published_table(results)) if results.music == "irmas" else (OPENMIC, openmic_table(results))
    return f"## Beside published systems\n\n{words}\n\n{table}"


def published_table(results: Results) -> str:
    """Return the published systems with their protocols, below this one."""
    own = [f"**{results.headline[name]:.3f}**" for name in ("micro_f1", "macro_f1", "lrap")]
    rows = [["system", "micro-F1", "macro-F1", "LRAP", "protocol"]]
    rows.append(["**this model**", *own, f"as above, {results.regime} thresholds"])
    for system in PUBLISHED_SYSTEMS:
        figures = (system.micro_f1, system.macro_f1, system.lrap)
        shown = ["" if figure is None else f"{figure:.3f}".removesuffix("0") for figure in figures]
        rows.append([system.name, *shown, system.protocol])
    return markdown_table(rows)


def openmic_table(results: Results) -> str:
    """Return the systems published on OpenMIC-2018 with their protocols, below this one."""
    own = results.test["map"]
    rows = [["system", "mAP", "protocol"], ["**this model**", f"**{own:.3f}**", "as above"]]
    rows += [[system.name, f"{system.map:.3f}", system.protocol] for system in OPENMIC_SYSTEMS]
    return markdown_table(rows)
