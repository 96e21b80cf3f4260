"""Figures and tables: what they show, read back from matplotlib's own objects."""

import io
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from sr_utils import report
from sr_utils.figure_style import CARD, WIDTH

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def no_open_figures():
    """A figure that pyplot keeps would stay in a notebook's memory, and be displayed twice."""
    yield
    left = plt.get_fignums()
    plt.close("all")
    assert not left


def picture(height=24, width=32, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def scene(seed=0):
    """An input at half the size, an enlargement and the ground truth."""
    return {"input": picture(12, 16, seed), "restored": picture(seed=seed + 1), "truth": picture(seed=seed + 2)}


def with_busy_corner():
    """A grey truth (3, 40, 48) with one textured square, and its input at half the size."""
    truth = torch.full((3, 40, 48), 0.5)
    truth[:, 20:36, 8:24] = picture(16, 16)
    return {"input": picture(20, 24), "truth": truth}


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def pixels(axis):
    return axis.images[0].get_array()


def channels_last(image):
    return image.permute(1, 2, 0).numpy()


def twice(image):
    """Every pixel as four, channels last."""
    return channels_last(image).repeat(2, axis=0).repeat(2, axis=1)


CURVE = ([1, 2, 4], torch.tensor([3.0, 2.0, 1.0]))
SAMPLES = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WORDS = {"title": "Heading", "xlabel": "across", "ylabel": "up"}

# For each function: its arguments, how many axes, and how many images on them.
DRAWINGS = {
    "image_grid": (([picture(seed=seed) for seed in range(7)],), {"columns": 3}, 9, 7),
    "comparison_strip": (([scene(0), scene(5)],), {}, 6, 6),
    "zoom_strip": (([scene(0), scene(5)],), {"size": 16}, 8, 8),
    "best_worst": (([scene(0), scene(3)], [scene(6)], ([1.5, 0.5], [-2.25])), {"size": 16}, 12, 9),
    "loss_curves": (({"first": {"a": CURVE, "b": CURVE}, "second": {"a": CURVE}},), {"ylabel": "loss"}, 2, 0),
    "line_plot": (({"a": CURVE, "b": CURVE},), WORDS, 1, 0),
    "spectrum_plot": (({"a": CURVE},), {}, 1, 0),
    "histogram_comparison": (({"a": SAMPLES, "b": 2 * SAMPLES},), {"xlabel": "across"}, 1, 0),
    "correlation_maps": (({"a": torch.eye(3), "b": torch.eye(5)},), {}, 2, 2),
    "covariance_picture": ((torch.tensor([1.0, -2.0]), torch.tensor([[2.0, -3.0], [-3.0, 7.0]])), {}, 3, 1),
    "image_beside_map": ((picture(), torch.ones(3, 4)), {"heading": "map", "neutral": 1.0}, 3, 2),
    "interval_plot": (({"a": SAMPLES, "b": SAMPLES},), {"names": ["one", "two"], "xlabel": "across"}, 1, 0),
    "gain_scatter": (([20.0, 25.0], [1.0, -0.5]), WORDS, 1, 0),
}


def draw(name):
    arguments, options, _, _ = DRAWINGS[name]
    return getattr(report, name)(*arguments, **{"title": "Heading", **options})


def test_every_drawing_function_is_tested():
    public = {name for name, each in vars(report).items() if getattr(each, "__module__", "") == report.__name__}
    others = {"show", "show_picture", "save_figure", "table", "busiest_window"}
    assert set(DRAWINGS) == {name for name in public if not name.startswith("_")} - others


def test_a_picture_file_is_shown_as_a_lighter_jpeg(tmp_path, monkeypatch):
    pixels = (torch.rand(64, 64, 4, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8).numpy()
    Image.fromarray(pixels, "RGBA").save(tmp_path / "strip.png")
    shown = []
    monkeypatch.setattr(report, "display", shown.append)
    report.show_picture(tmp_path / "strip.png")
    picture = Image.open(io.BytesIO(shown[0].data))
    assert picture.format == "JPEG" and picture.size == (64, 64)
    assert len(shown[0].data) < (tmp_path / "strip.png").stat().st_size


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_has_its_heading_axes_and_images_and_can_be_drawn(name):
    figure = draw(name)
    assert isinstance(figure, Figure) and figure.get_suptitle() == "Heading"
    assert len(figure.axes) == DRAWINGS[name][2]
    assert sum(len(axis.images) for axis in figure.axes) == DRAWINGS[name][3]
    assert figure.get_figwidth() == WIDTH
    figure.savefig(io.BytesIO())


@pytest.mark.parametrize("name", ["line_plot", "image_grid"])
def test_the_style_is_the_courses_and_stays_inside(name):
    with matplotlib.rc_context({"figure.facecolor": "black", "axes.facecolor": "red", "font.size": 3}):
        before = dict(matplotlib.rcParams)
        figure = draw(name)
        assert dict(matplotlib.rcParams) == before
    assert to_hex(figure.get_facecolor()) == to_hex(figure.axes[0].get_facecolor()) == CARD
    assert figure.axes[0].title.get_fontsize() == 13


def test_grid_shows_images_under_their_labels_clamped_and_leaves_the_rest_empty():
    images = [picture(seed=seed) * 2 - 0.5 for seed in range(4)]
    figure = report.image_grid(images, title="", labels=list("abcd"), columns=3)
    assert titles(figure) == ["a", "b", "c", "d", "", ""]
    for axis, image in zip(figure.axes, images, strict=False):
        np.testing.assert_array_equal(pixels(axis), channels_last(image).clip(0, 1))
    assert not any(axis.axison for axis in figure.axes)
    assert len(report.image_grid(images[:2], title="").axes) == 2


def test_strip_shows_every_version_at_the_truths_size_with_its_psnr():
    versions = scene()
    figure = report.comparison_strip([versions], title="")
    truth = channels_last(versions["truth"])
    shown = [twice(versions["input"]), channels_last(versions["restored"]), truth]
    for axis, expected in zip(figure.axes, shown, strict=True):
        np.testing.assert_array_equal(pixels(axis), expected)
    decibels = [f"{peak_signal_noise_ratio(truth, each, data_range=1):.2f} dB" for each in shown[:2]]
    assert titles(figure) == [f"input\n{decibels[0]}", f"restored\n{decibels[1]}", "truth"]


def test_busiest_window_is_the_one_whose_luma_varies_most():
    image = picture(45, 62, seed=3) * torch.linspace(0, 1, 62)
    luma = 65.481 * image[0] + 128.553 * image[1] + 24.966 * image[2]
    places = [(top, left) for top in range(0, 36, 4) for left in range(0, 53, 4)]
    spread = [luma[top : top + 10, left : left + 10].std().item() for top, left in places]
    assert report.busiest_window(image, 10) == places[int(np.argmax(spread))]
    assert report.busiest_window(with_busy_corner()["truth"], 16) == (20, 8)
    assert report.busiest_window(image[..., :45], 45) == (0, 0)


def test_zoom_frames_the_busiest_window_and_shows_it_in_every_version():
    versions = with_busy_corner()
    figure = report.zoom_strip([versions], title="", size=16)
    assert titles(figure) == ["where", "input", "truth"]
    (frame,) = figure.axes[0].patches
    assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((8, 20), 16, 16)
    assert pixels(figure.axes[0]).shape == (40, 48, 3)
    np.testing.assert_array_equal(pixels(figure.axes[2]), channels_last(versions["truth"][:, 20:36, 8:24]))
    np.testing.assert_array_equal(pixels(figure.axes[1]), twice(versions["input"][:, 10:18, 4:12]))
    # A window is no larger than the picture.
    figure = report.zoom_strip([scene()], title="", size=96)
    assert [pixels(axis).shape[:2] for axis in figure.axes] == [(24, 32), (24, 24), (24, 24), (24, 24)]


def test_best_stand_above_worst_and_the_gain_over_the_first_version():
    best = [with_busy_corner(), {"input": picture(), "truth": picture(seed=1)}]
    worst = [{"input": picture(), "truth": picture(16, 16)}]
    figure = report.best_worst(best, worst, ([1.5, 0.25], [-2.0]), title="", size=16)
    above, below = ["+1.50 dB\ninput", "+0.25 dB\ninput", "truth", "truth"], ["-2.00 dB\ninput", "", "truth", ""]
    assert titles(figure) == above + below
    np.testing.assert_array_equal(pixels(figure.axes[2]), channels_last(best[0]["truth"][:, 20:36, 8:24]))
    np.testing.assert_array_equal(pixels(figure.axes[6]), channels_last(worst[0]["truth"]))


def test_loss_panels_have_their_headings_lines_and_a_legend_where_lines_must_be_told_apart():
    figure = draw("loss_curves")
    first, second = figure.axes
    assert titles(figure) == ["first", "second"]
    assert first.get_xlabel() == second.get_xlabel() == "optimiser step"
    assert (first.get_ylabel(), second.get_ylabel()) == ("loss", "")
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["a", "b"]
    assert second.get_legend() is None
    assert len({line.get_linestyle() for line in first.lines}) == len({line.get_color() for line in first.lines}) == 2
    np.testing.assert_array_equal(second.lines[0].get_xydata(), [[1, 3], [2, 2], [4, 1]])
    # A single point has no line to be seen.
    figure = report.loss_curves({"": {"one": ([5], [1.0]), "many": CURVE}}, title="", ylabel="")
    assert [line.get_marker() for line in figure.axes[0].lines] == ["o", ""]


@pytest.mark.parametrize("from_zero", [False, True])
def test_points_are_joined_and_the_axis_begins_at_zero_when_asked(from_zero):
    (axis,) = report.line_plot({"a": CURVE}, **WORDS, from_zero=from_zero).axes
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.lines[0].get_marker()) == ("across", "up", "o")
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), [[1, 3], [2, 2], [4, 1]])
    assert (axis.get_ylim()[0] == 0) == from_zero


@pytest.mark.parametrize("kind", [list, torch.tensor])
def test_spectra_are_in_squared_grey_levels_on_a_logarithmic_axis(kind):
    (axis,) = report.spectrum_plot({"a": (kind([0.1, 0.5]), kind([1.0, 1 / 255**2]))}, title="").axes
    assert axis.get_yscale() == "log" and "squared grey levels" in axis.get_ylabel()
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [65025, 1], rtol=1e-6)


def test_histograms_have_area_one_and_leave_the_outermost_values_out():
    wide = 100 * torch.cat([torch.linspace(-1, 1, 4999), torch.tensor([50.0])])
    values = {"narrow": wide[:-1].view(1, -1) / 4, "wide": wide}
    (axis,) = report.histogram_comparison(values, title="", xlabel="across", bins=20).axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["narrow", "wide"]
    for outline, value in zip(axis.patches, values.values(), strict=True):
        heights, edges, _ = outline.get_data()
        assert -115 < edges[0] < -99 and 99 < edges[-1] < 115
        assert (heights * np.diff(edges)).sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(heights, np.histogram(value, edges, density=True)[0], atol=1e-3)
    (axis,) = report.histogram_comparison({"zero": torch.zeros(9)}, title="", xlabel="").axes
    assert axis.patches[0].get_data().edges[-1] == 1.5


def test_a_histogram_of_whole_grey_levels_has_no_notches():
    level = torch.arange(-70, 71).float()  # every level once: the outline must be level, too
    (axis,) = report.histogram_comparison({"flat": level.repeat(9)}, title="", xlabel="", bins=61).axes
    heights = axis.patches[0].get_data().values
    assert heights[1:-2] == pytest.approx(heights[1], rel=1e-4)


def test_correlation_map_writes_its_values_and_counts_from_the_centre():
    matrix = torch.tensor([[0.0, 0.25, 0.0], [-0.5, 1.0, -0.5], [0.0, 0.25, 0.0]])
    (axis,) = report.correlation_maps({"noise": matrix}, title="").axes
    assert axis.get_title() == "noise" and axis.images[0].get_clim() == (-1, 1)
    np.testing.assert_array_equal(pixels(axis), matrix)
    written = {text.get_position(): text.get_text() for text in axis.texts}
    assert written[(1, 0)] == "0.25" and written[(0, 1)] == "-0.50" and len(written) == 9
    for ticks in (axis.get_xticklabels(), axis.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == ["-1", "0", "1"]


def test_covariance_picture_shows_mean_matrix_and_falling_eigenvalues():
    figure = draw("covariance_picture")
    assert [title.split()[0] for title in titles(figure)] == ["mean", "covariance", "eigenvalues"]
    mean, matrix, eigenvalues = figure.axes
    assert [bar.get_height() for bar in mean.patches] == [1, -2]
    assert matrix.images[0].get_clim() == (-7, 7)
    expected = np.linalg.eigvalsh([[2, -3], [-3, 7]])[::-1]
    np.testing.assert_allclose([bar.get_height() for bar in eigenvalues.patches], expected, rtol=1e-6)
    assert not eigenvalues.lines


@pytest.mark.parametrize(("values", "limits"), [([[1.0, 1.5], [-2.0, 1.0]], (-2, 4)), ([[1.0, 1.0]], (0, 2))])
def test_colours_of_a_map_part_at_the_neutral_value(values, limits):
    figure = report.image_beside_map(picture(), torch.tensor(values), title="", heading="map", neutral=1.0)
    assert titles(figure)[:2] == ["input", "map"] and figure.axes[1].images[0].get_clim() == limits
    np.testing.assert_array_equal(pixels(figure.axes[1]), values)
    assert figure.axes[2].get_ylim() == limits


def test_intervals_hold_95_percent_around_the_median_from_top_to_bottom():
    (axis,) = draw("interval_plot").axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["one", "two"] and axis.yaxis_inverted()
    low, middle, high = np.quantile(SAMPLES.numpy(), [0.025, 0.5, 0.975], axis=0)
    assert [each.get_label() for each in axis.containers] == ["a", "b"]
    for points, _, (whiskers,) in axis.containers:
        np.testing.assert_allclose(points.get_xdata().astype(float), middle)
        ends = np.array([segment[:, 0] for segment in whiskers.get_segments()], dtype=float)
        np.testing.assert_allclose(ends, np.stack([low, high], axis=1))
    heights = [points.get_ydata().tolist() for points, _, _ in axis.containers]
    assert heights[0] == [0, 1] and heights[1][0] not in (0, 1)


def test_gains_are_points_with_a_line_at_zero():
    (axis,) = draw("gain_scatter").axes
    np.testing.assert_array_equal(axis.collections[0].get_offsets(), [[20, 1], [25, -0.5]])
    assert list(axis.lines[0].get_ydata()) == [0, 0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("across", "up")


@pytest.mark.parametrize(("photographs", "kind"), [(False, "PNG"), (True, "JPEG")])
def test_a_figure_is_saved_as_png_and_displayed_once(tmp_path, monkeypatch, photographs, kind):
    displayed = []
    monkeypatch.setattr(report, "display", displayed.append)
    for name in ("line_plot", "gain_scatter"):
        with matplotlib.rc_context({"savefig.dpi": 30}):
            report.show(draw(name), SimpleNamespace(run_root=tmp_path), "a", photographs=photographs)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["a.png"]
    saved = Image.open(tmp_path / "figures" / "a.png")
    shown = [Image.open(io.BytesIO(each.data)) for each in displayed]
    assert [each.format for each in (saved, *shown)] == ["PNG", kind, kind]
    assert {each.width for each in (saved, *shown)} == {960}
    last, displayed_last = (np.asarray(each.convert("RGB")).astype(float) for each in (saved, shown[1]))
    assert np.abs(last - displayed_last).mean() < 2


def test_a_table_has_headings_formats_and_gaps():
    rows = [{"method": "bicubic", "psnr": 20.456, "count": 1200, "other": 1}, {"method": "ours", "count": 3}]
    columns = {"method": ("Method", ""), "psnr": ("PSNR", ".2f"), "count": ("images", ",d")}
    assert report.table(rows, columns).data.splitlines() == [
        "| Method | PSNR | images |",
        "| --- | ---: | ---: |",
        "| bicubic | 20.46 | 1,200 |",
        "| ours |  | 3 |",
    ]


def test_what_many_figures_show_has_one_colour_in_all_of_them():
    figures = [
        report.line_plot({name: ([0, 1], [0, 1]) for name in names}, title="t", xlabel="x", ylabel="y")
        for names in (("generated", "real inputs"), ("real", "deflow", "other"), ("other", "more"))
    ]
    colours = [{line.get_label(): line.get_color() for line in figure.axes[0].lines} for figure in figures]
    assert colours[0]["real inputs"] == colours[1]["real"] != colours[0]["generated"] == colours[1]["deflow"]
    assert len(set(colours[1].values())) == 3 and len(set(colours[2].values())) == 2
