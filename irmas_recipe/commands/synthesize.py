"""`irmas synthesize DIR`: an IRMAS of any size with synthesised music, to try everything without a download."""

import argparse
from pathlib import Path


def main(argv: list[str]) -> None:
    """Write a synthetic IRMAS, whose folder can then be given as `--data_dir`."""
    parser = argparse.ArgumentParser(
        prog="irmas synthesize",
        description="Write a synthetic IRMAS: the real layout, names and labels, played by synthesised instruments.",
    )
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="a new or empty folder, to be given as --data_dir afterwards"
    )
    parser.add_argument(
        "--train", metavar="N", type=int, default=660, help="training excerpts of 3 s (default: %(default)s)"
    )
    parser.add_argument(
        "--test", metavar="N", type=int, default=220, help="test clips of 5 to 20 s (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", metavar="S", type=int, default=0, help="the same seed gives the same files (default: %(default)s)"
    )
    parser.add_argument(
        "--layout", choices=["irmas", "openmic"], default="irmas",
        help="openmic: a synthetic OpenMIC-2018, clips of 10 s with labels that are partly known (default: %(default)s)",
    )  # fmt: skip
    args = parser.parse_args(argv)

    from irmas_dataset.synthetic import check_counts, synthesize  # needs scipy, which takes a second
    from irmas_dataset.synthetic_openmic import synthesize_openmic

    if args.layout == "openmic":
        check_counts(args.train, args.test, args.seed)
        synthesize_openmic(args.folder, train=args.train, test=args.test, seed=args.seed)
        print(f"Wrote {args.train} training clips and {args.test} test clips into {args.folder}.")
        return

    synthesize(args.folder, train=args.train, test=args.test, seed=args.seed)
    print(f"Wrote {args.train} training excerpts and {args.test} test clips into {args.folder}.")
