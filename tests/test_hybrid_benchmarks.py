"""The benchmarks of the hybrids at the smallest size: rows come out, are kept, and cost what they should."""

import json

import pytest
import torch

from benchmarks import hybrid as benchmark
from benchmarks import pair_generators
from benchmarks.hybrid import Hybrid
from benchmarks.pair_generators import PairGenerators
from sr_utils.checkpoints import save_model
from sr_utils.comparisons import pairs_provenance
from sr_utils.datasets import open_data_root
from sr_utils.errors import UserError
from sr_utils.files import write_json
from sr_utils.hybrid import CLASSICAL, REFINEMENTS, RefinementConfig, RefinementNetwork, classical_multiplications
from sr_utils.images import save_image
from sr_utils.repository import repository_root


@pytest.fixture
def options(tmp_path):
    """Three pairs of scale 2 with noise that can be measured, and clean photographs."""
    chance, root = torch.Generator().manual_seed(0), tmp_path / "data"
    for index in range(4):
        ramp = torch.linspace(0.2, 0.7, 96).expand(3, 96, 96)
        save_image(ramp, root / "task1/GroundTruth" / f"{index}.png")
        noisy = ramp[:, ::2, ::2] + 0.05 * torch.randn(3, 48, 48, generator=chance)
        save_image(noisy, root / "task1/Input" / f"{index}.png")
        save_image(torch.rand(3, 96, 96, generator=chance), root / "clean" / f"{index}.png")
    paths = {"states": tmp_path / "states", "output": tmp_path / "hybrid.json", "ladder": tmp_path / "ladder.json"}
    return Hybrid(profile="smoke", timed_images=1, data_root=root, shifts=tmp_path, **paths)


def rows(path):
    return {row["method"]: row for row in json.loads(path.read_text())["rows"]}


def test_rows_have_what_is_read_from_them_and_are_kept(options, monkeypatch):
    methods = ("bicubic", "shrunk_spectrum", "refinement_best_classical_pairs", "esrgan_deflow")
    options = benchmark.replace(options, methods=methods)
    row = {"method": "esrgan_deflow", "psnr": 28.0, "ssim": 0.7, "lpips": 0.3}
    about = pairs_provenance(open_data_root(options.data_root)) | {"profile": "smoke"}
    write_json(options.ladder, {"provenance": about, "rows": [row]})
    benchmark.main(options)
    first = rows(options.output)
    assert set(first) == set(methods)
    for row in first.values():
        assert {"psnr", "ssim", "lpips", "milliseconds", "multiplications_per_pixel"} <= row.keys()
    assert first["shrunk_spectrum"]["psnr"] > first["bicubic"]["psnr"] + 2
    assert first["shrunk_spectrum"]["validation_psnr"] > 0
    for forbidden in ("score_method", "train_esrgan"):
        monkeypatch.setattr(benchmark, forbidden, None)
    benchmark.main(options)
    assert {name: row["psnr"] for name, row in rows(options.output).items()} == {
        name: row["psnr"] for name, row in first.items()
    }


@pytest.mark.parametrize("name", ["refinement_best", "refinement_several"])
def test_a_refinement_network_costs_no_more_than_a_fifth_of_the_esrgan(name, options):
    data = open_data_root(options.data_root)
    path = options.state(name, "_network.safetensors")
    save_model(path, RefinementNetwork(REFINEMENTS[name]), options.about(name, data))
    costs = [benchmark.restorer(method, data, options)[1] for method in (name, "esrgan_deflow")]
    assert costs[0]["multiplications_per_pixel"] <= costs[1]["multiplications_per_pixel"] / 5
    assert costs[1]["parameters"] == 1_121_347


def test_denoising_counts_and_a_kernel_is_little():
    counts = [classical_multiplications(name, 2) for name in CLASSICAL]
    assert counts[0] == 18 and all(count > 500 for count in counts[1:])
    assert classical_multiplications("bicubic", 1) == 0


def test_without_the_ladder_its_row_is_left_out(options, capsys):
    benchmark.main(benchmark.replace(options, methods=("esrgan_deflow", "bicubic")))
    assert set(rows(options.output)) == {"bicubic"} and "make ladder" in capsys.readouterr().out
    about = pairs_provenance(open_data_root(options.data_root)) | {"profile": "smoke"}
    # Once the ladder has the row it is there, and a row made anew is read anew.
    for psnr in (28.0, 29.0):
        row = {"method": "esrgan_deflow", "psnr": psnr, "ssim": 0.7, "lpips": 0.3, "seconds_per_image": 1.0}
        write_json(options.ladder, {"provenance": about, "rows": [row]})
        benchmark.main(benchmark.replace(options, methods=("esrgan_deflow",)))
        written = rows(options.output)["esrgan_deflow"]
        assert written["psnr"] == psnr and "seconds_per_image" not in written


def test_rows_and_networks_of_another_data_root_are_not_taken(options):
    data = open_data_root(options.data_root)
    benchmark.main(benchmark.replace(options, methods=("bicubic",)))
    save_model(
        options.state("refinement_best", "_network.safetensors"),
        RefinementNetwork(REFINEMENTS["refinement_best"]),
        options.about("refinement_best", data),
    )
    benchmark.fine_tuned("refinement_best", data, options)
    save_image(torch.zeros(3, 96, 96), options.data_root / "clean" / "4.png")
    data = open_data_root(options.data_root)
    for work in (benchmark.measured, benchmark.fine_tuned):
        method = "bicubic" if work is benchmark.measured else "refinement_best"
        with pytest.raises(UserError, match=rf"{method}_smoke_0.*photographs\): remove it"):
            work(method, data, options)


def test_generators_are_measured_once(options, monkeypatch):
    chosen = PairGenerators(
        methods=("white_noise", "classical"), steps=2, data_root=options.data_root, output=options.output
    )
    pair_generators.main(chosen)
    first = rows(options.output)
    assert {"akld", "auc", "fit_seconds", "milliseconds"} <= first["classical"].keys()
    monkeypatch.setattr(pair_generators, "measure", None)
    pair_generators.main(chosen)
    assert rows(options.output) == first
    monkeypatch.setattr(pair_generators, "measure", lambda method, data, options: {"method": method, "auc": 0.0})
    pair_generators.main(benchmark.replace(chosen, methods=("classical",), steps=3))
    assert set(rows(options.output)) == {"classical"} and rows(options.output)["classical"]["auc"] == 0


def test_base_weights_of_the_refinement_networks_fit_their_settings():
    for name, config in REFINEMENTS.items():
        path = repository_root() / "checkpoints" / f"base_{name}.safetensors"
        if path.is_file():
            loaded = benchmark.load_model(path, RefinementNetwork).config
            assert RefinementConfig(tuple(loaded.inputs), loaded.features, loaded.blocks) == config
