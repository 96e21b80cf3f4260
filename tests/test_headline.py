import pytest

from sr_utils.errors import UserError
from sr_utils.files import write_json
from sr_utils.headline import headline_source, headline_table


def test_table(tmp_path):
    rows = [{"method": "esrgan_deflow", "psnr": 23.456, "ssim": 0.71234, "lpips": 0.2, "parameters": 7}]
    rows += [{"method": name, "psnr": 20.0, "ssim": 0.5, "lpips": 0.5} for name in ("esrgan_oracle", "bicubic")]
    write_json(tmp_path / "metrics" / "task1.json", {"provenance": {}, "rows": rows})
    assert headline_table(tmp_path).splitlines() == [
        "| method | PSNR | SSIM | LPIPS |",
        "|---|--:|--:|--:|",
        "| bicubic | 20.00 | 0.5000 | 0.5000 |",
        "| esrgan_deflow | 23.46 | 0.7123 | 0.2000 |",
    ]


SHAPES = [[], {}, {"rows": [{"method": "bicubic"}]}, {"rows": [{"method": "bicubic", "psnr": "a"}]}]


@pytest.mark.parametrize("content", SHAPES)
def test_another_shape_is_refused(tmp_path, content):
    write_json(tmp_path / "metrics" / "task1.json", content)
    with pytest.raises(UserError, match="task1.json is not a metrics file"):
        headline_table(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="task1.json does not exist"):
        headline_table(tmp_path)


def test_the_line_below_says_which_run(tmp_path):
    write_json(tmp_path / "metrics" / "task1.json", {"provenance": {"profile": "smoke", "seed": 7}, "rows": []})
    assert headline_source(tmp_path).startswith("From a `smoke` run, seed 7. PSNR")
