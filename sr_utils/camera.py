"""The hidden camera of task 1: what a small sensor does to a clean picture.

`data/build.py` sends the clean low-resolution test pictures through this simulation to make `task1/Input`.
The learner sees only its output. No other module of `sr_utils` and no notebook may import this one (a test
walks the imports), and the parameters drawn for the 100 pictures are stored nowhere.

The order of the steps is that of Brooks et al. 2019: undo the tone curve, the display gamma and the white
balance to reach linear sensor values, spoil those, then develop them again. The steps that spoil:

- a slight optical blur;
- an RGGB Bayer mosaic, so each pixel keeps one colour out of three;
- noise of variance a x + b, shot noise plus read noise (Foi et al. 2008, equation 3);
- demosaicing, which spreads the noise of a pixel over its neighbours and its colours;
- JPEG.

The noise that comes out is therefore coloured, spatially correlated and dependent on the signal.

References
----------
Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019.
Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data", IEEE
Transactions on Image Processing, 2008.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from sr_utils.errors import UserError

SHOT_RANGE = (0.0030, 0.0145)  # of the shot noise a; gives residuals of about 6 to 18 grey levels of 255

_PAD = 8  # pixels of mirror border around the mosaic, so that demosaicing treats the border like the rest
_BLACK = 8192  # 16-bit pedestal: noise below black survives until the picture is developed, as in a sensor
_WHITE = 2**15  # 16-bit steps from black to white; leaves as much again above white


@dataclass(frozen=True)
class CameraParameters:
    """One camera setting.

    Parameters
    ----------
    shot, read: a and b of the noise variance a x + b, for linear sensor values x in [0, 1].
    red_gain, blue_gain: white balance gains; green has gain 1.
    contrast: 0 is no tone curve, towards 1 the smooth step 3 t^2 - 2 t^3.
    blur: standard deviation of the optical blur, in pixels.
    jpeg_quality: 1 to 100.
    """

    shot: float
    read: float
    red_gain: float
    blue_gain: float
    contrast: float
    blur: float
    jpeg_quality: int


def sample_parameters(generator: torch.Generator) -> CameraParameters:
    """Draw one camera setting: shot noise log-uniform over `SHOT_RANGE`, the rest uniform.

    The read noise follows the shot noise on a straight line in log-log, with some scatter, as on real sensors
    over their ISO range (Brooks et al. 2019, section 3.1). The line is a low one: more read noise would be
    cut off at black and tint the dark colours.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()

    log_shot = uniform(math.log(SHOT_RANGE[0]), math.log(SHOT_RANGE[1]))
    log_read = 2.0 * log_shot + math.log(0.5) + 0.3 * uniform(-1.0, 1.0)
    return CameraParameters(
        shot=math.exp(log_shot),
        read=math.exp(log_read),
        red_gain=uniform(1.5, 2.2),
        blue_gain=uniform(1.4, 2.0),
        contrast=uniform(0.0, 0.5),
        blur=uniform(0.3, 0.7),
        jpeg_quality=int(round(uniform(70, 95))),
    )


def srgb_to_linear(image: np.ndarray) -> np.ndarray:
    """Inverse of the sRGB transfer function (IEC 61966-2-1), values in [0, 1]."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(image: np.ndarray) -> np.ndarray:
    """sRGB transfer function (IEC 61966-2-1), values in [0, 1]."""
    power = 1.055 * np.maximum(image, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(image <= 0.0031308, image * 12.92, power)


def tone_curve(image: np.ndarray, contrast: float) -> np.ndarray:
    """Blend of the identity and the smooth step 3 t^2 - 2 t^3; increasing for contrast in [0, 1)."""
    return (1 - contrast) * image + contrast * image**2 * (3 - 2 * image)


def inverse_tone_curve(image: np.ndarray, contrast: float) -> np.ndarray:
    """Inverse of `tone_curve` on [0, 1], by linear interpolation in a table of 4097 points."""
    table = np.linspace(0.0, 1.0, 4097)
    return np.interp(image, tone_curve(table, contrast), table)


def bayer_mosaic(linear: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB to the (H, W) RGGB mosaic: red at even rows and columns, blue at odd ones."""
    mosaic = linear[..., 1].copy()
    mosaic[0::2, 0::2] = linear[0::2, 0::2, 0]
    mosaic[1::2, 1::2] = linear[1::2, 1::2, 2]
    return mosaic


def add_sensor_noise(raw: np.ndarray, shot: float, read: float, generator: torch.Generator) -> np.ndarray:
    """Add Gaussian noise of variance shot * raw + read to linear values; the result is not clipped.

    The Gaussian stands for the Poisson law of the photon count, as in Foi et al. 2008, section II-B.
    """
    normal = torch.randn(raw.shape, generator=generator, dtype=torch.float64).numpy()
    return raw + np.sqrt(shot * np.maximum(raw, 0.0) + read) * normal


def demosaic(raw: np.ndarray) -> np.ndarray:
    """(H, W) RGGB mosaic to (H, W, 3) RGB by OpenCV's edge-aware interpolation, in 16 bits."""
    steps = np.clip(np.rint(raw * _WHITE + _BLACK), 0, 65535).astype(np.uint16)
    return (cv2.cvtColor(steps, cv2.COLOR_BayerRGGB2RGB_EA).astype(np.float64) - _BLACK) / _WHITE


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """(H, W, 3) RGB in [0, 1] through 8-bit JPEG (4:2:0 chroma) and back."""
    bgr = np.rint(image[..., ::-1] * 255).astype(np.uint8)
    _, stream = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(stream, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float64) / 255


def simulate_camera(clean: Tensor, parameters: CameraParameters, generator: torch.Generator) -> Tensor:
    """Photograph a clean picture with the simulated camera.

    Parameters
    ----------
    clean: (3, H, W), sRGB in [0, 1], H and W even and at least 16.
    parameters: the camera setting.
    generator: CPU generator, the source of the sensor noise.

    Returns
    -------
    (3, H, W) float32 in [0, 1], on 8-bit levels.

    Raises
    ------
    UserError: the image has another shape.
    """
    shape = tuple(clean.shape)
    if len(shape) != 3 or shape[0] != 3 or any(side < 16 or side % 2 for side in shape[1:]):
        raise UserError(f"simulate_camera got the shape {shape}; give (3, H, W) with even sides of 16 or more.")
    image = np.clip(clean.detach().cpu().double().numpy().transpose(1, 2, 0), 0.0, 1.0)
    gains = np.array([parameters.red_gain, 1.0, parameters.blue_gain])

    linear = srgb_to_linear(inverse_tone_curve(image, parameters.contrast)) / gains
    # An even mirror border keeps the phase of the Bayer pattern.
    linear = np.pad(linear, ((_PAD, _PAD), (_PAD, _PAD), (0, 0)), mode="reflect")
    blurred = cv2.GaussianBlur(linear, (0, 0), parameters.blur, borderType=cv2.BORDER_REFLECT_101)

    raw = add_sensor_noise(bayer_mosaic(blurred), parameters.shot, parameters.read, generator)

    developed = np.clip(demosaic(raw)[_PAD:-_PAD, _PAD:-_PAD] * gains, 0.0, 1.0)
    display = np.clip(tone_curve(linear_to_srgb(developed), parameters.contrast), 0.0, 1.0)
    output = jpeg(display, parameters.jpeg_quality)
    return torch.from_numpy(output.transpose(2, 0, 1).copy()).float()
