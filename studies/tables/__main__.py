"""Write the tables of README.md and docs/ from results/*.json.

A table stands between <!-- table:NAME --> and <!-- /table:NAME -->.

python -m studies.tables
    rewrites the blocks that changed, and copies the pictures that the results have.
python -m studies.tables --check
    names the pages and pictures that are out of date, and exits with 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from studies.tables import clips4, ladder, models, ovsegmentor, papers, rest, scores, study
from studies.tables.markup import RESULTS, ROOT, Row, read_rows

BLOCK = re.compile(r"(<!-- table:([a-z-]+) -->\n)(.*?)(<!-- /table:\2 -->)", re.DOTALL)
PICTURES = (
    ROOT / "docs" / "images" / "results"
)  # the pictures of results/, where pages can show them

TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "headline": scores.headline,
    "protocols": scores.protocols,
    "classes": scores.classes,
    "extremes": scores.extremes,
    "confusions": scores.confusions,
    "sweep": scores.sweep,
    "sweep-pictures": scores.sweep_pictures,
    "class-pictures": scores.class_pictures,
    "boundaries": scores.boundaries,
    "selftraining": scores.selftraining,
    "probes": scores.probes,
    "tracking": rest.tracking,
    "tracking-words": rest.tracking_words,
    "retrieval": rest.retrieval,
    "runtimes": rest.runtimes,
    "commands": scores.commands,
    "ladder": ladder.ladder,
    "heads": ladder.heads,
    "clusters": ladder.clusters,
    "study-verdicts": study.study_verdicts,
    "study-seeds": study.study_seeds,
    "study-first": study.study_first,
    "study-second": study.study_second,
    "study-speed": study.study_speed,
    "study-clusters": study.study_clusters,
    "study-directions": study.study_directions,
    "model-scores": study.model_scores,
    "model-directions": study.model_directions,
    "study-pictures": study.study_pictures,
    "ovsegmentor-seeds": ovsegmentor.seeds,
    "ovsegmentor-verdicts": ovsegmentor.claims_by_verdict,
    "ovsegmentor-first": ovsegmentor.first,
    "ovsegmentor-printed": ovsegmentor.first_printed,
    "ovsegmentor-third": ovsegmentor.third,
    "ovsegmentor-fourth": ovsegmentor.fourth,
    "ovsegmentor-fifth": ovsegmentor.fifth,
    "ovsegmentor-sixth": ovsegmentor.sixth,
    "ovsegmentor-seventh": ovsegmentor.seventh,
    "ovsegmentor-directions": ovsegmentor.claims,
    "ovsegmentor-pictures": ovsegmentor.drawn,
    "ovsegmentor-groups": ovsegmentor.shown,
    "ovsegmentor-history": ovsegmentor.history_start,
    "ovsegmentor-pocket": ovsegmentor.pocket,
    "clips-first": clips4.of_the_first_study,
    "paper-claims": papers.paper_claims,
    "clips-verdicts": clips4.claims_by_verdict,
    "clips-second": clips4.second,
    "clips-third": clips4.third,
    "clips-fourth": clips4.fourth,
    "clips-fifth": clips4.fifth,
    "clips-sixth": clips4.sixth,
    "clips-seventh": clips4.seventh,
    "clips-eighth": clips4.eighth,
    "clips-directions": clips4.claims,
    "clips-pictures": clips4.drawn,
    "clips-students": clips4.history_students,
    "clips-labels": clips4.history_labels,
    "published": study.publications,
    "history-inference": study.history_inference,
    "history-bootstrap": study.history_bootstrap,
    "history-head": study.history_head,
    "history-limits": study.history_limits,
    "history-pocket": study.history_pocket,
    "few-words": rest.few_words,
    "calibration": rest.calibration,
    "calibration-pictures": rest.calibration_pictures,
    "kinds": rest.kinds,
    "segments": rest.segments,
    "tried": rest.tried,
    "allocator": rest.allocator,
    "collapse": rest.collapse,
    "speed": rest.speed,
    "precision": rest.precision,
    "growth": rest.growth,
    "gpu": rest.gpu,
    "card": rest.card,
    "catalog": models.catalog,
    "overlays": rest.overlays,
}


def rewritten(text: str, rows: Sequence[Row]) -> str:
    """Return TEXT with every marked block as the results say it."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]](rows)}\n\n{block[4]}", text)


def expected(rows: Sequence[Row]) -> dict[Path, str | None]:
    """Return what each page that may hold tables, and each copied picture, has to be.

    None: not there.
    """
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    copies = {
        PICTURES / path.name: path.read_text(encoding="utf-8")
        for path in sorted(RESULTS.glob("*.svg"))
    }
    surplus = dict.fromkeys(set(PICTURES.glob("*.svg")) - copies.keys())
    return (
        {page: rewritten(page.read_text(encoding="utf-8"), rows) for page in pages}
        | copies
        | surplus
    )


def main() -> int:
    """Rewrite the pages, or with --check name those that need it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if something is out of date"
    )
    check = parser.parse_args().check
    stale = {path: new for path, new in expected(read_rows(RESULTS)).items() if _read(path) != new}
    for path, new in stale.items():
        name = path.relative_to(ROOT)
        if check:
            print(f"{name}: out of date; run `make tables`")
        elif new is None:
            path.unlink()
            print(f"{name}: removed")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(new, encoding="utf-8")
            print(f"{name}: written")
    return 1 if check and stale else 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
