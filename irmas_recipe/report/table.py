"""A run's figures as an aligned text table, and what sets its protocol apart."""

from irmas_dataset.labels import readable_name
from irmas_recipe.report.results import FIGURES, REGIMES, Results
from irmas_recipe.report.text import aligned, with_interval


def results_table(results: Results) -> str:
    """Return the figures as an aligned table: the headline regime first, the trivial answers last."""
    trivial = results.trivial
    header = ["", *FIGURES.values()]
    measured = [regime_row(results, regime) for regime in REGIMES if regime in results.test]
    unheard = [
        ["constant answer", f"{trivial['constant']['micro_f1']:.3f}", f"{trivial['constant']['macro_f1']:.3f}", "", ""],
        ["every class", f"{trivial['all']['micro_f1']:.3f}", f"{trivial['all']['macro_f1']:.3f}", "", ""],
        ["ranked by frequency", "", "", f"{trivial['prior']['lrap']:.3f}", f"{trivial['prior']['map']:.3f}"],
    ]
    widths = [max(map(len, column)) for column in zip(header, *measured, *unheard, strict=True)]
    rule = "-" * sum(widths, 2 * (len(widths) - 1))
    lines = [
        results.test_set,
        rule,
        aligned(header, widths),
        rule,
        *(aligned(row, widths) for row in measured),
        rule,
        *(aligned(row, widths) for row in unheard),
        rule,
        f"[95 % interval] from {results.protocol['bootstrap_resamples']:,} resamples of whole songs. "
        "Oracle: the threshold that is best on the test set itself.",
        *notes_on_protocol(results.protocol),
        *known_labels(results),
        f"Constant answer: {', '.join(map(readable_name, trivial['constant']['classes']))}.",
    ]
    return "\n".join(lines)


def known_labels(results: Results) -> list[str]:
    """Return a line on how many labels of the test set are known, of each class, where some are not."""
    if not results.is_partly_known:
        return []
    counts = [f"{readable_name(code)} {entry['known']:,}" for code, entry in results.per_class.items()]
    lines = [f"Clips in which each class was judged; the others take no part: {', '.join(counts)}."]
    if figures := results.test.get("judged"):
        lines.append(
            f"As papers on OpenMIC count: mAP {figures['map']:.3f}, F1 at 0.5 of presence and absence {figures['f1']:.3f}, of "
            f"presence alone {figures['f1_present']:.3f}."
        )
    return lines


def notes_on_protocol(protocol: dict) -> list[str]:
    """Return a line for each way in which a run's protocol differs from the project's own."""
    lines, source = [], protocol.get("thresholds_from", "validation mixtures")
    if source != "validation mixtures":
        lines.append(f"Tuned: thresholds from {source}.")
    if protocol.get("separation", "none") != "none":
        lines.append(f"Heard: only the {protocol['separation']} part of the music.")
    return lines


def regime_row(results: Results, regime: str) -> list[str]:
    """Return one row of the table; LRAP and mAP need no threshold, so only the headline's row has them."""
    figures, name = results.test[regime], REGIMES[regime]
    if regime != "tuned":
        name += f" {results.single_threshold(regime):.2f}"
    decisions = [with_interval(figures[name], figures["ci95"][name]) for name in ("micro_f1", "macro_f1")]
    ranking = [with_interval(results.test[name], results.test["ci95"][name]) for name in ("lrap", "map")]
    return [name, *decisions, *(ranking if regime == results.regime else ["", ""])]
