"""Learned degradations for super-resolution: DeFlow, ESRGAN and the small tools a course about them needs."""

__version__ = "0.1.0"
