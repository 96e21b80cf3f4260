import json
import re

import pytest
import torch

from sr_utils.ab_page import write_ab_page
from sr_utils.errors import UserError


def pairs_of(page):
    return json.loads(re.search(r"const pairs = (.*);\n", page.read_text()).group(1))


def test_every_pair_is_there_in_hidden_order(tmp_path):
    generator = torch.Generator().manual_seed(0)
    pairs = [{"ours": torch.rand(3, 8, 8, generator=generator), "bicubic": torch.zeros(3, 8, 8)} for _ in range(12)]
    page = write_ab_page(tmp_path / "new" / "ab.html", pairs, title="Ours & <theirs>", seed=1)
    found = pairs_of(page)
    assert len(found) == 12
    assert all({entry["method"] for entry in pair} == {"ours", "bicubic"} for pair in found)
    assert 0 < sum(pair[0]["method"] == "ours" for pair in found) < 12
    assert found == pairs_of(write_ab_page(tmp_path / "again.html", pairs, title="x", seed=1))
    text = page.read_text()
    assert "<title>Ours &amp; &lt;theirs&gt;</title>" in text and "http" not in text
    # The reader sees no name before the end: names are in the script only.
    assert "ours" not in re.sub(r"<script>.*</script>", "", text, flags=re.S)


def test_three_pictures_are_no_pair(tmp_path):
    with pytest.raises(ValueError, match="has 3 pictures"):
        write_ab_page(tmp_path / "ab.html", [dict.fromkeys("abc", torch.zeros(3, 8, 8))], title="x")


def test_a_place_that_holds_no_files_is_one_sentence():
    with pytest.raises(UserError, match="/dev/null/x/ab.html cannot be written"):
        write_ab_page("/dev/null/x/ab.html", [{"a": torch.zeros(3, 8, 8), "b": torch.ones(3, 8, 8)}], title="x")
