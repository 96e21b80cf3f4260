"""Profiles: how much the course computes. A profile is chosen by name, never guessed from the machine."""

from dataclasses import dataclass, replace

from sr_utils.deflow import DeFlowConfig
from sr_utils.esrgan import DiscriminatorConfig, RRDBNetConfig
from sr_utils.training_config import DeFlowTraining, ESRGANTraining


@dataclass(frozen=True)
class Profile:
    """Models, sizes and durations of one way to run the course."""

    name: str
    deflow: DeFlowConfig
    deflow_training: DeFlowTraining
    esrgan: RRDBNetConfig
    """For scale 2; `esrgan_at` gives it for another scale."""
    discriminator: DiscriminatorConfig
    esrgan_training: ESRGANTraining
    draws: int
    """Degraded versions that are drawn of each clean photograph."""
    redraw: bool
    """Degrade a photograph anew each time all of it has been seen, instead of training on those versions only."""
    pairs_limit: int | None
    """How many of task 1's pairs are restored and scored; None scores all of them."""
    scored_pairs: int | None
    """How many of them the learned degradation is held to; at least 4."""
    classifier_steps: int
    """How long the network trains that tells generated residuals from real ones."""
    stability_patches: int
    """How many patches are translated to see whether all are finite."""
    toy_steps: int
    """How long the flows of one and two pixels are trained (notebook 1)."""
    exercise_steps: int
    """How long a solution to an exercise trains (notebook 10)."""
    cell_timeout: int
    """Seconds after which a notebook cell counts as hung."""
    from_base: bool = True
    """Fine-tune the committed base checkpoints; otherwise both models start from random weights."""
    needs_cuda: bool = False
    """Refuse to run without a CUDA device (and train in mixed precision on it)."""

    def esrgan_at(self, scale: int) -> RRDBNetConfig:
        """The restoring network's sizes for a scale of 1, 2 or 4."""
        return replace(self.esrgan, scale=scale)


_PROFILES = (
    Profile(
        name="smoke",
        deflow=DeFlowConfig(steps=1, hidden=8, features=8, encoder_blocks=1),
        deflow_training=DeFlowTraining(steps=2, patch=32, batch=2, degraded_grid=8),
        esrgan=RRDBNetConfig(features=8, growth=4, blocks=1),
        discriminator=DiscriminatorConfig(features=4),
        esrgan_training=ESRGANTraining(pixel_steps=2, gan_steps=2, patch=16, batch=2),
        draws=1,
        redraw=True,
        pairs_limit=3,
        scored_pairs=4,
        classifier_steps=5,
        stability_patches=20,
        toy_steps=600,
        exercise_steps=2,
        cell_timeout=600,
        from_base=False,
    ),
    Profile(
        name="quick",
        deflow=DeFlowConfig(),
        deflow_training=DeFlowTraining(steps=300, batch=8, learning_rate=5e-4, degraded_grid=8, ema_decay=0.98),
        esrgan=RRDBNetConfig(),
        discriminator=DiscriminatorConfig(),
        esrgan_training=ESRGANTraining(
            pixel_steps=50,
            gan_steps=200,
            learning_rate=1e-4,
            gan_learning_rate=2e-4,
            perceptual_weight=3.0,
            ema_decay=0.98,
        ),
        draws=4,
        redraw=False,
        pairs_limit=None,
        scored_pairs=24,
        classifier_steps=100,
        stability_patches=1000,
        toy_steps=1000,
        exercise_steps=4,
        cell_timeout=3600,
    ),
    Profile(
        name="full",
        deflow=DeFlowConfig(),
        deflow_training=DeFlowTraining(steps=1200, batch=8, learning_rate=5e-4, degraded_grid=8, ema_decay=0.995),
        esrgan=RRDBNetConfig(),
        discriminator=DiscriminatorConfig(),
        esrgan_training=ESRGANTraining(pixel_steps=5000, gan_steps=1000, gan_learning_rate=2e-4, perceptual_weight=3.0),
        draws=4,
        redraw=True,
        pairs_limit=None,
        scored_pairs=None,
        classifier_steps=400,
        stability_patches=10_000,
        toy_steps=3000,
        exercise_steps=24,
        cell_timeout=48 * 3600,
    ),
    Profile(
        name="gpu",
        deflow=DeFlowConfig(steps=16, hidden=64, features=64, encoder_blocks=23, mixed_precision=True),
        deflow_training=DeFlowTraining(steps=100_000, patch=160, batch=8, learning_rate=5e-4, degraded_grid=8),
        esrgan=RRDBNetConfig(features=64, growth=32, blocks=23),
        discriminator=DiscriminatorConfig(features=64),
        esrgan_training=ESRGANTraining(
            pixel_steps=30_000, gan_steps=30_000, patch=64, batch=16, learning_rate=2e-4, mixed_precision=True
        ),
        draws=4,
        redraw=True,
        pairs_limit=None,
        scored_pairs=None,
        classifier_steps=400,
        stability_patches=10_000,
        toy_steps=3000,
        exercise_steps=24,
        cell_timeout=7 * 24 * 3600,
        from_base=False,
        needs_cuda=True,
    ),
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in _PROFILES}
