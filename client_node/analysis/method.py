"""How an overlay may be computed. On its own, so that the command line need not load imaging libraries for it."""

from enum import StrEnum


class Method(StrEnum):
    """How an overlay is computed."""

    AUTO = "auto"
    """Grad-CAM where torch, captum and the model's tensors are here, else the exported file's own map."""
    GRADCAM = "gradcam"
    CAM = "cam"
