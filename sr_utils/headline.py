"""The headline table of a run, for the terminal and for README.md."""

from pathlib import Path

from sr_utils.errors import UserError
from sr_utils.files import read_json

_ROWS = (
    "bicubic",
    "realsr_df2k",
    "real_esrgan_x4plus",
    "esrgan_published",
    "esrgan_base",
    "esrgan_deflow",
    "esrgan_distilled",
    "esrgan_distilled_fine",
)
_COLUMNS = {"psnr": ("PSNR", 2), "ssim": ("SSIM", 4), "lpips": ("LPIPS", 4)}


def headline_table(run_root: Path) -> str:
    """The headline of a run as a Markdown table: PSNR in dB, SSIM and LPIPS of the main methods on task 1.

    The rungs of the ladder, which have a budget of their own, are left to notebook 6.

    Raises
    ------
    UserError
        `run_root/metrics/task1.json` is missing or is not in the agreed shape.
    """
    path = run_root / "metrics" / "task1.json"
    content = read_json(path)
    lines = [
        "| method | " + " | ".join(title for title, _ in _COLUMNS.values()) + " |",
        "|---|" + "--:|" * len(_COLUMNS),
    ]
    try:
        known = {row["method"]: row for row in content["rows"]}
        for row in (known[method] for method in _ROWS if method in known):
            cells = [f"{row[key]:.{digits}f}" for key, (_, digits) in _COLUMNS.items()]
            lines.append(f"| {row['method']} | " + " | ".join(cells) + " |")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is not a metrics file ({error!r}): delete it and run make report again.") from error
    return "\n".join(lines)


def headline_source(run_root: Path) -> str:
    """One line for under the table: the profile and seed it comes from, and how to read it."""
    provenance = read_json(run_root / "metrics" / "task1.json").get("provenance", {})
    return (
        f"From a `{provenance.get('profile')}` run, seed {provenance.get('seed')}. "
        "PSNR (peak signal-to-noise ratio) in dB and SSIM (structural similarity): higher is better. LPIPS (learned "
        "perceptual image patch similarity, AlexNet): lower is better. RGB, 8 bits, no crop, means over the pairs."
    )
