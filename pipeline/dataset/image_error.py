"""The error of one image."""

from pipeline.errors import PipelineError


class ImageError(PipelineError):
    """One image cannot be used; the message is the reason, without the file's name."""
