"""`irmas download --data_dir D`: fetch IRMAS or OpenMIC-2018 from its public record, or verify a copy of IRMAS."""

import argparse
import shlex
import sys
from pathlib import Path

from irmas_dataset.download import ZENODO, download
from irmas_dataset.errors import UserError
from irmas_dataset.openmic_download import download_openmic
from irmas_dataset.verify import verify


def main(argv: list[str]) -> None:
    """Complete IRMAS in a folder, or with --verify compare it with the published one (exit code 1 where it differs)."""
    parser = argparse.ArgumentParser(
        prog="irmas download",
        description="Fetch IRMAS (about 12 GB once extracted) into DIR: only what is missing, resuming interrupted files. "
        "Zips that are in DIR already are used. IRMAS is licensed CC BY-NC-SA 3.0: not for redistribution.",
    )
    parser.add_argument("--data_dir", metavar="DIR", type=Path, required=True, help="the folder of IRMAS")
    parser.add_argument(
        "--verify", action="store_true", help="fetch nothing: compare every file with its published MD5"
    )
    parser.add_argument(
        "--dataset", choices=["irmas", "openmic"], default="irmas",
        help="openmic: OpenMIC-2018, an archive of 2.6 GB (CC BY 4.0; each clip has a licence of its own)",
    )  # fmt: skip
    parser.add_argument("--base_url", help=argparse.SUPPRESS)  # of a mirror
    args = parser.parse_args(argv)
    if args.dataset == "openmic":
        if args.verify:
            raise UserError(
                "--verify compares IRMAS alone: OpenMIC-2018 is verified as one archive when it is fetched."
            )
        download_openmic(args.data_dir, **({"base_url": args.base_url} if args.base_url else {}))
        print(f"OpenMIC-2018 is complete in {args.data_dir}.")
        return
    if not args.verify:
        download(args.data_dir, base_url=args.base_url or ZENODO)
        print(f"IRMAS is complete in {args.data_dir}.")
        return
    summary = verify(args.data_dir)
    print(summary)
    if not summary.ok:
        print(f"Delete the damaged files, then run `irmas download --data_dir {shlex.quote(str(args.data_dir))}`.")
        sys.exit(1)
