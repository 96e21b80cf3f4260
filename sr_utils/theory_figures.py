"""Pictures of the theory: Gaussians and what samples say of them, flows of one and two pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from sr_utils.figure_style import CARD, INK, LINES, PALETTE, Curve, draw_lines, new_figure, styled
from sr_utils.gaussian_shift import (
    bootstrap,
    degraded_moments,
    draw_unpaired,
    gradient,
    maximum_likelihood,
    profile_likelihood,
    standard_errors,
    variance_error,
)

CONFIDENCE = {"68 %": 1.148, "95 %": 2.996}
"""How many nats below the best a pair of parameters may lie, by the share of truths that this keeps (chi-squared/2)."""


def gaussian_density(values: Tensor, mean: Tensor | float, deviation: Tensor | float) -> Tensor:
    """The density of N(mean, deviation²) at ``values``."""
    return torch.exp(-0.5 * ((values - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))


def _histogram(axis: Axes, values: Tensor, colour: str, *, bins: int = 40, label: str = "") -> None:
    low, high = values.min().item(), values.max().item()
    edges = torch.linspace(low, high + 1e-6, bins + 1, dtype=values.dtype)
    density = torch.histogram(values, edges, density=True).hist
    axis.stairs(density, edges, fill=True, alpha=0.3, color=colour, label=label)


@styled
def explorer(parameters: Tensor, *, count: int, seed: int = 0) -> Figure:
    """The one-dimensional model: ``count`` unpaired values of x and of y, and what they say of u.

    At the left both samples and densities, at the right how likely each mean and deviation of u is.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = draw_unpaired(parameters, count, count, generator)
    estimate = maximum_likelihood(x, y)
    figure, axes = new_figure(1, 2, title=f"{count} values of x, {count} values of y, not paired", height=4.6)
    reach = torch.stack([*(values.min() for values in (x, y)), *(values.max() for values in (x, y))])
    places = torch.linspace(reach.min().item() - 1, reach.max().item() + 1, 300, dtype=x.dtype)
    densities = {"x": (parameters[0], parameters[1]), "y": degraded_moments(parameters)}
    fitted = {"x": (estimate[0], estimate[1]), "y": degraded_moments(estimate)}
    for index, (name, values) in enumerate((("x", x), ("y", y))):
        _histogram(axes[0][0], values, PALETTE[index], bins=max(8, min(40, count // 8)))
        for line, known, moments in (("-", "true", densities[name]), (":", "fitted", fitted[name])):
            density = gaussian_density(places, *moments)
            axes[0][0].plot(places, density, color=PALETTE[index], linestyle=line, label=f"{name}, {known}")
    axes[0][0].set(xlabel="value", ylabel="density")
    axes[0][0].legend(loc="upper right")
    _surface(axes[0][1], x, y, parameters, estimate)
    return figure


def _surface(axis: Axes, x: Tensor, y: Tensor, truth: Tensor, estimate: Tensor) -> None:
    """How likely each (mu_u, sigma_u) is, with the truth and the estimate."""
    error = standard_errors(estimate, len(x), len(y))[2]
    half = (4 * error).clamp(min=(truth[2] - estimate[2]).abs() * 1.2).item()
    means = torch.linspace(estimate[2].item() - half, estimate[2].item() + half, 49, dtype=x.dtype)
    highest = (estimate[3].square() + 4 * variance_error(estimate, len(x), len(y))).sqrt()
    top = max(highest.item(), 1.2 * truth[3].item())
    deviations = torch.linspace(0, top, 49, dtype=x.dtype)
    worse = profile_likelihood(x, y, means, deviations)
    levels = [0, 0.5, *CONFIDENCE.values(), 6, 9, 12]
    axis.contourf(means, deviations, worse.clamp(max=12), levels=levels, cmap="Blues_r")
    lines = axis.contour(means, deviations, worse, levels=list(CONFIDENCE.values()), colors=CARD, linewidths=1.6)
    axis.clabel(lines, fmt=dict(zip(CONFIDENCE.values(), CONFIDENCE, strict=True)), fontsize=11)
    axis.plot(*truth[2:].tolist(), marker="o", color=PALETTE[4], markersize=11, linestyle="", label="truth")
    axis.plot(*estimate[2:].tolist(), marker="X", color=PALETTE[1], markersize=11, linestyle="", label="estimate")
    axis.set(xlabel="mean of u", ylabel="deviation of u", ylim=(-0.02 * top, top))
    axis.grid(False)
    axis.legend(loc="upper right", framealpha=0.8, frameon=True)


@styled
def confidence(truth: Tensor, counts: Sequence[int], *, seed: int = 0, repeats: int = 500) -> Figure:
    """How surely the deviation of u is found: by theory, by bootstrap, and by finding it over and over again."""
    generator = torch.Generator().manual_seed(seed)
    spread, middle, resampled, expected, at_zero = [], [], [], [], []
    for count in counts:
        samples = draw_unpaired(truth, count, count, generator, repeats=(repeats,))
        estimates = maximum_likelihood(*samples)[:, 3]
        low, high = torch.quantile(estimates, torch.tensor([0.025, 0.975], dtype=truth.dtype)).tolist()
        spread.append((low, high))
        middle.append(estimates.median().item())
        own = bootstrap(samples[0][0], samples[1][0], generator)[:, 3]
        resampled.append(torch.quantile(own, torch.tensor([0.025, 0.975], dtype=truth.dtype)).tolist())
        expected.append(1.96 * standard_errors(truth, count, count)[3].item())
        at_zero.append(100 * (estimates == 0).double().mean().item())
    figure, axes = new_figure(1, 2, title="Fewer values, less certainty", height=4.6, width_ratios=(1.6, 1))
    axis, true = axes[0][0], truth[3].item()
    band = zip(*spread, strict=True)
    axis.fill_between(counts, *band, color=PALETTE[0], alpha=0.25, label="95 % of all estimates")
    axis.plot(counts, middle, color=PALETTE[0], label="their median")
    for sign, label in ((1, "Fisher: truth ± 1.96 errors"), (-1, None)):
        axis.plot(counts, [true + sign * error for error in expected], color=INK, linestyle="--", label=label)
    centre = [sum(pair) / 2 for pair in resampled]
    half = [(pair[1] - pair[0]) / 2 for pair in resampled]
    axis.errorbar(counts, centre, yerr=half, fmt="o", color=PALETTE[1], capsize=5, label="bootstrap of one sample")
    axis.axhline(true, color=PALETTE[2], linestyle=":", label="truth")
    axis.set(xscale="log", xlabel="values in each sample", ylabel="deviation of u", ylim=(-0.05, 3 * true))
    axis.legend(loc="upper right")
    axes[0][1].plot(counts, at_zero, marker="o", color=PALETTE[3])
    axes[0][1].set(xscale="log", xlabel="values in each sample", ylim=(0, None))
    axes[0][1].set_title("estimates that are exactly 0, %")
    return figure


@styled
def gradient_at_zero(
    samples: Mapping[str, tuple[Tensor, Tensor]], paths: Mapping[str, Tensor], *, reach: float
) -> Figure:
    """The gradient along sigma_u, all else at its best, for pairs of samples; and paths of descent over their steps."""
    figure, axes = new_figure(1, 2, title="Where the deviation of u starts decides where it can go", height=4.4)
    places = torch.linspace(-reach, reach, 201, dtype=torch.float64)
    curves: dict[str, Curve] = {}
    for name, (x, y) in samples.items():
        parameters = maximum_likelihood(x, y).repeat(len(places), 1)
        parameters[:, 3] = places
        curves[name] = (places, gradient(parameters, x, y)[:, 3])
    axes[0][0].axhline(0, color=INK, linewidth=1)
    axes[0][0].axvline(0, color=INK, linewidth=1)
    draw_lines(axes[0][0], curves, legend="lower right")
    axes[0][0].margins(y=0.25)
    axes[0][0].set(xlabel="deviation of u", ylabel="gradient of the loss")
    draw_lines(axes[0][1], {name: (range(len(path)), path[:, 3]) for name, path in paths.items()})
    axes[0][1].set(xlabel="step of gradient descent", ylabel="deviation of u")
    return figure


def ellipse(axis: Axes, mean: Tensor, covariance: Tensor, colour: str, *, label: str = "", line: str = "-") -> None:
    """The outline within which 86 % of a two-dimensional Gaussian lie: two deviations each way."""
    values, vectors = torch.linalg.eigh(covariance)
    angle = math.degrees(math.atan2(vectors[1, 1].item(), vectors[0, 1].item()))
    width, height = (4 * values.clamp(min=0).sqrt()).flip(0).tolist()
    patch = Ellipse(mean.tolist(), width, height, angle=angle, fill=False, edgecolor=colour, linestyle=line)
    patch.set(linewidth=2.4, label=label or None)
    axis.add_patch(patch)


@styled
def couplings(x: Tensor, partners: Mapping[str, Tensor]) -> Figure:
    """The same x with different partners y; beside each cloud the two marginals, which do not differ."""
    figure, axes = new_figure(2, len(partners), title="Same marginals, other pairs", height=6.4)
    both = torch.cat([x, *partners.values()])
    limits = (both.min().item(), both.max().item())
    for index, (name, y) in enumerate(partners.items()):
        axis = axes[0][index]
        axis.scatter(x[:600], y[:600], s=8, alpha=0.5, color=PALETTE[index])
        axis.set(title=name, xlabel="x", xlim=limits, ylim=limits)
        _histogram(axes[1][index], y, PALETTE[index])
        _histogram(axes[1][index], x, INK)
        axes[1][index].set(xlabel="x (grey) and y", xlim=limits)
    axes[0][0].set_ylabel("y")
    axes[1][0].set_ylabel("density")
    return figure


@styled
def flow_of_one_pixel(
    curves: Mapping[str, Curve],
    densities: Mapping[str, tuple[Tensor, Curve]],
    latents: Mapping[str, tuple[Tensor, Curve]],
) -> Figure:
    """The map from pixel to latent, and samples under densities on either side of it."""
    figure, axes = new_figure(1, 3, title="A flow bends the axis until clean values are Gaussian", height=4.4)
    draw_lines(axes[0][0], curves)
    axes[0][0].set(xlabel="pixel value", ylabel="latent z", title="f")
    for axis, panel, heading in ((axes[0][1], densities, "pixel value"), (axes[0][2], latents, "latent z")):
        for index, (name, (values, curve)) in enumerate(panel.items()):
            _histogram(axis, values, PALETTE[index])
            axis.plot(*curve, color=PALETTE[index], linestyle=LINES[index], label=name)
        axis.set(xlabel=heading)
        # Room for the legend above the curves.
        axis.set_ylim(top=1.25 * axis.get_ylim()[1])
        axis.legend(loc="upper right")
    axes[0][1].set_ylabel("density")
    return figure


@styled
def samples_and_curves(
    panels: Mapping[str, tuple[Tensor, Mapping[str, Curve]]], *, title: str, xlabel: str, legend: str
) -> Figure:
    """A panel each: a histogram of samples, named by ``legend``, under curves."""
    figure, axes = new_figure(1, len(panels), title=title, height=4.2)
    for axis, (heading, (values, curves)) in zip(axes[0], panels.items(), strict=True):
        _histogram(axis, values, PALETTE[0], label=legend)
        for index, (name, curve) in enumerate(curves.items(), start=1):
            axis.plot(*curve, color=PALETTE[index], linestyle=LINES[index], label=name)
        axis.set(title=heading, xlabel=xlabel)
    axes[0][0].set_ylabel("density")
    axes[0][0].legend()
    return figure


@styled
def warped_grids(panels: Mapping[str, tuple[Tensor, Tensor]], *, reach: float) -> Figure:
    """Grids (lines, points, 2) of latent space in the plane of two pixels, over samples (N, 2)."""
    figure, axes = new_figure(1, len(panels), title="The latent grid, carried to pixels", height=4.3)
    for axis, (heading, (grid, samples)) in zip(axes[0], panels.items(), strict=True):
        axis.scatter(*samples[:1500].T, s=4, alpha=0.35, color=PALETTE[4])
        half = len(grid) // 2
        for index, line in enumerate(grid):
            axis.plot(*line.T, color=PALETTE[0] if index < half else PALETTE[2], linewidth=1.1)
        axis.set(title=heading, xlabel="left pixel", xlim=(0, reach), ylim=(0, reach), aspect="equal")
    axes[0][0].set_ylabel("right pixel")
    return figure


@styled
def residual_clouds(clouds: Mapping[str, Tensor], truth: tuple[Tensor, Tensor], *, title: str, label: str) -> Figure:
    """What was added to two pixels (N, 2), a panel a model, and the two-deviation ellipse of what should be."""
    figure, axes = new_figure(1, len(clouds), title=title, height=4.4)
    every = torch.cat([*clouds.values(), truth[0][None]])
    low, high = torch.quantile(every, torch.tensor([0.001, 0.999]), dim=0)
    reach = torch.stack([low.min(), high.max()]) + torch.tensor([-0.1, 0.1])
    for axis, (name, cloud) in zip(axes[0], clouds.items(), strict=True):
        axis.scatter(*cloud[:1500].T, s=6, alpha=0.25, color=INK)
        ellipse(axis, *truth, PALETTE[0], label="true")
        ellipse(axis, cloud.mean(0), torch.cov(cloud.T), PALETTE[1], label="generated", line="--")
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.axvline(0, color=INK, linewidth=0.8)
        limits = tuple(reach.tolist())
        axis.set(title=name, xlabel=f"{label}, left pixel", xlim=limits, ylim=limits, aspect="equal")
    axes[0][0].set_ylabel(f"{label}, right pixel")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def plane_gaussians(panels: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]], *, title: str, label: str) -> Figure:
    """Two-deviation ellipses of Gaussians of two pixels, a panel each."""
    figure, axes = new_figure(1, len(panels), title=title, height=4.6)
    for axis, (heading, gaussians) in zip(axes[0], panels.items(), strict=True):
        for index, (name, (mean, covariance)) in enumerate(gaussians.items()):
            ellipse(axis, mean, covariance, PALETTE[index], label=name, line=LINES[index % len(LINES)])
        axis.autoscale_view()
        axis.set(title=heading, xlabel=f"{label}, left pixel", aspect="equal")
        axis.legend(loc="upper left")
    axes[0][0].set_ylabel(f"{label}, right pixel")
    return figure
